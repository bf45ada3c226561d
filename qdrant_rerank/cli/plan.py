"""``qdrant-rerank plan``: the machines that a search needs."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from qdrant_rerank.capacity import Plan, Workload
from qdrant_rerank.capacity import plan as planned
from qdrant_rerank.cli.options import json_option, reranker_option
from qdrant_rerank.cli.output import print_json, print_table, say
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER
from qdrant_rerank.utils.rendering import Column, Table

__all__ = ["plan"]

# Of the processor, which do not count what other processes use; after one call that warms up.
MEASURED_S = 3.0
LONGEST_S = 15.0  # by the clock, on a busy machine
WORDS = (
    "iron melts at a high temperature while bread is baked in an oven and the river carries "
    "ships that bring grain to the town where the market opens before the sun is up"
).split()


@click.command()
@click.option("--documents", type=float, required=True, help="In the collection, such as 1e8.")
@click.option("--qps", type=float, required=True, help="Queries per second at the peak.")
@click.option("--candidates", type=int, default=100, show_default=True, help="Reranked per query.")
@reranker_option()
@click.option(
    "--words",
    type=click.IntRange(min=1),
    default=120,
    show_default=True,
    help="Words of a document, for measuring.",
)
@click.option("--pairs-per-second", type=float, help="Of one core; default: measured here.")
@click.option(
    "--documents-per-second",
    type=float,
    help="That one core embeds; default: measured here, with the bundled embedder.",
)
@click.option("--dimension", type=int, default=256, show_default=True, help="Of dense vectors.")
@click.option(
    "--terms",
    type=int,
    default=60,
    show_default=True,
    help="Different terms of a document, for BM25.",
)
@click.option(
    "--document-bytes", type=int, default=1000, show_default=True, help="Of text and other payload."
)
@click.option("--quantization", default="int8", show_default=True, help="int8 or none.")
@click.option(
    "--node-gib", type=float, default=64, show_default=True, help="Memory of a Qdrant node."
)
@click.option("--node-qps", type=float, help="Queries per second of one Qdrant node, as measured.")
@click.option(
    "--replica-cores",
    type=int,
    default=4,
    show_default=True,
    help="Cores of one replica of the reranker.",
)
@click.option("--core-hour", type=float, help="Price of a core for an hour.")
@click.option("--gib-hour", type=float, help="Price of a GiB of memory for an hour.")
@json_option
def plan(reranker: str, words: int, as_json: bool, **given: Any) -> None:
    """Work out nodes, memory, replicas and network for a number of documents and queries.

    The reranker's speed is measured on this machine, on one core, unless it is given.
    """
    source = {"pairs_per_second": "given", "documents_per_second": "given"}
    checked = {name: 1 for name in source if given[name] is None}
    try:
        Workload(**{**given, **checked})
    except InvalidInputError as error:  # before anything is measured
        name, _, rest = str(error).partition(" ")
        raise InvalidInputError(f"{_option(name)} {rest}") from error
    if given["pairs_per_second"] is None:
        given["pairs_per_second"] = _pairs_per_second(reranker, words)
        source["pairs_per_second"] = f"measured: {reranker}, {words} words, one core"
    if given["documents_per_second"] is None:
        given["documents_per_second"] = _documents_per_second(words)
        source["documents_per_second"] = f"measured: {DEFAULT_EMBEDDER}, {words} words, one core"
    load = Workload(**given)
    found = planned(load)
    if as_json:
        print_json({"workload": asdict(load), "sources": source, "plan": asdict(found)})
        return
    print_table(_table(load, found, source))
    for note in found.notes:
        say(f"- {note}")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _pairs_per_second(model: str, words: int) -> float:
    """Measure the pairs that one core scores in a second."""
    from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder

    encoder = TextCrossEncoder(model, threads=1)
    texts = [_text(words, row) for row in range(16)]
    encoder.rerank(_text(6, 0), texts[:4])
    return _speed(lambda: len(encoder.rerank(_text(6, 0), texts)), MEASURED_S)


def _documents_per_second(words: int) -> float:
    """Measure the documents that the bundled embedder reads in a second, in this thread."""
    from qdrant_rerank.embedders import StaticEmbedder

    embedder = StaticEmbedder.bundled()
    texts = [_text(words, row) for row in range(256)]
    embedder.embed_documents(texts)
    return _speed(lambda: len(embedder.embed_documents(texts)), MEASURED_S / 3)


def _speed(work: Callable[[], int], least_s: float) -> float:
    """Return what is done in a second of one core's time."""
    began, give_up, done = time.process_time(), time.monotonic() + LONGEST_S, 0
    while (seconds := time.process_time() - began) < least_s and time.monotonic() < give_up:
        done += work()
    return done / seconds


def _text(words: int, seed: int) -> str:
    return " ".join(WORDS[(seed * 7 + place * 3) % len(WORDS)] for place in range(words))


def _table(load: Workload, found: Plan, source: dict[str, str]) -> Table:
    rows: list[tuple[str, ...]] = [
        ("Given",),
        ("pairs per second of a core", f"{load.pairs_per_second:,.0f}", source["pairs_per_second"]),
        (
            "documents per second of a core",
            f"{load.documents_per_second or 0:,.0f}",
            source["documents_per_second"],
        ),
        ("Qdrant",),
        ("memory", f"{found.memory_gib:,.1f} GiB", "vectors and BM25, all copies"),
        ("disk", f"{found.disk_gib:,.1f} GiB", "payloads and vectors, all copies"),
        ("nodes", f"{found.nodes:,}", f"of {load.node_gib:g} GiB"),
        ("shards", f"{found.shards:,}", f"each in {found.replicas_of_shards} copies"),
        ("Reranker",),
        ("pairs per second", f"{found.pairs_per_second:,.0f}", "of all queries"),
        ("replicas", f"{found.reranker_replicas:,}", f"of {load.replica_cores} cores, one spare"),
        ("cores", f"{found.reranker_cores:,}", ""),
        ("one query alone", f"{found.query_s * 1000:,.0f} ms", "on one replica"),
        ("Network", f"{found.network_mbit:,.1f} Mbit/s", "payloads of the candidates"),
        ("Indexing", f"{found.index_core_hours or 0:,.2f} hours", "of one core, embedding alone"),
    ]
    if found.cost_hour is not None:
        rows.append(("Cost", f"{found.cost_hour:,.2f} per hour", "cores and Qdrant's memory"))
    columns = (Column("what", "name"), Column("how much", "number"), Column("of what", "words"))
    return Table(columns=columns, rows=rows)
