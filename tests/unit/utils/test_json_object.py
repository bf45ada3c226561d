"""JSON that is nested too deep leads to the end of the stack."""

import gc
import sys

import pytest

from qdrant_rerank.serving.http_errors import HttpError
from qdrant_rerank.serving.limits import _parsed
from qdrant_rerank.utils.json_object import parse_json

DEEP = b"[" * 200_000


class Freed:
    """Garbage that only a collection finds, whose finalizer needs some of the stack."""

    done = 0

    def __init__(self):
        self.itself = self

    def __del__(self):
        def down(steps):
            return steps and down(steps - 1)

        down(200)
        Freed.done += 1


@pytest.mark.parametrize(
    ("parse", "error"),
    [(parse_json, ValueError), (lambda text: _parsed(bytearray(text)), HttpError)],
)
@pytest.mark.parametrize("after", [500, 800])
def test_no_finalizer_fails_at_the_end_of_the_stack(parse, error, after, monkeypatch):
    """Garbage is collected before or after, whenever its turn comes; it was in between."""
    failed, before = [], gc.get_threshold()
    monkeypatch.setattr(sys, "unraisablehook", failed.append)
    gc.collect()
    done = Freed.done
    try:
        gc.set_threshold(after, 1, 1)
        Freed()
        with pytest.raises(error, match="nested too deep"):
            parse(DEEP)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert (Freed.done, failed) == (done + 1, [])
    assert gc.isenabled()
