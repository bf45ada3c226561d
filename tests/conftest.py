"""Fixtures that several test modules share."""

import os
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from tests.models import variants

MODELS = Path(__file__).parent / "models"


@pytest.fixture(autouse=True)
def no_qdrant_in_the_environment(monkeypatch, request):
    """Tests choose their Qdrant themselves; only those marked ``server`` see the caller's."""
    if "server" not in request.keywords:
        for name in ("QDRANT_URL", "QDRANT_API_KEY", "QDRANT_PATH"):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture
def client():
    """The embedded engine, in memory."""
    made = QdrantClient(location=":memory:")
    yield made
    made.close()


@pytest.fixture(scope="session")
def bundled():
    """The bundled cross-encoder, loaded once."""
    return TextCrossEncoder(DEFAULT_RERANKER)


@pytest.fixture(scope="session")
def tiny_bert():
    """Directory of a random-weight BERT cross-encoder."""
    return MODELS / "tiny-bert"


@pytest.fixture(scope="session")
def tiny_xlmr():
    """Directory of a random-weight XLM-R cross-encoder."""
    return MODELS / "tiny-xlmr"


@pytest.fixture(scope="session")
def tiny_bert_embedder(tiny_bert, tmp_path_factory):
    """Directory of the BERT encoder without its head."""
    return variants.embedding(tiny_bert, tmp_path_factory.mktemp("models") / "embedder")


@pytest.fixture
def server_url():
    """A running Qdrant; skips where there is none."""
    url = os.environ.get("QDRANT_URL")
    if not url:
        pytest.skip("QDRANT_URL is not set; start a server with 'docker compose up -d'")
    return url
