"""``qdrant-rerank models export``: a PyTorch cross-encoder -> a directory with an ONNX file."""

from typing import Any

import click

from qdrant_rerank.cli.options import json_option
from qdrant_rerank.cli.output import print_json, say

__all__ = ["export_command"]


@click.command("export", short_help="Make an ONNX directory of a PyTorch cross-encoder.")
@click.argument("source")
@click.argument("out")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Precision of the ONNX file.",
)
@json_option
def export_command(source: str, out: str, precision: Any, as_json: bool) -> None:
    """Make the new directory OUT of the PyTorch cross-encoder SOURCE.

    SOURCE is a directory, or a repository of the hub. OUT is kept only if the scores of 20 pairs
    are those of PyTorch. It needs: pip install "qdrant-rerank[export]"
    """
    from qdrant_rerank.cross_encoder.export import export_model

    made = export_model(source, out, precision=precision)
    if as_json:
        print_json(
            {
                "path": str(made.path),
                "bytes": made.size,
                "pairs": made.pairs,
                "largest_difference": made.difference,
            }
        )
        return
    say(
        f"{made.path}: {precision}, {made.size / 1e6:,.1f} MB. Scores of {made.pairs} pairs differ "
        f"from PyTorch's by {made.difference:.2g} at most."
    )
