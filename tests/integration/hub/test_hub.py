"""Models by hub name, with the real huggingface_hub against a hub on loopback.

``HF_ENDPOINT`` is read when huggingface_hub is imported, so each load is a process of its own.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
from fastembed.rerank.cross_encoder import TextCrossEncoder as Fastembed

from qdrant_rerank import OnnxEmbedder, TextCrossEncoder
from tests.hub_server import hub_of

NAME = "Xenova/ms-marco-MiniLM-L-6-v2"
FASTEMBEDS = Fastembed.list_supported_models()
LOAD = """
import json, sys
from qdrant_rerank import ModelSource, TextCrossEncoder
name, options = sys.argv[1], json.loads(sys.argv[2])
if name.startswith("me/"):
    TextCrossEncoder.add_custom_model(name, ModelSource(hf="me/repository"))
encoder = TextCrossEncoder(name, **options)
print(json.dumps(encoder.rerank("which bread rises?", ["bread rises", "the sea"])))
"""
SPAWNED = """
import json, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from qdrant_rerank import ModelFile, ModelSource, ModelSpec, TextCrossEncoder
spec = ModelSpec(sys.argv[1], ModelSource(hf="me/repository"), files=(ModelFile(),))
TextCrossEncoder.add_custom_model(spec)
encoder = TextCrossEncoder(sys.argv[1], lazy_load=True)
with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
    arguments = ("which bread rises?", ["bread rises", "the sea"])
    print(json.dumps(pool.submit(encoder.rerank, *arguments).result()))
"""
PINNED = """
import sys
from qdrant_rerank import ModelFile, ModelSource, ModelSpec, TextCrossEncoder
from qdrant_rerank.errors import ModelFileError
commit, digest = sys.argv[1].split()
for name, revision, sha256 in (("right", commit, digest), ("other", commit, "0" * 64)):
    source = ModelSource(hf="me/repository", revision=revision)
    spec = ModelSpec(name, source, files=(ModelFile(sha256=sha256),))
    TextCrossEncoder.add_custom_model(spec)
TextCrossEncoder("right")
TextCrossEncoder("other")
"""
AS_FASTEMBED = """
import json, sys
from fastembed.rerank.cross_encoder import TextCrossEncoder as Fastembed
from qdrant_rerank import TextCrossEncoder
query, documents = "which bread rises?", ["bread rises", "the sea", "iron melts"] * 40
found = {}
for entry in Fastembed.list_supported_models():
    model = TextCrossEncoder(model_name=entry["model"], lazy_load=sys.argv[1] == "lazy", cuda=False)
    scores = list(model.rerank(query, documents, batch_size=10))
    pairs = [(query, document) for document in documents]
    for parallel in (None, 0, 2):
        assert list(model.rerank_pairs(pairs, batch_size=7, parallel=parallel)) == scores
    assert 0 < model.token_count(pairs[:2]) < model.token_count(pairs)
    found[entry["model"]] = scores[:3]
print(json.dumps(found))
"""
EMBED = """
import json, sys
from qdrant_rerank import OnnxEmbedder
print(json.dumps(OnnxEmbedder(sys.argv[1]).embed_query("bread").tolist()))
"""


@pytest.fixture
def hub(tiny_bert, tiny_bert_embedder):
    """Serves the tiny models under three names."""
    repositories = {
        NAME: tiny_bert,
        "me/repository": tiny_bert,
        "sentence-transformers/all-MiniLM-L6-v2": tiny_bert_embedder,
    }
    with hub_of(repositories) as running:
        yield running


@pytest.fixture
def load(hub, tmp_path):
    """Loads a model and scores two documents, in a process of its own."""

    def run(name, code=LOAD, env=None, **options):
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_ETAG_TIMEOUT": "2",
        }
        done = subprocess.run(
            [sys.executable, "-c", code, name, json.dumps(options)],
            env=environment | (env or {}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return json.loads(done.stdout) if done.returncode == 0 else done.stderr.splitlines()[-1]

    return run


@pytest.fixture(scope="module")
def expected(tiny_bert):
    """The scores of the files that the hub serves."""
    return TextCrossEncoder(tiny_bert).rerank("which bread rises?", ["bread rises", "the sea"])


@pytest.mark.parametrize("name", [NAME, "ms-marco-minilm-l-6-v2", "me/model"])
def test_a_name_in_the_right_scores_out(load, hub, expected, name):
    """Registered, in any case, or custom; only the files that are needed come."""
    assert load(name) == pytest.approx(expected, abs=1e-6)
    fetched = {r.rpartition("/")[2] for r in hub.requests if r.startswith("GET") and "resolve" in r}
    assert fetched == {
        "model.onnx",
        "tokenizer.json",
        "config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }


def test_a_custom_model_works_in_a_spawned_process(load, hub, expected):
    """The encoder carries what it needs; the registry there does not know the name."""
    assert load("me/spec", code=SPAWNED) == pytest.approx(expected, abs=1e-6)


def test_a_spec_pins_its_commit_and_digest(load, hub, tiny_bert, tiny_xlmr):
    """Whatever the default branch shows by then; another digest is an error with both."""
    commit = hub.commit("me/repository")
    hub.repositories["me/repository"] = tiny_xlmr
    digest = hashlib.sha256((tiny_bert / "onnx" / "model.onnx").read_bytes()).hexdigest()
    said = load(f"{commit} {digest}", code=PINNED)
    assert said.startswith("qdrant_rerank.errors.DamagedFileError")
    assert f"its sha256 is {digest}, and {'0' * 64} was published." in said
    assert hub.requests[0] == f"GET /api/models/me/repository/revision/{commit}"


@pytest.mark.parametrize("loading", ["lazy", "at once"])
def test_what_fastembed_is_asked_for_works_for_each_of_its_models(
    load, hub, tmp_path, tiny_xlmr, loading
):
    """By name, lazily or not: scores of a list, of pairs in parallel, and counts of tokens."""
    repositories = {entry["model"]: entry["sources"]["hf"] for entry in FASTEMBEDS}
    served = shutil.copytree(tiny_xlmr, tmp_path / "served")
    shutil.copy(served / "onnx" / "model.onnx", served / "onnx" / "model_int8.onnx")
    (served / "onnx" / "model.onnx_data").write_bytes(b"listed, and read by nothing here")
    hub.repositories.update(dict.fromkeys(repositories.values(), served))
    found = load(loading, code=AS_FASTEMBED)
    documents = ["bread rises", "the sea", "iron melts"]
    expected = TextCrossEncoder(tiny_xlmr).rerank("which bread rises?", documents)
    assert set(found) == set(repositories)
    for name in found:
        assert found[name] == pytest.approx(expected, abs=1e-6), name


def test_a_cached_model_needs_no_hub(load, hub, expected, tmp_path):
    """With local_files_only no request is made; QDRANT_RERANK_CACHE says where files are."""
    cache = {"QDRANT_RERANK_CACHE": str(tmp_path / "cache")}
    assert load(NAME, env=cache) == pytest.approx(expected, abs=1e-6)
    assert list((tmp_path / "cache").rglob("model.onnx"))
    hub.requests.clear()
    assert load(NAME, env=cache, local_files_only=True) == pytest.approx(expected, abs=1e-6)
    assert hub.requests == []
    elsewhere = load(NAME, cache_dir=str(tmp_path / "none"), local_files_only=True)
    assert "ModelFileError" in elsewhere
    assert "local_files_only forbids" in elsewhere


def test_precisions_that_are_not_published_are_named(load):
    """The file is missing in the repository; of fp16, which is made, the hub is asked first."""
    assert "has no q4f16 file; its precisions are" in load("me/repository", precision="q4f16")
    converted, expected = load(NAME, precision="fp16"), load(NAME)
    assert converted == pytest.approx(expected, abs=2e-2) != pytest.approx(expected, abs=1e-6)


def test_an_embedder_by_hub_name(load, tiny_bert_embedder):
    """all-MiniLM-L6-v2 is one argument away."""
    vector = load("all-MiniLM-L6-v2", code=EMBED)
    assert vector == pytest.approx(OnnxEmbedder(tiny_bert_embedder).embed_query("bread"), abs=1e-6)
