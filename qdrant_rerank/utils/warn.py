"""Warnings that name the line of the caller's program, not a line of this package."""

import sys
import warnings

from qdrant_rerank.errors import redact

__all__ = ["warn_caller"]

PACKAGE = __name__.partition(".")[0]


def warn_caller(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn at the nearest line outside this package. Python shows it once for each such line.

    The message is shown without secrets.
    """
    # From Python 3.12 on, skip_file_prefixes=(package directory,) does the same.
    level = 1
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] == PACKAGE:
        frame = frame.f_back
        level += 1
    warnings.warn(
        redact(message) if isinstance(message, str) else message, category, stacklevel=level
    )
