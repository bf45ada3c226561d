"""Keeps other work off the cards while a CUDA graph is recorded.

onnxruntime records in CUDA's global mode: meanwhile an allocation, a copy or a wait by any other
thread of the process fails and spoils the recording (cudaErrorStreamCaptureUnsupported,
https://docs.nvidia.com/cuda/cuda-runtime-api, cudaThreadExchangeStreamCaptureMode). So all that
this package does on cards happens inside :func:`working`, and a recording, which takes as long as
three runs, alone inside :func:`recording`. Of other libraries in the process it knows nothing.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["recording", "working"]

_changed = threading.Condition()
_at_work = 0
_waiting = 0  # to record, which comes first: else steady work would put it off for ever
_records = False


@contextmanager
def working() -> Iterator[None]:
    """For runs and whatever else calls CUDA; any number at once."""
    global _at_work  # noqa: PLW0603
    inside = False
    try:  # around the count, too: one that a Ctrl-C left would keep all recordings waiting
        with _changed:
            _changed.wait_for(lambda: not _records and not _waiting)
            _at_work += 1
            inside = True
        yield
    finally:
        if inside:
            with _changed:
                _at_work -= 1
                _changed.notify_all()


@contextmanager
def recording() -> Iterator[None]:
    """For one recording, while nothing else is at work. Not inside :func:`working`."""
    global _records, _waiting  # noqa: PLW0603
    with _changed:
        _waiting += 1
        try:
            _changed.wait_for(lambda: not _records and not _at_work)
            _records = True
        finally:
            _waiting -= 1
    try:
        yield
    finally:
        with _changed:
            _records = False
            _changed.notify_all()
