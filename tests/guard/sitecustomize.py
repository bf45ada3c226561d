"""Refuses connections to anything but this machine, in the test process and in its children.

The folder is put first in ``PYTHONPATH`` (see ``tests/conftest.py``), so every Python process that
a test starts imports this module when it starts. Each refused attempt is written to the file that
``LOOPBACK_GUARD_LOG`` names.
"""

import ipaddress
import os
import socket
import sys
from importlib.machinery import PathFinder
from pathlib import Path

# One module, whichever of its names it is first imported by.
sys.modules.setdefault("tests.guard.sitecustomize", sys.modules[__name__])

LOG = "LOOPBACK_GUARD_LOG"


class NotLoopbackError(ConnectionRefusedError):
    """A test process asked for another machine."""


def is_loopback(host):
    """Whether a host name or an address is this machine; names that can never resolve count too."""
    own = host in {"localhost", socket.gethostname()}
    if not host or own or host.endswith((".localhost", ".invalid")):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def check(event, arguments):
    """Raise for a look-up, a connection or a datagram that leaves this machine."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        own, address = arguments
        if own.family not in {socket.AF_INET, socket.AF_INET6} or address is None:
            return
        host = address[0]
    elif event in {"socket.gethostbyname", "socket.gethostbyaddr"}:
        [host] = arguments
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if is_loopback(host):
        return
    if log := os.environ.get(LOG):
        with Path(log).open("a", encoding="utf-8") as file:
            test = os.environ.get("PYTEST_CURRENT_TEST", "no test")
            file.write(f"{event} {host} by {sys.argv} in {test}\n")
    raise NotLoopbackError(f"{event} of {host!r}: tests talk to nothing but this machine")


sys.addaudithook(check)

# The interpreter's own module of this name, which this one hides.
_folder = str(Path(__file__).parent)
_hidden = PathFinder.find_spec("sitecustomize", [entry for entry in sys.path if entry != _folder])
if _hidden is not None and _hidden.loader is not None and __name__ == "sitecustomize":
    from importlib.util import module_from_spec

    _module = module_from_spec(_hidden)
    _hidden.loader.exec_module(_module)
