"""Arguments that the commands here share."""

from argparse import ArgumentTypeError
from pathlib import Path

__all__ = ["existing_path"]


def existing_path(text: str) -> Path:
    """Return the path of an argument; without such a file or folder the command ends."""
    path = Path(text)
    if not path.exists():
        raise ArgumentTypeError(f"no such file or folder: {text}")
    return path
