"""Payloads of every type that Python's data libraries make, as Qdrant stores them."""

import enum
import itertools
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import numpy as np
import pytest
from pydantic_core import to_json

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.qdrant.payloads import plain_payload


class Colour(enum.Enum):
    """A choice."""

    RED = "red"


class NaTType(datetime):
    """The type of ``pd.NaT``: a datetime that is not one."""


CONVERTED = {
    "int64": (np.int64(3), 3),
    "uint8": (np.uint8(3), 3),
    "bool_": (np.bool_(True), True),
    "float32": (np.float32(0.5), 0.5),
    "str_": (np.str_("a"), "a"),
    "NaN": (float("nan"), None),
    "NaN of numpy": (np.float32("nan"), None),
    "NaT of numpy": (np.datetime64("NaT", "s"), None),
    "NaT of pandas": (NaTType(2026, 1, 1), None),
    "a date of numpy": (np.datetime64("2026-03-01T12:30"), "2026-03-01T12:30"),
    "array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "array with NaN": (np.array([1.5, np.nan]), [1.5, None]),
    "array of booleans": (np.array([True]), [True]),
    "array of objects": (np.array([np.int64(1), None, "x"], dtype=object), [1, None, "x"]),
    "array of dates": (np.array(["2026-03-01", "NaT"], "datetime64[D]"), ["2026-03-01", None]),
    "array of none": (np.array(7), 7),
    "tuple": ((1, np.int8(2)), [1, 2]),
    "set": ({1}, [1]),
    "enum": (Colour.RED, "red"),
    "decimal": (Decimal("1.50"), "1.50"),
    "nested": ({"a": [{3: np.float64(1)}]}, {"a": [{"3": 1.0}]}),
    "largest": (2**64 - 1, 2**64 - 1),
    "date": (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)),
    "UUID": (UUID(int=1), UUID(int=1)),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_what_has_one_meaning_is_converted(name):
    """To plain Python, of which JSON can be written."""
    given, expected = CONVERTED[name]
    [made] = plain_payload({"field": given}, "Document 0").values()
    assert made == expected
    assert type(made) is type(expected)
    json.loads(to_json(made))


REFUSED = {
    "infinity": float("inf"),
    "infinity in an array": np.array([1.0, -np.inf]),
    "object": object(),
    "bytes": b"\xff",
    "complex of numpy": np.complex64(1),
    "complex": 1j,
    "an iterator, which is empty the second time": iter([1]),
    "an iterator without end": itertools.count(),
    "bytes of numpy": np.array([b"a"]),
    "seconds of numpy": np.timedelta64(1, "s"),
    "a large number": 2**64,
    "a key": {"inner": {None: 1}},
    "half a pair": "\ud800",
    "a loop": None,
}
REFUSED["a loop"] = []
REFUSED["a loop"].append(REFUSED["a loop"])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_is_refused_with_the_document_and_the_field(name):
    """However deep it is."""
    with pytest.raises(InvalidInputError, match=r"^Document 300 .*in the field 'deep\[1\]\.field"):
        plain_payload({"deep": [0, {"field": REFUSED[name]}]}, "Document 300")


@pytest.mark.parametrize("key", [1, None, b"a"])
def test_names_of_fields_are_texts(key):
    """A number at the top would be refused by the client without the document's name."""
    with pytest.raises(InvalidInputError, match="^Document 2 has .*as the name of a field"):
        plain_payload({key: 1}, "Document 2")


def test_a_set_is_the_same_list_in_every_process():
    """Ids are made of payloads, so a document that is added again must look the same."""
    code = (
        "from qdrant_rerank.qdrant.payloads import plain_payload\n"
        "tags = {'iron', 'copper', 'bread', frozenset({'a', 'b', 'c'})}\n"
        "print(plain_payload({'tags': tags}, 'it'))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1


def test_two_names_that_json_cannot_tell_apart_are_refused():
    """One of them would be lost."""
    with pytest.raises(InvalidInputError, match=r"It has two fields '1' in the field 'v'"):
        plain_payload({"v": {1: "int", "1": "str"}}, "It")


def test_a_number_that_no_float_holds_is_refused_by_its_size():
    """It has more digits than Python writes."""
    with pytest.raises(InvalidInputError, match=r"It has the whole number of 16,610 bits"):
        plain_payload({"v": 10**5000}, "It")
