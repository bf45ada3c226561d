"""Models in the cache: one commit, checked, without a request; the real huggingface_hub."""

import json
import os
import shutil

import onnx
import pytest

from qdrant_rerank import TextCrossEncoder
from tests.conftest import MODELS
from tests.hub_server import hub_of
from tests.hub_worker import worker

NAME = "Xenova/ms-marco-MiniLM-L-6-v2"
OWN = "someone/reranker"
WITH_DATA = "someone/large"
NC = "jinaai/jina-reranker-v2-base-multilingual"


@pytest.fixture(scope="module")
def large(tiny_bert, tmp_path_factory):
    """A model whose weights lie beside the ONNX file."""
    target = shutil.copytree(tiny_bert, tmp_path_factory.mktemp("large") / "model")
    file = target / "onnx" / "model.onnx"
    onnx.save(
        onnx.load(file),
        file,
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=64,
    )
    assert (target / "onnx" / "model.onnx_data").is_file()
    return target


@pytest.fixture(scope="module")
def serving(tiny_bert, large):
    """One hub for all tests here."""
    with hub_of({NAME: tiny_bert, OWN: tiny_bert, WITH_DATA: large, NC: tiny_bert}) as running:
        yield running


@pytest.fixture
def hub(serving, tiny_bert):
    """The hub, without faults."""
    serving.repair()
    serving.repositories[NAME] = tiny_bert
    return serving


@pytest.fixture(scope="module")
def online(serving):
    """A process that may ask the hub."""
    with worker(serving) as process:
        yield process


@pytest.fixture(scope="module")
def offline(serving):
    """A process in which any connection fails, with HF_HUB_OFFLINE."""
    with worker(serving, HF_HUB_OFFLINE="1", TEST_NO_NETWORK="1") as process:
        yield process


@pytest.fixture(scope="module")
def expected(tiny_bert):
    """The scores of the files that the hub serves."""
    return TextCrossEncoder(tiny_bert).rerank("which bread rises?", ["bread rises", "the sea"])


def in_cache(cache, name, file="onnx/model.onnx"):
    """The one snapshot's file."""
    (found,) = (cache / f"models--{name.replace('/', '--')}" / "snapshots").glob(f"*/{file}")
    return found


def by_another_tool(process, cache):
    """Fetch the model, and leave of it what another tool would; its folder."""
    process.locate(NAME, cache_dir=cache)
    folder = cache / f"models--{NAME.replace('/', '--')}"
    shutil.rmtree(folder / "qdrant-rerank")
    (folder / "refs" / "qdrant-rerank").rename(folder / "refs" / "main")
    return folder


def test_a_warm_cache_makes_no_request(online, hub, tmp_path):
    """One listing, then one GET per file; after that nothing, in milliseconds."""
    first = online.locate(NAME, cache_dir=tmp_path)
    assert hub.requests[0] == f"GET /api/models/{NAME}"
    assert len(hub.requests) == 1 + 5
    hub.requests.clear()
    assert online.locate(NAME, cache_dir=tmp_path) == first
    assert hub.requests == []
    assert online.seconds < 0.5  # milliseconds, when the machine is not busy


def test_offline_makes_no_request(online, offline, hub, tmp_path, expected):
    """Whatever a complete cache is asked for; every connection of that process would fail."""
    for name in (NAME, WITH_DATA):
        online.locate(name, cache_dir=tmp_path)
    hub.requests.clear()
    for name in (NAME, WITH_DATA):
        assert offline.score(name, cache_dir=tmp_path) == pytest.approx(expected, abs=1e-6)
    absent = offline.locate(OWN, cache_dir=tmp_path)
    assert absent.startswith(f"ModelFileError: {OWN} is not in the cache {tmp_path}, and ")
    assert "HF_HUB_OFFLINE forbids fetching it. Run once with a network:" in absent
    assert absent.endswith(f"qdrant-rerank models pull {OWN} --cache-dir {tmp_path}")
    in_cache(tmp_path, NAME, "config.json").unlink()
    incomplete = offline.locate(NAME, cache_dir=tmp_path)
    assert "config.json of commit" in incomplete
    assert "is missing, and HF_HUB_OFFLINE forbids fetching it." in incomplete
    assert hub.requests == []


def test_local_files_only_makes_no_request(hub, serving, online, tmp_path):
    """The argument does what the variable does."""
    online.locate(NAME, cache_dir=tmp_path)
    hub.requests.clear()
    with worker(serving, TEST_NO_NETWORK="1") as process:
        found = process.locate(NAME, cache_dir=tmp_path, local_files_only=True)
        assert found["model"].endswith("onnx/model.onnx")
        absent = process.locate(OWN, cache_dir=tmp_path, local_files_only=True)
        assert "and local_files_only forbids fetching it. Run once with a network:" in absent
        # And the guard of these tests does catch a request.
        with pytest.raises(AssertionError, match="the process ended"):
            process.locate(OWN, cache_dir=tmp_path)
    assert hub.requests == []


def test_a_name_stays_at_the_commit_first_fetched(online, hub, tmp_path, tiny_xlmr):
    """The default branch moves on; the model does not, until it is told to."""
    first = online.locate(NAME, cache_dir=tmp_path)
    old = hub.commit(NAME)
    hub.repositories[NAME] = tiny_xlmr
    new = hub.commit(NAME)
    hub.requests.clear()
    assert online.locate(NAME, cache_dir=tmp_path) == first
    assert hub.requests == []
    assert new in online.locate(NAME, cache_dir=tmp_path, revision=new)["model"]
    assert old in online.locate(NAME, cache_dir=tmp_path)["model"]


def test_a_branch_is_asked_for_with_one_head(online, hub, tmp_path, tiny_xlmr):
    """And where the hub is down, the last commit known serves."""
    first = online.locate(NAME, cache_dir=tmp_path, revision="main")
    hub.requests.clear()
    assert online.locate(NAME, cache_dir=tmp_path, revision="main") == first
    assert hub.requests == [f"HEAD /{NAME}/resolve/main/onnx/model.onnx"]
    hub.status = 503
    assert online.locate(NAME, cache_dir=tmp_path, revision="main") == first
    hub.status = 200
    hub.repositories[NAME] = tiny_xlmr
    assert hub.commit(NAME) in online.locate(NAME, cache_dir=tmp_path, revision="main")["model"]


def test_a_revision_that_is_not_there_is_named(online, tmp_path):
    """With the page where they are listed."""
    said = online.locate(NAME, cache_dir=tmp_path, revision="v9")
    assert said.startswith("ModelFileError")
    assert "404: no such revision at http" in said


@pytest.mark.parametrize("file", ["onnx/model.onnx", "config.json"])
def test_a_wrong_byte_is_found_and_fetched_again(online, offline, hub, tmp_path, file):
    """The size is the same; the error has both digests, and the command it names fixes it."""
    online.locate(NAME, cache_dir=tmp_path)
    path = in_cache(tmp_path, NAME, file)
    blob = path.resolve()
    content = bytearray(blob.read_bytes())
    content[100] ^= 1
    blob.write_bytes(content)
    for process in (online, offline):
        said = process.locate(NAME, cache_dir=tmp_path)
        assert said.startswith(f"DamagedFileError: {path} is damaged: its ")
        assert blob.name in said
        assert said.endswith(
            f"was published. Fetch it again: qdrant-rerank models pull {NAME} --cache-dir "
            f"{tmp_path} --force"
        )
    content.append(0)
    blob.write_bytes(content)
    assert f"it has {len(content):,} bytes, and" in online.locate(NAME, cache_dir=tmp_path)


def test_bytes_altered_on_the_way_are_not_kept(online, hub, tmp_path, tiny_bert, expected):
    """A mirror that serves something else of the right size."""
    content = bytearray((tiny_bert / "onnx" / "model.onnx").read_bytes())
    content[-1] ^= 1
    hub.altered["model.onnx"] = bytes(content)
    said = online.locate(NAME, cache_dir=tmp_path)
    assert said.startswith("DamagedFileError")
    assert "and was removed: a proxy or mirror may alter files. Fetch it again: qdrant" in said
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size == len(content)]
    hub.altered.clear()
    assert online.score(NAME, cache_dir=tmp_path) == pytest.approx(expected, abs=1e-6)


def test_what_is_whole_is_read_once(online, hub, tmp_path):
    """Which files were found whole is kept beside them; a file that was touched is read again."""
    online.locate(NAME, cache_dir=tmp_path)
    (kept,) = tmp_path.glob("models--*/qdrant-rerank/verified.json")
    known = json.loads(kept.read_text())
    assert len(known) == 5
    before = kept.stat().st_mtime_ns
    online.locate(NAME, cache_dir=tmp_path)
    assert kept.stat().st_mtime_ns == before
    os.utime(in_cache(tmp_path, NAME).resolve(), (1, 1))
    online.locate(NAME, cache_dir=tmp_path)
    assert kept.stat().st_mtime_ns != before
    kept.write_text("[")
    assert "model" in online.locate(NAME, cache_dir=tmp_path)


def test_what_another_tool_fetched_is_used_and_checked(offline, online, hub, tmp_path):
    """Without our notes the blobs' names tell the digests; the hub is asked if much is missing."""
    folder = by_another_tool(online, tmp_path)
    hub.requests.clear()
    for process in (offline, online):
        assert "model" in process.locate(NAME, cache_dir=tmp_path)
    assert hub.requests == []
    in_cache(tmp_path, NAME, "tokenizer_config.json").unlink()
    for _ in range(2):
        assert "model" in online.locate(NAME, cache_dir=tmp_path)
    assert in_cache(tmp_path, NAME, "tokenizer_config.json").is_file()
    asked_what_else_there_is = f"GET /api/models/{NAME}/revision/{hub.commit(NAME)}"
    assert hub.requests == [asked_what_else_there_is]  # its file is still among the blobs
    shutil.rmtree(folder / "qdrant-rerank")
    blob = in_cache(tmp_path, NAME).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    assert offline.locate(NAME, cache_dir=tmp_path).startswith("DamagedFileError")


@pytest.mark.parametrize("revision", [None, "main", "commit"])
@pytest.mark.parametrize("outage", ["http://127.0.0.1:9", 403, 503, b"<html>sign in</html>"])
def test_a_complete_copy_is_used_when_the_hub_is_not_reached(
    online, hub, tmp_path, expected, outage, revision
):
    """Nothing listens, a firewall or the hub refuses, a portal answers: one warning in all."""
    by_another_tool(online, tmp_path)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        in_cache(tmp_path, NAME, name).unlink()  # a copy that works, but may lack something
    revision = hub.commit(NAME) if revision == "commit" else revision
    if isinstance(outage, int):
        hub.status = outage
    elif isinstance(outage, bytes):
        hub.listing = lambda _: outage
    url = outage if isinstance(outage, str) else hub.url
    with worker(url) as process:
        found = process.score(NAME, cache_dir=tmp_path, revision=revision)
        assert found == pytest.approx(expected, abs=1e-6)
        [warning] = process.logs
        assert warning.endswith(f"The copy in the cache is used: commit {hub.commit(NAME)}.")
        assert process.score(NAME, cache_dir=tmp_path, revision=revision) == found
        assert process.logs == []


def test_a_copy_that_is_not_complete_is_no_substitute(online, hub, tmp_path):
    """The error is that of the hub."""
    by_another_tool(online, tmp_path)
    in_cache(tmp_path, NAME, "tokenizer.json").unlink()
    hub.status = 503
    assert "the hub answered 503" in online.locate(NAME, cache_dir=tmp_path)


def test_external_data_comes_along(online, hub, tmp_path, expected):
    """Nothing lists it but the ONNX file; the shared blobs of newer caches load as well."""
    assert online.score(WITH_DATA, cache_dir=tmp_path) == pytest.approx(expected, abs=1e-6)
    assert "model.onnx_data" in hub.fetched()
    for number, file in enumerate(("model.onnx", "model.onnx_data")):
        blob = in_cache(tmp_path, WITH_DATA, f"onnx/{file}").resolve()
        shared = tmp_path / "blobs" / f"0{number}" / blob.name
        shared.parent.mkdir(parents=True)
        blob.rename(shared)
        blob.symlink_to(shared)
    shutil.rmtree(tmp_path / f"models--{WITH_DATA.replace('/', '--')}" / "qdrant-rerank")
    assert online.score(WITH_DATA, cache_dir=tmp_path) == pytest.approx(expected, abs=1e-6)


def test_a_model_in_fastembeds_cache_is_found(online, hub, tmp_path, expected):
    """Offline, unless the model is in our own cache or another one is named."""
    fastembeds = tmp_path / "fastembed"
    by_another_tool(online, fastembeds)
    hub.requests.clear()
    home = {"FASTEMBED_CACHE_PATH": str(fastembeds), "HF_HOME": str(tmp_path / "home")}
    with worker(hub, HF_HUB_OFFLINE="1", **home) as process:
        assert process.score(NAME) == pytest.approx(expected, abs=1e-6)
        assert f"{OWN} is not in the cache {tmp_path / 'home' / 'hub'}" in process.locate(OWN)
        assert "is not in the cache" in process.locate(NAME, cache_dir=tmp_path / "other")
    with worker(hub, **home) as process:
        assert str(fastembeds) in process.locate(NAME)["model"]
        assert str(tmp_path / "home") in process.locate(OWN)["model"]
    assert not any(NAME in request for request in hub.requests)


@pytest.mark.parametrize(
    ("name", "repository", "directory"),
    [
        ("bge-reranker-base", "BAAI/bge-reranker-base", "tiny-xlmr"),
        ("mxbai-rerank-xsmall-v1", "mixedbread-ai/mxbai-rerank-xsmall-v1", "tiny-deberta"),
        (
            "gte-reranker-modernbert-base",
            "Alibaba-NLP/gte-reranker-modernbert-base",
            "tiny-modernbert",
        ),
        ("Qwen3-Reranker-0.6B", "n24q02m/Qwen3-Reranker-0.6B-ONNX", "tiny-qwen3"),
    ],
)
def test_every_architecture_by_its_name(online, hub, tmp_path, name, repository, directory):
    """The scores are those of the directory that the hub serves.

    The language model is registered as int8, under another of the names that exporters use.
    """
    local = MODELS / directory
    served = local
    if name.startswith("Qwen3"):
        served = shutil.copytree(local, tmp_path / "served")
        (served / "onnx" / "model.onnx").rename(served / "onnx" / "model_int8.onnx")
    hub.repositories[repository] = served
    documents = ["bread rises", "the sea"]
    expected = TextCrossEncoder(local).rerank("which bread rises?", documents)
    found = online.score(name, cache_dir=tmp_path / "cache")
    assert found == pytest.approx(expected, abs=1e-6)


def test_any_repository_with_an_onnx_file_works(online, hub, tmp_path, tiny_bert, expected):
    """By the usual names of the precision; what there is instead is listed."""
    assert online.score(OWN, cache_dir=tmp_path) == pytest.approx(expected, abs=1e-6)
    hub.requests.clear()
    assert "model" in online.locate(OWN, cache_dir=tmp_path)
    assert hub.requests == []
    said = online.locate(OWN, cache_dir=tmp_path, precision="q4f16")
    assert "has no ONNX file of precision q4f16; its ONNX files: onnx/model.onnx." in said
    without = shutil.copytree(tiny_bert, tmp_path / "copy")
    (without / "onnx" / "model.onnx").rename(without / "pytorch_model.bin")
    hub.repositories["someone/torch"] = without
    said = online.locate("someone/torch", cache_dir=tmp_path)
    assert "its ONNX files: none. Its weights are for PyTorch. Export them to ONNX," in said
    assert "qdrant-rerank models export someone/torch NEW_DIRECTORY" in said
    assert "pytorch_model.bin" not in hub.fetched()


def test_a_repository_that_is_not_there_lists_the_nearest_names(online, tmp_path):
    """It may have been meant as one of these, or as a path."""
    said = online.locate("BAAI/bge-reranker-bse", cache_dir=tmp_path)
    assert said.startswith("UnknownModelError: No model named 'BAAI/bge-reranker-bse', and no such")
    assert "404: no such repository" in said
    assert "Did you mean BAAI/bge-reranker-base" in said


def test_a_slip_in_a_name_is_told_without_a_hub(offline, tmp_path):
    """As an unknown name, which is a ValueError; another name may be right."""
    said = offline.locate("Xenova/ms-marco-MiniLM-L-6-v3", cache_dir=tmp_path)
    assert said.startswith("UnknownModelError: No model named 'Xenova/ms-marco-MiniLM-L-6-v3'")
    assert "HF_HUB_OFFLINE forbids" in said
    assert "Did you mean Xenova/ms-marco-MiniLM-L-6-v2" in said
    assert offline.locate("me/own-reranker", cache_dir=tmp_path).startswith("ModelFileError: ")
    with worker("http://127.0.0.1:9") as process:
        said = process.locate("BAAI/bge-reranker-basse", cache_dir=tmp_path)
    assert said.startswith("UnknownModelError: ")


def test_a_licence_against_commercial_use_warns_once(online, hub, tmp_path):
    """Registered, or as the hub tells it."""
    hub.licenses[OWN] = "cc-by-nc-sa-4.0"
    for name, license in ((NC, "cc-by-nc-4.0"), (OWN, "cc-by-nc-sa-4.0")):
        online.locate(name, cache_dir=tmp_path)
        assert online.warnings == [
            f"LicenseWarning: The licence of {name}, {license}, forbids commercial use."
        ]
        online.locate(name, cache_dir=tmp_path)
        assert online.warnings == []


def test_the_token_is_sent(serving, hub, tmp_path):
    """HF_TOKEN, for gated repositories."""
    with worker(serving, HF_TOKEN="hf_secret") as process:
        process.locate(NAME, cache_dir=tmp_path)
    assert set(hub.tokens) == {"Bearer hf_secret"}
