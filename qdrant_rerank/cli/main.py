"""The ``qdrant-rerank`` command: a group of commands, each in a module of its own.

They print tables for people, and JSON with ``--json``. Bad input ends with exit code 2 and one line
on stderr.
"""

import click

from qdrant_rerank._version import __version__
from qdrant_rerank.cli.compare import compare
from qdrant_rerank.cli.demo import demo
from qdrant_rerank.cli.doctor import doctor
from qdrant_rerank.cli.evaluate import evaluate
from qdrant_rerank.cli.export import export_command
from qdrant_rerank.cli.index import index
from qdrant_rerank.cli.mcp import mcp
from qdrant_rerank.cli.models import models
from qdrant_rerank.cli.output import Commands
from qdrant_rerank.cli.plan import plan
from qdrant_rerank.cli.reindex import reindex
from qdrant_rerank.cli.rerank import rerank
from qdrant_rerank.cli.search import search
from qdrant_rerank.cli.serve import serve
from qdrant_rerank.cli.states import states
from qdrant_rerank.cli.tune import tune
from qdrant_rerank.errors import MANUAL

__all__ = ["main"]


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"The manual: {MANUAL}",
)
@click.version_option(__version__, prog_name="qdrant-rerank")
def main() -> None:
    """Search a Qdrant collection, and rerank the hits with a cross-encoder."""


COMMANDS = (
    compare,
    demo,
    doctor,
    evaluate,
    index,
    mcp,
    models,
    plan,
    reindex,
    rerank,
    search,
    serve,
    states,
    tune,
)
for command in COMMANDS:
    main.add_command(command)
models.add_command(export_command)
