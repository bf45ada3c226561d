"""Processes without a home directory, without a passwd entry, or without a place to write to."""

import json
import os
import subprocess
import sys

import pytest

from qdrant_rerank import TextCrossEncoder

SCORE = """
import json, os, resource, sys
name, largest_file = sys.argv[1], int(sys.argv[2])
if largest_file >= 0:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
try:
    encoder = TextCrossEncoder(name or DEFAULT_RERANKER)
    print(json.dumps(encoder.rerank("which bread rises?", ["bread rises", "the sea"])))
except Exception as error:
    print(json.dumps(f"{type(error).__name__}: {error}"))
"""


@pytest.fixture(scope="module")
def homeless():
    """Runs the code as a user without an entry in passwd; skipped where that is not allowed."""
    command = ["unshare", "--user", "--map-user=54321"]
    allowed = subprocess.run([*command, "true"], capture_output=True, check=False)
    if allowed.returncode:
        pytest.skip(f"no user namespaces: {allowed.stderr.decode().strip()}")

    def run(name="", largest_file=-1, **environment):
        kept = {key: value for key, value in os.environ.items() if key not in NOT_SET}
        done = subprocess.run(
            [*command, sys.executable, "-c", SCORE, str(name), str(largest_file)],
            env=kept | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return json.loads(done.stdout)

    return run


NOT_SET = {"HOME", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "QDRANT_RERANK_CACHE"}


@pytest.mark.parametrize("largest_file", [-1, 0])
@pytest.mark.parametrize("which", ["bundled", "directory"])
def test_local_models_need_no_home_and_no_place_to_write_to(
    homeless, bundled, tiny_bert, which, largest_file
):
    """As under systemd, or in an image without a passwd file or with a read-only disk."""
    model = bundled if which == "bundled" else TextCrossEncoder(tiny_bert)
    found = homeless("" if which == "bundled" else tiny_bert, largest_file)
    expected = model.rerank("which bread rises?", ["bread rises", "the sea"])
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_model_of_the_hub_says_what_it_needs(homeless, tmp_path):
    """A place to keep it, which can be named in three ways."""
    said = homeless("bge-reranker-base", HF_HUB_OFFLINE="1")
    assert said.startswith("InvalidInputError: There is no home directory to keep models in: HOME")
    assert "Pass cache_dir=, or set QDRANT_RERANK_CACHE or HOME." in said
    named = homeless("bge-reranker-base", HF_HUB_OFFLINE="1", QDRANT_RERANK_CACHE=str(tmp_path))
    assert f"is not in the cache {tmp_path}" in named


def test_a_path_below_a_home_that_is_not_there_is_named(homeless):
    """Not a bare RuntimeError."""
    said = homeless("~/model")
    assert said.startswith("InvalidInputError: The home directory in '~/model' is not known: HOME")
    said = homeless("bge-reranker-base", QDRANT_RERANK_CACHE="~/models")
    assert said.startswith("InvalidInputError: The home directory in '~/models' is not known")
