"""A Qdrant server of the test's own, which it may kill: the program at QDRANT_BINARY."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults import free_port


def make_certificate(folder: Path) -> None:
    """Write ``c.pem``, of 127.0.0.1 and signed by itself, and its key ``k.pem``; skip without."""
    made = subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=x "
        "-addext subjectAltName=IP:127.0.0.1".split(),
        cwd=folder,
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("openssl is not installed")


class OwnServer:
    """Starts the server on free loopback ports; its data stay when it is killed.

    Args:
        directory: where its data are.
        certificate: of a server that speaks TLS, signed by itself; None for plain HTTP.
        arguments: of the command line.
        settings: environment variables of Qdrant's configuration, without the ``QDRANT__``.
    """

    def __init__(
        self,
        directory: Path,
        certificate: Path | None = None,
        arguments: Sequence[str] = (),
        **settings: str,
    ) -> None:
        binary = os.environ.get("QDRANT_BINARY")
        if not binary:
            pytest.skip("QDRANT_BINARY is not set; it is the path of a Qdrant server's program")
        self._binary = binary
        self._directory = directory
        self._arguments = arguments
        self._settings = settings
        self._certificate = certificate
        self.scheme = "https" if certificate else "http"
        self.port, self.grpc_port = free_port(), free_port()
        self.p2p: str | None = None  # address for the other nodes of a cluster
        self.process: subprocess.Popen[bytes] | None = None

    def client_options(self, *, prefer_grpc: bool = False) -> dict[str, Any]:
        """Arguments of a client of it."""
        return {
            "url": f"{self.scheme}://127.0.0.1:{self.port}",
            "grpc_port": self.grpc_port,
            "prefer_grpc": prefer_grpc,
            "timeout": 20,
            "check_compatibility": False,
        }

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        settings = {
            "SERVICE__HOST": "127.0.0.1",
            "SERVICE__HTTP_PORT": str(self.port),
            "SERVICE__GRPC_PORT": str(self.grpc_port),
            "STORAGE__STORAGE_PATH": str(self._directory / "storage"),
            "STORAGE__SNAPSHOTS_PATH": str(self._directory / "snapshots"),
            "TELEMETRY_DISABLED": "true",
            "LOG_LEVEL": "ERROR",
            **self._settings,
        }
        self.process = subprocess.Popen(
            [self._binary, *self._arguments],
            cwd=self._directory,
            env={f"QDRANT__{name}": value for name, value in settings.items()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + 60
        while True:
            try:
                trusted: Any = str(self._certificate) if self._certificate else True
                url = f"{self.scheme}://127.0.0.1:{self.port}/readyz"
                httpx.get(url, timeout=1, verify=trusted).raise_for_status()
            except httpx.HTTPError:
                assert self.process.poll() is None, "the server ended"
                assert time.monotonic() < give_up, "the server does not start"
                time.sleep(0.05)
            else:
                return

    def restart(self, **settings: str) -> None:
        """Kill it, and start it with other settings as well."""
        self.kill()
        self._settings = {**self._settings, **settings}
        self.start()

    def kill(self) -> None:
        """SIGKILL: nothing is flushed."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> "OwnServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextmanager
def own_cluster(directory: Path, nodes: int = 3) -> Iterator[list[OwnServer]]:
    """Start a cluster whose nodes a test may kill."""
    with ExitStack() as stack:
        started: list[OwnServer] = []
        for number in range(nodes):
            place, port = directory / f"node{number}", free_port()
            place.mkdir()
            uri = f"http://127.0.0.1:{port}"
            first = started[0].p2p if started else None
            joins = ["--bootstrap", first] if first else []
            node = OwnServer(
                place,
                arguments=["--uri", uri, *joins],
                CLUSTER__ENABLED="true",
                CLUSTER__P2P__PORT=str(port),
                CLUSTER__CONSENSUS__TICK_PERIOD_MS="100",
            )
            node.p2p = uri
            started.append(stack.enter_context(node))
        yield started
