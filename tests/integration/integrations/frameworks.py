"""What the tests of the frameworks share: texts, an embedder, and a skip where one is missing."""

import os
import warnings
from contextlib import contextmanager
from uuid import uuid4

import pytest
from qdrant_client import QdrantClient

from qdrant_rerank.embedders import load_embedder
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # it would ask another machine

QUERY = "How hot must it be for iron to melt?"
PANS = "Cast iron pans must be hot before the oil goes in."
IRON = "Iron melts at 1538 degrees Celsius."
BREAD = "Bread is baked in a hot oven."
TEXTS = [PANS, IRON, BREAD]
UUID_TEXT = "10a16983-0c97-4840-becb-1a8583eb564b"


def needed(name):
    """A package, or a skip that says how to run the tests of the module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reason = f"{name} is not installed: make frameworks"
        return pytest.importorskip(name, reason=reason, exc_type=ModuleNotFoundError)


@contextmanager
def collection_name():
    """A name of a collection of a server, which is removed afterwards."""
    name = f"frameworks-{uuid4().hex}"
    yield name
    client = QdrantClient(os.environ["QDRANT_URL"], api_key=os.environ.get("QDRANT_API_KEY"))
    client.delete_collection(name)
    client.close()


def embed(texts):
    """The bundled embedder's vectors, as lists."""
    return load_embedder(DEFAULT_EMBEDDER).embed_documents(list(texts)).tolist()
