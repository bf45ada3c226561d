"""Arguments that the commands here share."""

from argparse import ArgumentTypeError
from pathlib import Path

__all__ = ["destination", "existing_path"]


def existing_path(text: str) -> Path:
    """Return the path of an argument; without such a file or folder the command ends."""
    path = Path(text)
    if not path.exists():
        raise ArgumentTypeError(f"no such file or folder: {text}")
    return path


def destination(given: Path | None, record: Path, *, part: object) -> Path | None:
    """Return where figures go: those of a part never replace the record of a whole run.

    Args:
        given: ``--out``.
        record: of whole runs.
        part: true if an option leaves something out.

    Returns:
        None for nowhere.
    """
    return given or (None if part else record)
