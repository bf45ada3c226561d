"""The versions of the packages that a result depends on."""

import platform
from importlib import metadata

__all__ = ["PACKAGES", "versions"]

PACKAGES = ("qdrant-rerank", "qdrant-client", "onnxruntime", "onnxruntime-gpu", "ir-measures")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
