"""The commands that measure: eval and tune."""

import click

__all__ = ["COMMANDS"]

#: What :mod:`~qdrant_rerank.cli` adds to its group.
COMMANDS: list[click.Command] = []
