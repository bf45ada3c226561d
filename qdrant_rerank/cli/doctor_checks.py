"""What is wrong with a collection, a server or a model, and how to mend it. Pure: no I/O.

What the checks look at is gathered by the command ``qdrant-rerank doctor``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qdrant_client import models
from qdrant_client.local.payload_value_extractor import value_by_key

from qdrant_rerank.inference.gpu.devices import CUDA, CudaReport
from qdrant_rerank.payload import PayloadText
from qdrant_rerank.qdrant.schema import CollectionSchema
from qdrant_rerank.qdrant.server_version import Version, parse_version

__all__ = [
    "Finding",
    "check_cards",
    "check_collection",
    "check_filters",
    "check_model",
    "check_packages",
    "check_schema",
    "check_texts",
    "check_versions",
]

Kind = Literal["collection", "schema", "text", "filters", "server", "model", "packages", "cards"]

#: Share of points without text, and of truncated texts, from which on it is wrong and not a remark.
MANY = 0.05
#: Points from which on a server that has built no graph is slow.
NEEDS_GRAPH = 20_000
SHOWN = 5  # names in a message


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was seen.

    Attributes:
        about: what was looked at.
        wrong: whether results suffer; else it is a remark, or all is well.
        seen: what was found.
        mend: what to do; "" where nothing is to be done.
    """

    about: Kind
    wrong: bool
    seen: str
    mend: str = ""


def check_collection(info: models.CollectionInfo, *, embedded: bool) -> Iterator[Finding]:
    """State, size and graph.

    Args:
        info: of the collection.
        embedded: whether the engine is in this process.
    """
    points = info.points_count or 0
    status = info.status.value
    yield Finding("collection", False, f"{points:,} points, status {status}.")
    if info.status == models.CollectionStatus.RED:
        yield Finding(
            "collection",
            True,
            "Status red: operations of Qdrant failed.",
            "Read the server's log; a full disk and a lack of memory are the usual causes.",
        )
    if isinstance(info.optimizer_status, models.OptimizersStatusOneOf1):
        yield Finding(
            "collection",
            True,
            f"The optimiser failed: {info.optimizer_status.error}",
            "Mend what it names, then change any setting of the collection to start it again.",
        )
    if not points:
        yield Finding(
            "collection",
            True,
            "It has no points.",
            "Fill it: qdrant-rerank index FILE --collection ...",
        )
    if not embedded and points >= NEEDS_GRAPH and not info.indexed_vectors_count:
        yield Finding(
            "collection",
            True,
            f"No vector of {points:,} points is in a graph, so every search reads all of them.",
            "Wait for the optimiser (status yellow or grey), or lower indexing_threshold.",
        )


def check_schema(schema: CollectionSchema, mismatch: str | None) -> Iterator[Finding]:
    """Vectors against encoders.

    Args:
        schema: of the collection.
        mismatch: why the encoders do not fit it; None if they do.
    """
    yield Finding("schema", False, f"It has {schema}.")
    if mismatch is not None:
        yield Finding("schema", True, mismatch, "Pass the encoders that filled the collection.")
    if schema.dense and schema.embedder is None:
        yield Finding(
            "schema",
            False,
            "Nobody recorded which embedder filled it; only the length of the vectors is checked.",
            "HybridSearcher.add records it when it creates a collection.",
        )
    plain = [n for n, params in schema.sparse.items() if params.modifier != models.Modifier.IDF]
    if plain:
        yield Finding(
            "schema",
            False,
            f"Sparse vectors without the modifier IDF: {_names(plain)}. BM25 is left out for them.",
            "For BM25: client.update_collection(..., sparse_vectors_config={name: "
            "SparseVectorParams(modifier='idf')}).",
        )


def check_texts(
    payloads: Sequence[Mapping[str, Any] | None], text: PayloadText
) -> Iterator[Finding]:
    """Whether the reranker finds something to read.

    Args:
        payloads: of a sample of points.
        text: where a payload's text is.
    """
    if not payloads:
        return
    missing = [payload or {} for payload in payloads if not text(payload)]
    having = len(payloads) - len(missing)
    seen = f"{having:,} of {len(payloads):,} sampled points have text at {text.source!r}."
    if not missing:
        yield Finding("text", False, seen)
        return
    fields = sorted({name for payload in missing for name in payload})
    yield Finding(
        "text",
        len(missing) / len(payloads) >= MANY,
        f"{seen} Those without have {_names(fields) if fields else 'no payload'}.",
        "Name the field with --text (text=...), or add the texts; hits without one are not "
        "reranked.",
    )


def check_filters(
    fields: Iterable[str],
    schema: CollectionSchema,
    payloads: Sequence[Mapping[str, Any] | None],
    *,
    indexes: bool,
) -> Iterator[Finding]:
    """Whether the payload fields that are filtered by have an index, and exist.

    Args:
        fields: that are filtered by.
        schema: of the collection.
        payloads: of a sample of points.
        indexes: whether the engine has payload indexes at all.
    """
    for name in fields:
        values = [
            value for payload in payloads for value in value_by_key(dict(payload or {}), name) or []
        ]
        if payloads and not values:
            yield Finding(
                "filters",
                True,
                f"No sampled point has the payload field {name!r}.",
                "Check its spelling; nested fields are written 'outer.inner'.",
            )
        elif not indexes:
            yield Finding("filters", False, f"{name!r}: qdrant-client's local mode has no indexes.")
        elif name in schema.indexed:
            yield Finding("filters", False, f"{name!r} has an index.")
        else:
            kind = _index_type(values)
            yield Finding(
                "filters",
                True,
                f"{name!r} has no payload index, so a filter on it reads every point.",
                f"client.create_payload_index({schema.collection!r}, {name!r}, {kind!r})",
            )


def check_versions(server: str, client: str) -> Iterator[Finding]:
    """The server's version against the client's: Qdrant supports one minor version of difference.

    Args:
        server: its version.
        client: of qdrant-client.
    """
    ours, theirs = parse_version(client), parse_version(server)
    seen = f"Qdrant {server}, qdrant-client {client}."
    if ours is None or theirs is None or _compatible(ours, theirs):
        yield Finding("server", False, seen)
        return
    mend = "Upgrade the server" if theirs < ours else "Upgrade qdrant-client"
    yield Finding("server", True, f"{seen} They are more than one minor version apart.", f"{mend}.")


def check_model(
    provider: str,
    available: Sequence[str],
    read: int,
    truncated: int,
    *,
    quantised: bool = False,
) -> Iterator[Finding]:
    """Where the reranker runs, and how much of the texts it reads.

    Args:
        provider: of onnxruntime that runs it.
        available: those that this onnxruntime has.
        read: sampled texts.
        truncated: those of them that did not fit the model's window.
        quantised: whether it is an int8 model, which belongs on a CPU.
    """
    cards = [name for name in available if name.startswith(("CUDA", "Tensorrt"))]
    aside = bool(cards) and provider not in cards
    idle = aside and not quantised
    mend = "Pass cuda=True to see why the card is not used." if idle else ""
    if aside and quantised:
        mend = "It is int8, for a CPU. On a card: device='cuda', precision='fp16'."
    yield Finding(
        "model",
        idle,
        f"It runs on {provider}; this onnxruntime has {', '.join(available)}.",
        mend,
    )
    if read:
        share = truncated / read
        yield Finding(
            "model",
            share >= MANY,
            f"{truncated:,} of {read:,} sampled texts ({share:.0%}) do not fit its window and are "
            "cut.",
            "TextCrossEncoder(name, long_documents='windows') reads all of them; or add shorter "
            "passages."
            if truncated
            else "",
        )


def check_packages(installed: Iterable[str]) -> Iterator[Finding]:
    """Packages that spoil each other.

    Args:
        installed: names of distributions.
    """
    runtimes = sorted(name for name in installed if name in {"onnxruntime", "onnxruntime-gpu"})
    if len(runtimes) > 1:
        yield Finding(
            "packages",
            True,
            "onnxruntime and onnxruntime-gpu are both installed; they share a directory.",
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install the one you want.",
        )


def _compatible(one: Version, other: Version) -> bool:
    return one[0] == other[0] and abs(one[1] - other[1]) <= 1


def _index_type(values: Sequence[Any]) -> str:
    """The type of index for these values."""
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "integer"
    if kinds and kinds <= {int, float}:
        return "float"
    return "keyword"


def _names(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def check_cards(report: CudaReport) -> Iterator[Finding]:
    """Versions, providers and cards; what keeps a card from being used is wrong.

    A build for CPUs where there is no card is as it should be.

    Args:
        report: of this machine.
    """
    wheels = " and ".join(report.wheels) or "built here"
    cuda = f", for CUDA {report.built_for}" if report.built_for else ""
    yield Finding(
        "packages",
        False,
        f"onnxruntime {report.onnxruntime} ({wheels}{cuda}) with {', '.join(report.providers)}.",
    )
    for card in report.driver.gpus:
        yield Finding("cards", False, f"Gpu {card}.")
    if report.driver.cuda is not None:
        major, minor = report.driver.cuda
        yield Finding("cards", False, f"The NVIDIA driver serves CUDA up to {major}.{minor}.")
    if CUDA not in report.providers and not report.driver.gpus:
        yield Finding("cards", False, "No card, and an onnxruntime for CPUs.")
        return
    for problem in report.problems:
        yield Finding("cards", True, problem.seen, problem.fix)
