"""``qdrant-rerank doctor``: collect what the checks look at, and print what they find."""

import importlib.metadata
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from rich.text import Text

from qdrant_rerank.cli.options import (
    NONE,
    Source,
    json_option,
    optional_source_options,
    reranker_option,
    text_source,
)
from qdrant_rerank.cli.output import print_json, print_table, say
from qdrant_rerank.cli.searchers import asking, client_for, given_place, searcher_for
from qdrant_rerank.errors import (
    CollectionError,
    InvalidInputError,
    MissingDependencyError,
    ModelError,
    QdrantError,
)
from qdrant_rerank.utils.rendering import Column, Table

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from qdrant_rerank.cli.doctor_finding import Finding
    from qdrant_rerank.payload import TextChoice
    from qdrant_rerank.search.searcher import HybridSearcher

__all__ = ["doctor"]

#: Query that the sampled texts are read with, to see which of them fit the model's max length.
QUERY = "a question of usual length about it"


@click.command()
@optional_source_options
@reranker_option("a path, or 'none'")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    help="Payload field that your searches filter by. Repeatable.",
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
    source: Source, reranker: str, filters: tuple[str, ...], sample: int, as_json: bool
) -> None:
    """Find what is wrong, and how to fix it.

    Looks at onnxruntime, the GPUs and the Qdrant that is given or that QDRANT_URL or QDRANT_PATH
    names. With --collection it looks at the collection and the model too.

    Exit code 1 if something is wrong, 2 on bad input.
    """
    from qdrant_rerank.payload import TextChoice, require_path

    for name in filters:
        require_path("--filter", name)
    findings: list[Finding] = []
    try:
        # What was found before a failure stays.
        findings.extend(_environment())
        findings.extend(_installed())
        if source.collection:
            with searcher_for(source) as searcher:
                findings.extend(_server(searcher.client))
                choice = TextChoice(text_source(source.text))
                findings.extend(_examine(searcher, choice, reranker, filters, sample))
        else:
            findings.extend(_place(*given_place(source.url, source.path)))
    except InvalidInputError:
        raise
    except (QdrantError, CollectionError, ModelError, MissingDependencyError) as error:
        findings.append(_failure(error))
    _say(findings, as_json=as_json)


def _say(findings: "Sequence[Finding]", *, as_json: bool) -> NoReturn:
    wrong = sum(finding.wrong for finding in findings)
    if as_json:
        # "mend" is the old name of "fix".
        print_json(
            [{**asdict(finding), "mend": finding.fix, "page": finding.page} for finding in findings]
        )
    else:
        print_table(Table(COLUMNS, [_row(finding) for finding in findings]))
        for page in dict.fromkeys(finding.page for finding in findings if finding.wrong):
            say(f"See {page}")
        say(f"{wrong} wrong." if wrong else "Nothing is wrong.")
    raise SystemExit(1 if wrong else 0)


COLUMNS = (Column("", "name"), Column("about", "name"), Column("seen"), Column("fix"))


def _row(finding: "Finding") -> tuple[Text | str, ...]:
    if finding.wrong:
        mark = Text("wrong", style="bold red")
    else:
        mark = Text("note", style="yellow") if finding.fix else Text("ok", style="green")
    return mark, finding.about, finding.seen, finding.fix


def _environment() -> "Iterator[Finding]":
    """Look at what the package needs of the user's account: a home, and a place to write to."""
    from qdrant_rerank.cli.doctor_machine import check_environment

    try:
        Path.home()
        has_home = True
    except RuntimeError:
        has_home = any(map(os.environ.get, ("QDRANT_RERANK_CACHE", "HF_HOME", "HF_HUB_CACHE")))
    try:
        temporary: str | None = tempfile.gettempdir()
    except OSError:
        temporary = None
    yield from check_environment(has_home=has_home, temporary=temporary)


def _installed() -> "Iterator[Finding]":
    """Look at the packages, and the GPUs that onnxruntime finds."""
    from qdrant_rerank.cli.doctor_machine import check_gpus, check_packages
    from qdrant_rerank.inference.gpu.devices import cuda_report
    from qdrant_rerank.inference.sessions import import_onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about two wheels, which is a finding
        ort = import_onnxruntime()
    yield from check_packages(
        str(found.metadata["Name"]).lower() for found in importlib.metadata.distributions()
    )
    yield from check_gpus(cuda_report(ort))


def _place(url: str | None, path: str | None) -> "Iterator[Finding]":
    """Look at a Qdrant without a collection to examine, if there is one."""
    from qdrant_rerank.cli.doctor_finding import Finding
    from qdrant_rerank.cli.doctor_server import list_collections
    from qdrant_rerank.qdrant.embedded.choice import holds_collections
    from qdrant_rerank.qdrant.embedded.directory import require_ours
    from qdrant_rerank.qdrant.embedded.places import at

    if path is not None and not holds_collections(path):
        try:
            require_ours(at(path))
        except QdrantError as error:
            yield Finding("server", True, str(error))
        else:
            fix = "'qdrant-rerank index' creates one."
            yield Finding("server", False, f"There is no Qdrant at {path} yet.", fix)
    elif url is not None or path is not None:
        with client_for(url, path) as client:
            yield from _server(client)
            listed = asking(client)(lambda asked: asked.get_collections()).collections
            yield list_collections([one.name for one in listed])


def _server(client: "QdrantClient") -> "Iterator[Finding]":
    """Look at the server, or the engine in this process."""
    from qdrant_rerank.cli.doctor_finding import Finding
    from qdrant_rerank.cli.doctor_server import check_versions
    from qdrant_rerank.qdrant.embedded.choice import engine_name
    from qdrant_rerank.qdrant.transport.client import is_local

    if is_local(client):
        yield Finding("server", False, f"Embedded: {engine_name(client)}.")
    else:
        version = asking(client)(lambda asked: asked.info()).version
        yield from check_versions(version, importlib.metadata.version("qdrant-client"))


def _examine(
    searcher: "HybridSearcher",
    choice: "TextChoice",
    reranker: str,
    filters: Sequence[str],
    sample: int,
) -> "Iterator[Finding]":
    """Look at a collection, a sample of its points, and the model."""
    from qdrant_rerank.cli import doctor_server as checks
    from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
    from qdrant_rerank.qdrant.lookups import hidden
    from qdrant_rerank.qdrant.schema import STATES_FIELD, CollectionSchema
    from qdrant_rerank.qdrant.stored_states import stored_record
    from qdrant_rerank.qdrant.text_source import settle_by_record
    from qdrant_rerank.qdrant.transport.client import is_local

    client, name = searcher.client, searcher.collection
    ask = asking(client, name)
    embedded = is_local(client)
    info = ask(lambda asked: asked.get_collection(name))
    yield from checks.check_collection(info, embedded=embedded)
    schema = CollectionSchema.from_info(name, info)
    yield from checks.check_schema(schema, _mismatch(searcher))
    strict = info.config.strict_mode_config
    yield from checks.check_strict_mode(strict, searcher.candidates, filters, schema)
    if strict is not None and strict.enabled:
        sample = min(sample, strict.max_query_limit or sample)
    shown = True if schema.states is None else hidden(True)
    records, _ = ask(lambda asked: asked.scroll(name, limit=sample, with_payload=shown))
    payloads = [record.payload for record in records]
    settle_by_record(choice, schema)
    yield from checks.check_texts(payloads, choice)
    texts = [text for text in map(choice.text, payloads) if text]
    yield from checks.check_average_length(schema, searcher.sparse, texts)
    indexes = not embedded or getattr(client, "concurrent", False)
    yield from checks.check_filters(filters, schema, payloads, indexes=indexes)
    if reranker == NONE:
        return
    yield from _model(reranker, texts)
    if schema.states is not None:
        read = {
            record.id: text
            for record, text in zip(records, map(choice.text, payloads), strict=True)
            if text
        }
        found = ask(lambda asked: asked.retrieve(name, list(read), with_payload=[STATES_FIELD]))
        stored = {record.id: stored_record(record.payload) for record in found}
        yield from checks.check_states(
            schema,
            TextCrossEncoder(reranker, lazy_load=True).states_models,
            list(read.values()),
            [stored.get(point_id) for point_id in read],
        )


def _model(reranker: str, texts: Sequence[str]) -> "Iterator[Finding]":
    from qdrant_rerank.cli.doctor_model import check_model
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
    """Return why the encoders do not fit the collection; None if they do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sparse vectors, which is a finding
            searcher.is_hybrid()  # reads the schema, and raises
    except CollectionError as error:
        return str(error)
    return None


def _failure(error: Exception) -> "Finding":
    from qdrant_rerank.cli.doctor_finding import Finding, Kind
    from qdrant_rerank.cli.doctor_server import key_finding

    # The client's own exception has the status of the answer.
    if isinstance(error, QdrantError) and getattr(error.__cause__, "status_code", 0) in {401, 403}:
        return key_finding(error, os.environ)
    about: Kind = "collection"
    if isinstance(error, QdrantError):
        about = "server"
    elif isinstance(error, ModelError | MissingDependencyError):
        about = "model"
    # An error says first what was seen, then what to do.
    told = getattr(error, "command_message", "") or str(error)
    seen, end, fix = told.partition(". ")
    return Finding(about, True, seen + end.rstrip(), fix)
