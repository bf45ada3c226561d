"""``qdrant-rerank models``, as a person types it, against a hub on loopback."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.hub.specs import BUNDLED_DIRECTORY
from tests.hub_server import hub_of
from tests.hub_worker import ENVIRONMENT

NAME = "Xenova/ms-marco-MiniLM-L-6-v2"
SHORT = "ms-marco-minilm-l-6-v2"


@pytest.fixture
def hub(tiny_bert):
    """Serves one model."""
    with hub_of({NAME: tiny_bert}) as running:
        yield running


@pytest.fixture
def command(hub, tmp_path):
    """Runs ``qdrant-rerank models ...``: exit code, stdout, stderr."""

    def run(*arguments, **environment):
        made = {"HF_ENDPOINT": hub.url, "QDRANT_RERANK_CACHE": str(tmp_path), **environment}
        done = subprocess.run(
            [sys.executable, "-m", "qdrant_rerank", "models", *arguments],
            env=os.environ | ENVIRONMENT | made,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_from_pull_to_rm(command, hub, tmp_path):
    """Each command in turn; a wrong byte is found by verify and fixed by pull --force."""
    code, _, err = command("path", SHORT)
    assert code == 2
    assert err == (
        f"Error: {NAME} is not complete in the cache. Fetch it: qdrant-rerank models pull {NAME}\n"
    )
    assert hub.requests == []

    code, out, err = command("pull", SHORT)
    assert (code, err) == (0, "")
    assert out.startswith(f"{NAME}: 5 files, 0.4 MB, checked. Licence: apache-2.0.\n{tmp_path}")

    hub.requests.clear()
    root = out.splitlines()[-1]
    assert command("path", SHORT) == (0, f"{root}\n", "")
    code, out, err = command("verify", SHORT, "--json")
    assert (code, err) == (0, "")
    checked = json.loads(out)
    assert checked["commit"] == hub.commit(NAME)
    assert {file["state"] for file in checked["files"]} == {"whole"}
    assert hub.requests == []

    (file,) = tmp_path.rglob("onnx/model.onnx")
    whole = file.read_bytes()
    file.resolve().write_bytes(whole[:200_000] + b"?" + whole[200_001:])
    code, out, err = command("verify", SHORT)
    assert code == 2
    assert "damaged" in out
    assert err.startswith(f"Error: {file} is damaged: its sha256 is ")
    assert err.endswith(f"Fetch it again: qdrant-rerank models pull {NAME} --force\n")
    assert hub.requests == []

    assert command("pull", SHORT, "--force")[0] == 0
    assert file.read_bytes() == whole
    assert command("verify", SHORT)[0] == 0

    assert command("rm", SHORT) == (0, f"Removed {NAME}, 0.4 MB.\n", "")
    assert not list(tmp_path.rglob("*.onnx"))
    code, _, err = command("rm", SHORT)
    assert code == 2
    assert err == f"Error: {NAME} is not in the cache {tmp_path}; nothing was removed.\n"


def test_update_moves_on(command, hub, tiny_xlmr):
    """To the newest commit of the default branch; a plain pull does not."""
    old = hub.commit(NAME)
    for arguments, commit in (
        ((), old),
        ((), old),
        (("--update",), "new"),
        ((), "new"),
    ):
        code, out, err = command("pull", NAME, "--json", *arguments)
        assert (code, err) == (0, "")
        assert json.loads(out)["commit"] == (old if commit == old else hub.commit(NAME))
        hub.repositories[NAME] = tiny_xlmr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pull", DEFAULT_RERANKER), "ships with the package, in"),
        (("verify", "."), ". is a path; expected the name of a model on the hub."),
        (("pull", "bge-reranker-bse"), "Did you mean BAAI/bge-reranker-base"),
        (("pull", SHORT, "--precision", "fp16"), f"{NAME} has no onnx/model_fp16.onnx; its ONNX"),
        (("pull", SHORT, "--precision", "q4f16"), "its precisions are auto, fp32, fp16, int8."),
        (("--json", "list"), "--json goes after the command: models list --json."),
    ],
)
def test_what_cannot_be_done_is_one_line(command, arguments, message):
    """On stderr, with exit code 2."""
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_path_of_what_needs_no_hub(command, tmp_path):
    """Bundled, and a directory."""
    assert command("path", DEFAULT_RERANKER)[1] == f"{BUNDLED_DIRECTORY / DEFAULT_RERANKER}\n"
    assert command("path", str(tmp_path))[1] == f"{tmp_path}\n"


@pytest.mark.parametrize("name", ["grown-e5-small-cross-v1", "grown-e5-small-l6-v1"])
def test_path_of_a_model_beside_another_is_its_own_file(command, name):
    """The folder's path would load the other."""
    printed = command("path", name)[1].strip()
    pair = ("Who bit the man?", ["The man bit the dog.", "The man was bitten by the dog."])
    assert TextCrossEncoder(printed).rerank(*pair) == TextCrossEncoder(name).rerank(*pair)


def test_the_table_fits_80_columns(command):
    """Names stay whole, so that they can be copied; a wider terminal has descriptions, too."""
    code, out, _ = command(COLUMNS="80")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    names = [entry["model"] for entry in json.loads(command("list", "--json")[1])]
    assert len(names) > 15
    assert [line.split()[0] for line in out.splitlines()[1:-3]] == names
    assert "cc-by-nc-4.0: not for commercial use" in out.splitlines()[-3]
    assert "English: static-minilm-l6-v1, e5-small-v2." in out.splitlines()[-2]
    assert "BM25 has 18 languages" in out.splitlines()[-1]
    assert "ModernBERT" in command("list", COLUMNS="120")[1]


def test_listing_models_loads_no_client_and_no_engine():
    """Only numpy is heavy: the command answers at once."""
    done = subprocess.run(
        [sys.executable, "-c", LISTS],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


LISTS = """
import sys
from qdrant_rerank.cli.main import main
try:
    main(["models", "--json"])
except SystemExit:
    pass
heavy = {"qdrant_client", "onnxruntime", "grpc", "fastembed", "huggingface_hub", "torch"}
print(sorted(heavy & set(sys.modules)))
"""


def test_export_says_what_it_needs_before_anything_is_made(command, tmp_path, tiny_bert):
    """A new directory, a model, and PyTorch, whose extra is named; in this order."""
    code, _, err = command("export", str(tiny_bert), str(tmp_path))
    assert (code, err) == (
        2,
        f"Error: {tmp_path} exists, and nothing is overwritten. Name a new directory.\n",
    )
    code, _, err = command("export", "no-such-model", str(tmp_path / "made"))
    assert code == 2
    assert "No directory 'no-such-model', and it is not a hub repository: 'owner/name'." in err
    code, _, err = command("export", str(tiny_bert / "config.json"), str(tmp_path / "made"))
    assert code == 2
    assert "config.json is a file; expected the directory of a model." in err
    if importlib.util.find_spec("torch") is None:
        code, _, err = command("export", str(tiny_bert), str(tmp_path / "made"))
        assert code == 2
        assert "Exporting a model needs torch, transformers: " in err
        assert 'pip install "qdrant-rerank[export]"' in err
    assert list(tmp_path.iterdir()) == []
