"""SPLADE models by hub name, with the real huggingface_hub against a hub on loopback.

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
from tests.conftest import MODELS
from tests.hub_server import hub_of
from tests.integration.embedders.test_splade import asymmetric

LOAD = """
import json, sys
from qdrant_rerank.embedders import load_sparse
encoder = load_sparse(sys.argv[1])
query, [document] = encoder.embed_query("iron melts"), encoder.embed_documents(["iron melts"])
print(json.dumps([encoder.name, query.model_dump(), document.model_dump()]))
"""


def loaded(hub, home, name):
    """Name, query and document of an encoder that another process loads; or its last line."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD, name],
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
