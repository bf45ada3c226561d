"""Which machine this is: on a shared file system, a lock may hold on one machine alone."""

import functools
import platform
from pathlib import Path

__all__ = ["this_boot"]


@functools.cache
def this_boot() -> str:
    """Return a text that all processes of a machine share, containers included, until it restarts.

    Where the system has no such text, the name of the machine.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError):
        return platform.node()
