"""Logs as one JSON object per line, without texts and without keys."""

import json
import logging
from datetime import UTC, datetime

from qdrant_rerank.errors import redact

__all__ = ["JsonFormatter", "log_as_json"]

LOGGERS = ("qdrant_rerank", "uvicorn.error")


class JsonFormatter(logging.Formatter):
    """Writes a record as JSON; the facts of a request as fields of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": redact(record.getMessage()),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            # The message of an exception may hold a text; its kind does not.
            line["exception"] = record.exc_info[0].__name__
        return json.dumps(line, default=str)


def log_as_json() -> None:
    """Let the loggers of the server write JSON to stderr; for a process that only serves."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
