"""Names of models that a collection records: the same for the same model in every process."""

from functools import partial
from pathlib import Path
from typing import Any

__all__ = ["model_name", "short_name"]


def model_name(value: Any, *attributes: str) -> str:
    """Return the first of an object's attributes that names its model, else a name of its own.

    Args:
        value: the object; of a function, its own name is used, and of any other object its class's.
        attributes: names of attributes to look at, in order.

    >>> model_name(len), model_name(Path("."), "name")
    ('len', 'PosixPath')
    """
    for attribute in attributes:
        found = getattr(value, attribute, None)
        if isinstance(found, str) and found.strip() and found != "unknown":  # LlamaIndex's default
            return short_name(found)
    while isinstance(value, partial):
        value = value.func
    own = getattr(value, "__name__", None)
    return own if isinstance(own, str) else type(value).__name__


def short_name(name: str) -> str:
    """Return a repository's name as it is, and of a directory only its own name.

    The same directory lies elsewhere on another machine.

    >>> short_name("sentence-transformers/all-MiniLM-L6-v2"), short_name("/srv/models/minilm/")
    ('sentence-transformers/all-MiniLM-L6-v2', 'minilm')
    """
    path = Path(name)
    is_path = path.is_absolute() or name.startswith(("./", "../", "~")) or path.exists()
    return path.resolve().name if is_path else name
