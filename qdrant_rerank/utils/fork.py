"""What a forked child makes anew: it has none of its parent's threads, only their locks."""

import os
from collections.abc import Callable

__all__ = ["in_child"]


def in_child(function: Callable[[], None]) -> Callable[[], None]:
    """Have a function called in each child right after the fork; a decorator."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=function)
    return function
