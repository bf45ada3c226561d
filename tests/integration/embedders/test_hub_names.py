"""SPLADE and model2vec models by hub name, with the real huggingface_hub against a hub on loopback.

``HF_ENDPOINT`` is read when huggingface_hub is imported, so each load is a process of its own.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from qdrant_rerank import SpladeEncoder
from qdrant_rerank.embedders.model2vec import Model2VecEmbedder
from tests.conftest import MODELS
from tests.hub_server import hub_of
from tests.integration.embedders.test_splade import asymmetric
from tests.unit.embedders.test_model2vec import VECTORS, saved

LOAD_DENSE = """
import json, sys
from qdrant_rerank.embedders import load_embedder
encoder = load_embedder(sys.argv[1])
vector = encoder.embed_query("iron melts").tolist()
print(json.dumps([type(encoder).__name__, encoder.name, vector]))
"""
LOAD = """
import json, sys
from qdrant_rerank.embedders import load_sparse
encoder = load_sparse(sys.argv[1])
query, [document] = encoder.embed_query("iron melts"), encoder.embed_documents(["iron melts"])
print(json.dumps([encoder.name, query.model_dump(), document.model_dump()]))
"""


def loaded(hub, home, name, script=LOAD, **more):
    """Name, query and document of an encoder that another process loads; or its last line."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-c", script, name],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr.splitlines()[-1]


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_a_hub_name_is_a_sparse_argument(tmp_path, kind):
    """Its configuration and the table of an asymmetric model are fetched, and kept."""
    folder = shutil.copytree(MODELS / "tiny-splade", tmp_path / "model")
    (folder / "1_SpladePooling" / "config.json").write_text(
        json.dumps({"pooling_strategy": "max", "activation_function": "log1p_relu"})
    )
    if kind == "asymmetric":
        asymmetric(folder, np.linspace(0, 2, 2000, dtype=np.float32))
    local = SpladeEncoder(folder)
    with hub_of({"acme/splade": folder}) as hub:
        name, query, document = loaded(hub, tmp_path / "home", "acme/splade")
        asked = len(hub.requests)
        assert loaded(hub, tmp_path / "home", "acme/splade") == [name, query, document]
        assert len(hub.requests) == asked
    assert name == "acme/splade"
    [own] = local.embed_documents(["iron melts"])
    for made, expected in ((query, local.embed_query("iron melts")), (document, own)):
        assert made["indices"] == expected.indices
        np.testing.assert_allclose(made["values"], expected.values, atol=1e-5)


def test_a_repository_without_onnx_says_how_to_export(tmp_path):
    """With the task whose output are logits."""
    folder = shutil.copytree(MODELS / "tiny-splade", tmp_path / "model")
    shutil.rmtree(folder / "onnx")
    (folder / "model.safetensors").write_bytes(b"weights")
    with hub_of({"acme/splade": folder}) as hub:
        said = loaded(hub, tmp_path / "home", "acme/splade")
    assert "--task fill-mask --model acme/splade" in said


@pytest.fixture
def potion(tmp_path):
    """A model2vec model as minishlab publishes them, with an ONNX file for browsers beside."""
    (tmp_path / "potion" / "onnx").mkdir(parents=True)
    (tmp_path / "potion" / "onnx" / "model.onnx").write_bytes(b"takes offsets")
    (tmp_path / "potion" / "modules.json").write_text("[]")
    return saved(tmp_path / "potion", config={"normalize": True}, embeddings=VECTORS)


def test_a_static_model_is_an_embedder_argument(tmp_path, potion):
    """Its own files are fetched, not the ONNX file; after that, nothing is asked."""
    expected = Model2VecEmbedder.from_directory(potion).embed_query("iron melts")
    name, home = "minishlab/potion-tiny", tmp_path / "home"
    with hub_of({name: potion}) as hub:
        kind, named, vector = loaded(hub, home, name, LOAD_DENSE)
        fetched = sorted(hub.fetched())
        asked = len(hub.requests)
        assert loaded(hub, home, name, LOAD_DENSE, HF_HUB_OFFLINE="1") == [kind, named, vector]
        assert len(hub.requests) == asked
    assert (kind, named) == ("Model2VecEmbedder", name)
    assert fetched == ["config.json", "model.safetensors", "modules.json", "tokenizer.json"]
    np.testing.assert_allclose(vector, expected, atol=1e-6)


def test_a_static_model_that_comes_damaged_is_not_used(tmp_path, potion):
    """The digest that the hub publishes tells; nothing else is loaded instead."""
    with hub_of({"minishlab/potion-tiny": potion}) as hub:
        hub.altered["model.safetensors"] = b"x" * (potion / "model.safetensors").stat().st_size
        said = loaded(hub, tmp_path / "home", "minishlab/potion-tiny", LOAD_DENSE)
    assert "DamagedFileError" in said
    assert "model.safetensors" in said


def test_of_another_model_nothing_large_is_fetched_twice(tmp_path, tiny_bert_embedder):
    """An ONNX embedder loads as before, without its weights for PyTorch."""
    folder = shutil.copytree(tiny_bert_embedder, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"weights")
    with hub_of({"acme/embedder": folder}) as hub:
        kind, named, _ = loaded(hub, tmp_path / "home", "acme/embedder", LOAD_DENSE)
        fetched = hub.fetched()
    assert (kind, named) == ("OnnxEmbedder", "acme/embedder")
    assert "model.safetensors" not in fetched
    assert len(fetched) == len(set(fetched))
