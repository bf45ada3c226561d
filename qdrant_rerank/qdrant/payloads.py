"""Payloads as Qdrant stores them: what has one meaning in JSON is converted, the rest refused.

No I/O. A value that fails when its batch is written would lose the whole batch, and the error of
the serialiser names neither the document nor the field.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import numpy as np
from pydantic_core import PydanticSerializationError, to_jsonable_python

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.validation import a_type, shown

__all__ = ["plain_payload", "storable_text"]

SMALLEST, LARGEST = -(2**63), 2**64 - 1  # whole numbers that Qdrant stores as such
DEEPEST = 100  # levels of nesting; parsers of JSON stop at 128


def plain_payload(payload: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a payload that every client can write.

    Numbers, booleans, dates and arrays of numpy become Python's. NaN, ``pd.NaT`` and ``pd.NA``
    mark what is missing, and become null. Tuples and sets become lists, and members of an ``Enum``
    their values. Dates, times and UUIDs stay as they are.

    Args:
        payload: the payload of one document.
        where: name of the document in errors.

    Raises:
        InvalidInputError: a value has no such form, such as infinity or an object of a class of
            the caller's; the message names the document and the field.
    """
    return _mapping(payload, where, ())


def _mapping(value: Mapping[Any, Any], where: str, path: tuple[str, ...]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, v in value.items():
        name = _key(key, where, path)
        if name in made:
            raise InvalidInputError(
                f"{where} has two fields {name!r:.60}{_under(path)}, one of a number and one of a "
                "str, which JSON cannot tell apart. Rename one."
            )
        made[name] = _plain(v, where, (*path, name))
    return made


def _key(key: Any, where: str, path: tuple[str, ...]) -> str:
    if isinstance(key, str):
        return storable_text(str(key), where, (*path, str(key)))
    if path and isinstance(key, int | np.integer) and not isinstance(key, bool):
        return str(_whole(int(key), where, path))
    raise InvalidInputError(
        f"{where} has {a_type(key)}, {shown(key, 60)}, as the name of a field{_under(path)}; "
        "expected a str."
    )


def _plain(value: Any, where: str, path: tuple[str, ...]) -> Any:  # noqa: PLR0912
    if value is None or value is True or value is False:
        return value
    if isinstance(value, Enum):
        return _plain(value.value, where, path)
    if isinstance(value, str):
        return storable_text(str(value), where, path)
    if isinstance(value, np.timedelta64):  # which counts as a whole number
        raise _refused(value, where, path)
    if isinstance(value, int | np.integer):
        return _whole(int(value), where, path)
    if isinstance(value, float | np.floating):
        return _number(float(value), where, path)
    if len(path) > DEEPEST:
        raise InvalidInputError(
            f"{where} nests deeper than {DEEPEST} levels{_under(path[:3])}, more than "
            "Qdrant reads. Flatten it."
        )
    if isinstance(value, Mapping):
        return _mapping(value, where, path)
    if isinstance(value, list | tuple | set | frozenset):
        made = [_plain(v, where, (*path, f"[{n}]")) for n, v in enumerate(value)]
        # A set has another order in each process, and ids are made of payloads.
        return sorted(made, key=repr) if isinstance(value, set | frozenset) else made
    if isinstance(value, np.generic | np.ndarray):
        return _of_numpy(value, where, path)
    if type(value).__name__ in {"NAType", "NaTType"}:  # of pandas
        return None
    if isinstance(value, datetime | date | UUID):
        return value
    # Bytes are no text, and an iterator would be empty when it is read again.
    if isinstance(value, bytes | bytearray | memoryview | complex | Iterator):
        raise _refused(value, where, path)
    try:
        made = to_jsonable_python(value)
    except (PydanticSerializationError, ValueError, RecursionError):
        made = value
    if made is value:
        raise _refused(value, where, path)
    return _plain(made, where, path)


def _of_numpy(value: Any, where: str, path: tuple[str, ...]) -> Any:
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufOUSM" and value.dtype.kind != "S":
        if value.dtype.kind == "M":
            missing = np.isnat(value)
            value = value.astype(str).astype(object)
            value[missing] = None
        return _plain(value.tolist(), where, path)
    raise _refused(value, where, path)


def storable_text(value: str, where: str, path: tuple[str, ...] = ()) -> str:
    """Return a text that UTF-8 can hold.

    Raises:
        InvalidInputError: half a surrogate pair is in it.
    """
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                f"{where} holds a lone surrogate at character {error.start}{_under(path)}, which "
                "no database can store. Fix it: text.encode('utf-16', 'surrogatepass')"
                ".decode('utf-16', 'replace')."
            ) from None
    return value


def _whole(value: int, where: str, path: tuple[str, ...]) -> int:
    if not SMALLEST <= value <= LARGEST:
        few = value.bit_length() < 1000  # more do not fit a float
        shown = f"{value:.3e}" if few else f"of {value.bit_length():,} bits"
        raise InvalidInputError(
            f"{where} has the whole number {shown}{_under(path)}; Qdrant stores {SMALLEST} to "
            f"{LARGEST}. Store it as a str or a float."
        )
    return value


def _number(value: float, where: str, path: tuple[str, ...]) -> float | None:
    if math.isinf(value):
        raise InvalidInputError(
            f"{where} has {value}{_under(path)}, which JSON cannot hold; expected a finite number, "
            "or None."
        )
    return None if math.isnan(value) else value


def _refused(value: Any, where: str, path: tuple[str, ...]) -> InvalidInputError:
    return InvalidInputError(
        f"{where} has {a_type(value)}{_under(path)}, which is no JSON; expected texts, numbers, "
        "booleans, dates, None, and lists and mappings of these."
    )


def _under(path: tuple[str, ...]) -> str:
    """Where in the payload a value is, for a message."""
    shown = "".join(part if part.startswith("[") else f".{part}" for part in path).lstrip(".")
    return f" in the field {shown!r:.80}" if path else ""
