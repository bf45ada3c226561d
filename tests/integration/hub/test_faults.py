"""A hub, a network or a disk that fails: one clear line or a whole file, with huggingface_hub."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.hub_server import hub_of
from tests.hub_worker import worker

NAME = "Xenova/ms-marco-MiniLM-L-6-v2"


@pytest.fixture(scope="module")
def serving(tiny_bert):
    """One hub for all tests here."""
    with hub_of({NAME: tiny_bert}) as running:
        yield running


@pytest.fixture
def hub(serving):
    """The hub, without faults."""
    serving.repair()
    return serving


@pytest.fixture(scope="module")
def process(serving):
    """Loads models; waits 3 s for an answer, and 1 s for more of a file."""
    with worker(serving, HF_HUB_DOWNLOAD_TIMEOUT="1") as started:
        yield started


@pytest.fixture
def volume(tmp_path):
    """A small file system of its own, "rw" or "ro"."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def varint(number):
    """As protobuf writes it."""
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    return bytes([*written, number])


def is_whole(process, hub, cache, tiny_bert):
    """Whether a hub without faults gives the whole file, and the cache no part of one."""
    hub.repair()
    found = Path(process.locate(NAME, cache_dir=cache)["model"])
    return found.read_bytes() == (tiny_bert / "onnx" / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "the hub answered 401: there is no {page}, or it is private. Check the name, and"),
        (403, "the hub answered 403: access is refused. Accept the terms at {page}, and set"),
        (404, "the hub answered 404: no such repository at {page}. Check the name and the"),
        (429, "the hub answered 429: too many requests. Wait 120 s, or set HF_TOKEN, which"),
        (500, "the hub answered 500. Try again later, or set HF_ENDPOINT to a mirror."),
        (503, "the hub answered 503. Try again later, or set HF_ENDPOINT to a mirror."),
    ],
)
def test_a_hub_that_refuses_is_one_line(process, hub, tmp_path, tiny_bert, status, message):
    """At once: asked a single time, and no waiting that the hub asks for."""
    hub.status, hub.headers["Retry-After"] = status, "120"
    said = process.locate(NAME, cache_dir=tmp_path)
    message = message.format(page=f"{hub.url}/{NAME}")
    assert said.startswith(f"ModelFileError: {NAME} could not be fetched: {message}")
    assert len(hub.requests) == 1
    assert process.seconds < 30
    assert is_whole(process, hub, tmp_path, tiny_bert)


@pytest.mark.parametrize("path", ["/api/models/", "tokenizer.json"])
def test_a_hub_that_hangs_is_given_up(process, hub, tmp_path, tiny_bert, path):
    """After one wait."""
    hub.hangs = path
    said = process.locate(NAME, cache_dir=tmp_path)
    assert f"could not be fetched: {hub.url} did not answer in time. Try again, check" in said
    assert len([each for each in hub.requests if path in each]) == 1
    assert process.seconds < 30
    assert is_whole(process, hub, tmp_path, tiny_bert)


def test_a_hub_that_drops_is_resumed(process, hub, tmp_path, tiny_bert):
    """Where it broke, and not from the start."""
    chunk = 2**20
    served = shutil.copytree(tiny_bert, tmp_path / "served") / "onnx" / "model.onnx"
    with served.open("ab") as file:  # a doc_string, which makes the same model longer
        file.write(b"\x32" + varint(2 * chunk) + bytes(2 * chunk))
    hub.repositories["someone/big"] = tmp_path / "served"
    hub.drops["model.onnx"] = [chunk + 1000, chunk + 2000]
    found = Path(process.locate("someone/big", cache_dir=tmp_path / "cache")["model"])
    assert found.read_bytes() == served.read_bytes()
    broke = chunk + 1000, 2 * chunk + 3000
    assert hub.ranges == [f"bytes={start}-" for start in broke]


def test_a_file_that_stalls_is_given_up(process, hub, tmp_path, tiny_bert):
    """After an attempt that brings nothing; no half of it is taken for whole."""
    hub.stalls["model.onnx"] = 0
    said = process.locate(NAME, cache_dir=tmp_path)
    assert said.startswith(f"ModelFileError: onnx/model.onnx of {NAME} could not be fetched: ")
    assert "did not answer in time" in said
    assert process.seconds < 60
    assert not list(tmp_path.rglob("*.onnx"))
    assert not list(tmp_path.rglob("*.incomplete"))
    assert is_whole(process, hub, tmp_path, tiny_bert)


def test_a_process_that_is_killed_leaves_no_half(process, hub, tmp_path, tiny_bert):
    """The next one fetches the file; the part that was left is removed once it is old."""
    with worker(hub) as killed:
        hub.stalls["model.onnx"] = 100_000
        killed.send(NAME, cache_dir=tmp_path)
        deadline = time.monotonic() + 60
        while not (parts := list(tmp_path.rglob("*.incomplete"))) and time.monotonic() < deadline:
            time.sleep(0.05)
        killed.kill()
    assert is_whole(process, hub, tmp_path, tiny_bert)
    (part,) = parts
    assert part.exists()  # it might be another's
    theirs = part.with_name(f"{'0' * 40}.incomplete")  # huggingface_hub resumes it
    theirs.touch()
    for each in (part, theirs):
        os.utime(each, (1, 1))
    next(tmp_path.rglob("config.json")).unlink()
    assert is_whole(process, hub, tmp_path, tiny_bert)
    assert not part.exists()
    assert theirs.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has other locks")
@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_file_system_without_locks_holds_a_cache(hub, tmp_path, error):
    """As some network file systems are; the files are whole without locks, too."""
    with worker(hub, TEST_NO_LOCKS=error) as process:
        for _ in range(2):
            found = process.locate(NAME, cache_dir=tmp_path)
            assert "model" in found, found
    assert sorted(hub.fetched()) == sorted(set(hub.fetched()))


def test_two_processes_fetch_once(process, hub, tmp_path):
    """The second waits, and finds the files of the first."""
    with worker(hub) as other:
        other.locate(NAME, cache_dir=tmp_path / "elsewhere")  # imported all it needs
        hub.repair()
        for each in (process, other):
            each.send(NAME, cache_dir=tmp_path / "both")
        assert process.answer() == other.answer()
    assert sorted(hub.fetched()) == sorted(set(hub.fetched()))


def test_a_read_only_cache_serves_what_it_has(process, hub, volume):
    """And a missing file is one line."""
    first = process.locate(NAME, cache_dir=volume)
    (volume / "other").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", volume], check=True)
    hub.requests.clear()
    assert process.locate(NAME, cache_dir=volume) == first
    assert hub.requests == []
    said = process.locate(NAME, cache_dir=volume / "other")
    assert said.startswith(
        f"ModelFileError: {NAME} could not be fetched: {volume / 'other'} cannot be written (Read-"
    )
    assert "Pass another cache_dir (QDRANT_RERANK_CACHE)" in said


def test_a_full_disk_is_told_before_anything_is_fetched(process, hub, volume):
    """With the size needed and the space left."""
    (volume / "ballast").write_bytes(bytes(1_900_000))
    said = process.locate(NAME, cache_dir=volume)
    assert said.startswith(f"ModelFileError: {NAME} needs ")
    assert f"and {volume} has 0 MB left. Make room, or pass another cache_dir" in said
    assert hub.fetched() == []


def test_a_disk_that_fills_up_is_told(hub, tmp_path, process, tiny_bert):
    """Here, a process that may not write so large a file."""
    with worker(hub, TEST_LARGEST_FILE="100000") as limited:
        said = limited.locate(NAME, cache_dir=tmp_path)
    assert said.startswith(f"ModelFileError: onnx/model.onnx of {NAME} could not be fetched: ")
    assert f"no room in {tmp_path} (File too large). Make room" in said
    assert not list(tmp_path.rglob("*.incomplete"))
    assert is_whole(process, hub, tmp_path, tiny_bert)


def test_a_hub_that_is_down_is_one_line(tmp_path):
    """Nothing listens there."""
    with worker("http://127.0.0.1:9") as process:
        said = process.locate(NAME, cache_dir=tmp_path)
    assert said.startswith(f"ModelFileError: {NAME} could not be fetched: [Errno 111]")
    assert "Check the network or HF_ENDPOINT (now http://127.0.0.1:9). The bundled" in said


def test_a_password_in_the_address_of_the_hub_is_not_shown(hub, tmp_path):
    """Neither in errors nor in warnings and logs; the host is."""
    hub.status = 403
    with worker(hub.url.replace("://", "://me:pAss@")) as process:
        refused = process.locate(NAME, cache_dir=tmp_path)
        told = f"{refused} {process.warnings} {process.logs}"
    with worker("http://me:pAss@127.0.0.1:9") as process:
        down = process.locate(NAME, cache_dir=tmp_path)
        told += f"{down} {process.warnings} {process.logs}"
    assert "Accept the terms at http://***@127.0.0.1" in refused
    assert "(now http://***@127.0.0.1:9)" in down
    assert "pAss" not in told


@pytest.mark.parametrize("etag", ['"{victim}"', '"../../../victim"', '"0123"', "", '"nul\x01"'])
def test_no_etag_leads_out_of_the_cache(process, hub, tmp_path, tiny_bert, etag):
    """A file goes under the digest that was listed; a mirror's headers name nothing."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    hub.etag = etag.format(victim=victim)
    found = Path(process.locate(NAME, cache_dir=tmp_path / "cache")["model"])
    assert found.read_bytes() == (tiny_bert / "onnx" / "model.onnx").read_bytes()
    assert victim.read_text() == "precious"
    assert all(len(blob.name) in {40, 64} for blob in (tmp_path / "cache").glob("*/blobs/*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "victim"]


@pytest.fixture
def victim():
    """A file of the user's, in a folder whose name is short enough for an error to show whole."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "victim")
        file.write_text("precious")
        yield file


def listed(**changes):
    """A listing in which the first file has other facts."""

    def change(info):
        first, *others = info["siblings"]
        return info | {"siblings": [first | changes, *others]}

    return change


@pytest.mark.parametrize(
    ("listing", "seen"),
    [
        (listed(blobId="{victim}", lfs=None), "siblings[0]: git is '{victim}'; expected 40 hex"),
        (listed(blobId=None, lfs={"sha256": "{victim}"}), "siblings[0]: sha256 is '{victim}'"),
        (listed(blobId="0" * 39, lfs=None), "expected 40 hex digits"),
        (listed(lfs={"sha256": "A" * 64}), "expected 64 hex digits"),
        (listed(lfs={"sha256": 7}), "siblings[0]: lfs: sha256 is 7; expected a string"),
        (listed(lfs=[]), "siblings[0]: lfs is []; expected an object"),
        (listed(size=-1), "siblings[0]: size is -1; expected bytes"),
        (listed(size="1"), "siblings[0]: size is '1'; expected a whole number"),
        (listed(rfilename="{victim}"), "a file is named '{victim}'; expected a path inside it"),
        (listed(rfilename="../../victim"), "a file is named '../../victim'"),
        (listed(rfilename="a\\..\\b"), "expected a path inside it"),
        (listed(rfilename=None), "siblings[0]: rfilename is None; expected a path"),
        (lambda info: info | {"sha": "../../victim"}, "sha is '../../victim'; expected 40 hex"),
        (lambda info: info | {"sha": None}, "sha is None; expected 40 hex digits"),
        (lambda info: info | {"siblings": {"a": 1}}, "siblings is {'a': 1}; expected a list"),
        (lambda info: info | {"siblings": [1]}, "siblings is [1]; expected a list of dict"),
        (lambda info: info | {"tags": "license:mit"}, "tags is 'license:mit'; expected a list"),
        (lambda _: [], "holds a list, expected a JSON object"),
        (lambda _: None, "holds a NoneType, expected a JSON object"),
        (lambda _: b"<html>", "could not be fetched: Expecting value"),
        (lambda _: b"[" * 100_000, "it is nested too deep"),
        (lambda _: b"\xff\xfe", "could not be fetched"),
    ],
)
def test_an_odd_listing_is_named_and_touches_nothing(process, hub, tmp_path, victim, listing, seen):
    """By its field; no digest and no name of a hub leads to a file outside of the cache."""

    def with_victim(info):
        content = listing(info)
        if isinstance(content, bytes):
            return content
        return json.loads(json.dumps(content).replace("{victim}", str(victim)))

    hub.listing = with_victim
    said = process.locate(NAME, cache_dir=tmp_path / "cache")
    assert said.startswith("ModelFileError: ")
    assert seen.replace("{victim}", str(victim)) in said
    assert victim.read_text() == "precious"
    assert not list((tmp_path / "cache").rglob("blobs/*"))
    assert hub.fetched() == []


def test_a_commit_of_a_branch_is_checked(process, hub, tmp_path):
    """A header that is none leaves the model at the commit that is known."""
    first = process.locate(NAME, cache_dir=tmp_path, revision="main")
    hub.headers["X-Repo-Commit"] = "../../.."
    assert process.locate(NAME, cache_dir=tmp_path, revision="main") == first
    assert "its commit is '../../..'" in process.logs[0]


def test_a_file_longer_than_published_is_not_read_to_its_end(process, hub, tmp_path):
    """It cannot be the file."""
    hub.altered["config.json"] = bytes(5_000_000)
    said = process.locate(NAME, cache_dir=tmp_path)
    assert said.startswith(f"DamagedFileError: config.json of {NAME} is damaged: it has ")
    assert not list(tmp_path.rglob("*.incomplete"))
