"""``qdrant-rerank doctor``: gather what the checks look at, and print what they find."""

import functools
import importlib.metadata
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich import box
from rich.table import Table
from rich.text import Text

from qdrant_rerank.cli.shared import (
    NONE,
    collection_options,
    console,
    json_option,
    print_json,
    reranker_option,
    searcher_for,
)
from qdrant_rerank.errors import (
    CollectionError,
    InvalidInputError,
    MissingDependencyError,
    ModelError,
    QdrantError,
)
from qdrant_rerank.payload import require_path

if TYPE_CHECKING:
    from qdrant_rerank.cli.doctor_checks import Finding
    from qdrant_rerank.search.searcher import HybridSearcher

__all__ = ["doctor"]

#: What the sampled texts are read beside, to see what fits the model's window.
QUERY = "a question of usual length about it"


@click.command()
@functools.partial(collection_options, required=False)
@reranker_option("a path, or 'none'")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    help="Payload field that your searches filter by. May be repeated.",
)
@click.option(
    "--sample",
    default=100,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Points to read.",
)
@json_option
def doctor(
    collection: str | None,
    url: str | None,
    path: str | None,
    text: tuple[str, ...],
    embedder: str,
    reranker: str,
    filters: tuple[str, ...],
    sample: int,
    as_json: bool,
) -> None:
    """Say what is wrong with a collection, its server or the model, and how to mend it.

    Without --collection: which providers onnxruntime has, which cards, and what they lack.

    Exit code 1 if something is wrong, 2 on bad input.
    """
    for name in filters:
        require_path("--filter", name)
    findings: list[Finding] = []
    try:
        findings.extend(_installed())
        if collection is None:
            _say(findings, as_json=as_json)
        with searcher_for(collection, url, path, text, embedder, None) as searcher:
            # What was found before a failure stays.
            findings.extend(_examine(searcher, reranker, filters, sample))
    except InvalidInputError:
        raise
    except (QdrantError, CollectionError, ModelError, MissingDependencyError) as error:
        findings.append(_failure(error))
    _say(findings, as_json=as_json)


def _say(findings: "Sequence[Finding]", *, as_json: bool) -> NoReturn:
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    raise SystemExit(1 if any(finding.wrong for finding in findings) else 0)


def _installed() -> "Iterator[Finding]":
    """Packages, and the cards that onnxruntime finds."""
    from qdrant_rerank.cli.doctor_checks import check_cards, check_packages
    from qdrant_rerank.inference.gpu.devices import cuda_report
    from qdrant_rerank.inference.sessions import import_onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two wheels, which is a finding
        ort = import_onnxruntime()
    yield from check_packages(
        str(found.metadata["Name"]).lower() for found in importlib.metadata.distributions()
    )
    yield from check_cards(cuda_report(ort))


def _examine(
    searcher: "HybridSearcher", reranker: str, filters: Sequence[str], sample: int
) -> "Iterator[Finding]":
    from qdrant_rerank.cli import doctor_checks as checks
    from qdrant_rerank.qdrant.embedded.choice import engine_name
    from qdrant_rerank.qdrant.schema import CollectionSchema
    from qdrant_rerank.qdrant.transport.client import is_local
    from qdrant_rerank.qdrant.transport.driver import CallLimits, Driver

    client, name = searcher.client, searcher.collection
    talk = Driver(client, name, CallLimits())

    def ask(send: Callable[[Any], Any]) -> Any:
        return talk.ask(lambda asked, timeout: send(asked))

    embedded = is_local(client)
    version = ask(lambda asked: asked.info())
    if embedded:
        yield checks.Finding("server", False, f"Embedded: {engine_name(client)}.")
    else:
        ours = importlib.metadata.version("qdrant-client")
        yield from checks.check_versions(version.version, ours)
    info = ask(lambda asked: asked.get_collection(name))
    yield from checks.check_collection(info, embedded=embedded)
    schema = CollectionSchema.from_info(name, info)
    yield from checks.check_schema(schema, _mismatch(searcher))
    records, _ = ask(lambda asked: asked.scroll(name, limit=sample, with_payload=True))
    payloads = [record.payload for record in records]
    yield from checks.check_texts(payloads, searcher.text)
    indexes = not embedded or getattr(client, "concurrent", False)
    yield from checks.check_filters(filters, schema, payloads, indexes=indexes)
    texts = [text for text in map(searcher.text, payloads) if text]
    if reranker != NONE:
        yield from _model(reranker, texts)


def _model(reranker: str, texts: Sequence[str]) -> "Iterator[Finding]":
    from qdrant_rerank.cli.doctor_checks import check_model
    from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
    from qdrant_rerank.inference.sessions import import_onnxruntime

    encoder = TextCrossEncoder(reranker)
    scored = encoder.score_pairs([(QUERY, text) for text in texts])
    yield from check_model(
        encoder.provider,
        import_onnxruntime().get_available_providers(),
        len(texts),
        int(scored.truncated.sum()),
        quantised=encoder.precision == "int8",
    )


def _mismatch(searcher: "HybridSearcher") -> str | None:
    """Why the encoders do not fit the collection; None if they do."""
    try:
        searcher.is_hybrid()  # it reads the schema, and raises
    except CollectionError as error:
        return str(error)
    return None


def _failure(error: Exception) -> "Finding":
    from qdrant_rerank.cli.doctor_checks import Finding

    if isinstance(error, QdrantError):
        return Finding("server", True, str(error))
    if isinstance(error, ModelError | MissingDependencyError):
        return Finding("model", True, str(error))
    return Finding("collection", True, str(error))


def _print(findings: "Sequence[Finding]") -> None:
    table = Table("", "about", "seen", "to mend it", box=box.SIMPLE_HEAD)
    for finding in findings:
        mark = Text("wrong", style="bold red") if finding.wrong else Text("ok", style="green")
        if not finding.wrong and finding.mend:
            mark = Text("note", style="yellow")
        table.add_row(mark, finding.about, Text(finding.seen), Text(finding.mend))
    console().print(table)
    wrong = sum(finding.wrong for finding in findings)
    click.echo("Nothing is wrong." if not wrong else f"{wrong} wrong.")
