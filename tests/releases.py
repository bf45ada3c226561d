"""The release of qdrant-client that is installed, and what tests need of it."""

from importlib.metadata import version

import pytest

#: (major, minor) of the installed qdrant-client.
CLIENT = tuple(int(part) for part in version("qdrant-client").split(".")[:2])


def needs_client(major, minor):
    """Skip a test on a qdrant-client that lacks the models it is about."""
    return pytest.mark.skipif(
        (major, minor) > CLIENT, reason=f"qdrant-client {major}.{minor} has what is tested"
    )
