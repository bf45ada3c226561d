"""A process that loads models from a hub on loopback.

``HF_ENDPOINT`` and the timeouts are read when huggingface_hub is imported, so loading happens in a
process of its own; that it answers many calls saves importing everything for each.
"""

import json
import logging
import os
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager, suppress

import pytest

#: So that a hub that hangs is given up soon.
ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_ETAG_TIMEOUT": "3",
    "HF_HUB_DOWNLOAD_TIMEOUT": "3",
}


class Worker:
    """Calls of :func:`qdrant_rerank.hub.locate.locate` in another process.

    Attributes:
        seconds: of the last call.
        warnings: of the last call, as "Class: message".
        logs: warnings that the last call logged.
    """

    def __init__(self, environment):
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env=os.environ | ENVIRONMENT | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def locate(self, name, **options):
        """The paths as {"model", "tokenizer"}, or the error as "Class: message"."""
        return self._call("locate", name, options)

    def score(self, name, **options):
        """The scores of two documents, or the error as "Class: message"."""
        return self._call("score", name, options)

    def send(self, name, **options):
        """Start a call without waiting for its answer."""
        self._send("locate", name, options)

    def kill(self):
        """End the process as a crash would."""
        self._process.kill()
        self._process.wait()

    def close(self):
        """End the process."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)

    def answer(self):
        """Wait for the answer to a call that was sent."""
        line = self._process.stdout.readline()
        assert line, "the process ended"
        said = json.loads(line)
        self.seconds, self.warnings = said["seconds"], said["warnings"]
        self.logs = said["logs"]
        return said["error"] or said["result"]

    def _call(self, what, name, options):
        self._send(what, name, options)
        return self.answer()

    def _send(self, what, name, options):
        kept = {key: str(value) if key == "cache_dir" else value for key, value in options.items()}
        self._process.stdin.write(json.dumps([what, name, kept]) + "\n")
        self._process.stdin.flush()


@contextmanager
def worker(hub, **environment):
    """Start a process that uses this hub."""
    made = Worker({"HF_ENDPOINT": hub if isinstance(hub, str) else hub.url, **environment})
    try:
        yield made
    finally:
        made.close()


def no_network():
    """Make every connection and look-up of this process fail."""
    import socket

    def refuse(*_):
        pytest.fail("a connection was opened")

    socket.socket.connect = refuse
    socket.socket.connect_ex = refuse
    socket.getaddrinfo = refuse


def no_locks(name):
    """Make every lock of this process fail as on a file system that has none."""
    import errno
    import fcntl

    def refuse(*_):
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    fcntl.flock = fcntl.lockf = refuse


class _Kept(logging.Handler):
    """Keeps the messages of warnings in a list."""

    def __init__(self, messages):
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record):
        self._messages.append(record.getMessage())


def serve():
    """Answer calls from stdin on stdout, a line each."""
    if os.environ.get("TEST_NO_NETWORK"):
        no_network()
    if name := os.environ.get("TEST_NO_LOCKS"):
        no_locks(name)
    if limit := int(os.environ.get("TEST_LARGEST_FILE", "0")):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    from qdrant_rerank.errors import QdrantRerankError
    from qdrant_rerank.hub.locate import locate

    logs = []
    logging.getLogger("qdrant_rerank").addHandler(_Kept(logs))
    for line in sys.stdin:
        what, name, options = json.loads(line)
        result, error = None, None
        logs.clear()
        began = time.perf_counter()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                if what == "locate":
                    files = locate(name, **options)
                    result = {"model": str(files.model), "tokenizer": str(files.tokenizer)}
                else:
                    from qdrant_rerank import TextCrossEncoder

                    encoder = TextCrossEncoder(name, **options)
                    result = encoder.rerank("which bread rises?", ["bread rises", "the sea"])
            except QdrantRerankError as raised:
                error = f"{type(raised).__name__}: {raised}"
        said = {
            "result": result,
            "error": error,
            "seconds": time.perf_counter() - began,
            "warnings": [f"{w.category.__name__}: {w.message}" for w in warned],
            "logs": logs,
        }
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
