"""Numbers that JSON cannot hold, and that Qdrant takes for none: NaN and infinity."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel

__all__ = ["not_finite"]

NUMBER = int | float | np.number


def not_finite(value: Any) -> str | None:
    """Return where the first number is that is not finite, such as "must.range.lt"; else None.

    Args:
        value: a model of qdrant-client's, a container or a number; numbers of vectors are float32,
            so 1e39 is infinity.

    Returns:
        The names on the way to it; "" if there are none.
    """
    inner: Iterable[tuple[str, Any]]
    if isinstance(value, float | np.floating):
        return None if math.isfinite(value) else ""
    if isinstance(value, BaseModel):
        inner = value.__dict__.items()
    elif isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, np.ndarray) or (
        isinstance(value, list | tuple) and value and isinstance(value[0], NUMBER)
    ):
        return None if _all_finite(value) else ""
    elif isinstance(value, list | tuple | set):
        inner = (("", one) for one in value)
    else:
        return None
    for name, one in inner:
        place = not_finite(one)
        if place is not None:
            return f"{name}.{place}".strip(".")
    return None


def _all_finite(numbers: Any) -> bool:
    try:
        with np.errstate(over="ignore"):
            return bool(np.isfinite(np.asarray(numbers, dtype=np.float32)).all())
    except (TypeError, ValueError, OverflowError):  # with something else among them
        return all(not_finite(one) is None for one in numbers)
