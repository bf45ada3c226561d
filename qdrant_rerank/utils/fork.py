"""What a forked child must make new: it has the locks of its parent's threads, not the threads."""

import os
from collections.abc import Callable

__all__ = ["in_child"]


def in_child(function: Callable[[], None]) -> Callable[[], None]:
    """Call a function in each child right after the fork; use it as a decorator."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=function)
    return function
