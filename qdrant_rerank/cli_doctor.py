"""``qdrant-rerank doctor``: gather what the checks look at, and print what they find."""

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qdrant_rerank.cli_shared import (
    collection_options,
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
from qdrant_rerank.payload_paths import require_path

if TYPE_CHECKING:
    from qdrant_rerank.doctor import Finding
    from qdrant_rerank.searcher import HybridSearcher

__all__ = ["doctor"]

#: What the sampled texts are read beside, to see what fits the model's window.
QUERY = "a question of usual length about it"


@click.command()
@collection_options
@reranker_option
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
    collection: str,
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

    Exit code 1 if something is wrong, 2 on bad input.
    """
    for name in filters:
        require_path("--filter", name)
    findings: list[Finding] = []
    try:
        with searcher_for(collection, url, path, text, embedder, None) as searcher:
            # What was found before a failure stays.
            findings.extend(_examine(searcher, reranker, filters, sample))
    except InvalidInputError:
        raise
    except (QdrantError, CollectionError, ModelError, MissingDependencyError) as error:
        findings.append(_failure(error))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    raise SystemExit(1 if any(finding.wrong for finding in findings) else 0)


def _examine(
    searcher: "HybridSearcher", reranker: str, filters: Sequence[str], sample: int
) -> "Iterator[Finding]":
    from qdrant_rerank import doctor as checks
    from qdrant_rerank.connection import is_local
    from qdrant_rerank.conversation import Conversation
    from qdrant_rerank.flow import Terms
    from qdrant_rerank.schema import CollectionSchema

    client, name = searcher.client, searcher.collection
    talk = Conversation(client, name, Terms())

    def ask(send: Callable[[Any], Any]) -> Any:
        return talk.ask(lambda asked, timeout: send(asked))

    yield from checks.check_packages(
        str(found.metadata["Name"]).lower() for found in importlib.metadata.distributions()
    )
    embedded = is_local(client)
    version = ask(lambda asked: asked.info())
    if embedded:
        yield checks.Finding("server", False, f"Embedded: {version.title}.")
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
    if reranker != "none":
        yield from _model(reranker, texts)


def _model(reranker: str, texts: Sequence[str]) -> "Iterator[Finding]":
    import onnxruntime

    from qdrant_rerank.cross_encoder import TextCrossEncoder
    from qdrant_rerank.doctor import check_model

    encoder = TextCrossEncoder(reranker)
    scored = encoder.score_pairs([(QUERY, text) for text in texts])
    yield from check_model(
        encoder.provider,
        onnxruntime.get_available_providers(),
        len(texts),
        int(scored.truncated.sum()),
    )


def _mismatch(searcher: "HybridSearcher") -> str | None:
    """Why the encoders do not fit the collection; None if they do."""
    try:
        searcher.fuses  # noqa: B018 - it reads the schema, and raises
    except CollectionError as error:
        return str(error)
    return None


def _failure(error: Exception) -> "Finding":
    from qdrant_rerank.doctor import Finding

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
    Console().print(table)
    wrong = sum(finding.wrong for finding in findings)
    click.echo("Nothing is wrong." if not wrong else f"{wrong} wrong.")
