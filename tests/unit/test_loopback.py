"""No test process talks to anything but this machine."""

import os
import socket
import subprocess
import sys

import pytest

from tests.guard import sitecustomize
from tests.guard.sitecustomize import NotLoopbackError, is_loopback

ELSEWHERE = "192.0.2.1"  # reserved for documentation: https://www.rfc-editor.org/rfc/rfc5737
TRY = f"""
import socket
try:
    socket.create_connection(("{ELSEWHERE}", 80), timeout=1)
except Exception as error:
    print(type(error).__name__)
"""


@pytest.fixture(autouse=True)
def own_log(tmp_path, monkeypatch):
    """These tests ask for other machines on purpose: written down in a file of their own."""
    log = tmp_path / "log"
    monkeypatch.setenv(sitecustomize.LOG, str(log))
    return log


def test_this_process_reaches_no_other_machine(own_log):
    """Connections, look-ups and datagrams are refused and written down."""
    with pytest.raises(NotLoopbackError):
        socket.create_connection((ELSEWHERE, 80), timeout=1)
    with pytest.raises(NotLoopbackError):
        socket.getaddrinfo("example.com", 443)
    with socket.socket(type=socket.SOCK_DGRAM) as one, pytest.raises(NotLoopbackError):
        one.sendto(b"", (ELSEWHERE, 53))
    assert len(own_log.read_text().splitlines()) == 3


@pytest.mark.parametrize("environment", [{}, {"PATH": os.environ["PATH"]}])
def test_neither_does_a_child(environment, own_log):
    """A process that a test starts with the environment of the tests has the guard, too."""
    guard = {name: os.environ[name] for name in ("PYTHONPATH", sitecustomize.LOG)}
    said = subprocess.run(
        [sys.executable, "-c", TRY],
        env=(environment or os.environ) | guard,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "NotLoopbackError"
    assert ELSEWHERE in own_log.read_text()


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", True),
        ("localhost", True),
        ("nowhere.invalid", True),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("huggingface.co", False),
        ("localhost.example.com", False),
    ],
)
def test_what_counts_as_this_machine(host, allowed):
    """Loopback addresses, localhost, and names that can never resolve."""
    assert is_loopback(host) is allowed
