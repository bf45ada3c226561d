"""What eval and tune measure: their options, the files read and checked, the searchers made."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import click

from qdrant_rerank.cli.shared import NONE, counted, qdrant_place, searcher_for, text_source
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER

if TYPE_CHECKING:
    from qdrant_rerank.evaluation.trec import Qrels, Run
    from qdrant_rerank.search.searcher import HybridSearcher

__all__ = ["Data", "Given", "data_options", "read_data", "searchers_for"]

#: The name of a collection that is indexed in memory for the length of a command.
IN_MEMORY = "corpus"
#: Where the text of a BEIR document is.
BEIR_TEXT = ("title", "text")

DATA_OPTIONS = (
    click.option("--corpus", help="A BEIR folder, or the corpus.jsonl[.gz] of one."),
    click.option("--queries", "queries_file", help="queries.jsonl[.gz]; the folder's by default."),
    click.option(
        "--qrels", "qrels_file", help="Judgments, TSV or TREC; else the folder's qrels[/test].tsv."
    ),
    click.option(
        "--partial-corpus",
        is_flag=True,
        help="The qrels may name documents that the corpus lacks: relevant ones count as missed.",
    ),
    click.option("--limit-queries", type=click.IntRange(min=1), help="Only the first so many."),
    click.option("--collection", help="Search this collection instead of indexing the corpus."),
    click.option("--url", help="Qdrant server of the collection; else QDRANT_URL."),
    click.option("--path", help="Directory of an embedded Qdrant with it; else QDRANT_PATH."),
    click.option(
        "--text",
        multiple=True,
        default=BEIR_TEXT,
        show_default=True,
        help="Payload fields with the text, or a template; of the collection.",
    ),
    click.option(
        "--id-field",
        default="_id",
        show_default=True,
        help="Payload field with the id that the qrels use; a point without it goes by its own.",
    ),
    click.option("--embedder", default=DEFAULT_EMBEDDER, show_default=True, help="Dense encoder."),
    click.option("--out", type=click.Path(file_okay=False), help="Folder for JSON, runs, picture."),
    click.option("--seed", default=0, show_default=True, help="Of everything that is drawn."),
)


@dataclass(frozen=True, slots=True)
class Given:
    """What DATA_OPTIONS were given."""

    corpus: str | None
    queries_file: str | None
    qrels_file: str | None
    partial_corpus: bool
    limit_queries: int | None
    collection: str | None
    url: str | None
    path: str | None
    text: tuple[str, ...]
    id_field: str
    embedder: str
    out: str | None
    seed: int


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say what is measured, handed to the command as ``given``."""

    @wraps(command)
    def with_given(**options: Any) -> None:
        given = Given(**{field.name: options.pop(field.name) for field in fields(Given)})
        if given.out is not None:
            require_folder(Path(given.out))
        command(given=given, **options)

    wrapped: Callable[..., None] = with_given
    for option in reversed(DATA_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


@dataclass(frozen=True, slots=True)
class Data:
    """Queries, judgments and candidates, read and checked against each other.

    Attributes:
        corpus: the corpus file; None where a collection is searched.
        queries: texts by id.
        qrels: grades.
        run: candidates; None where they are searched for.
        files: what was read, recorded in the JSON.
    """

    corpus: Path | None
    queries: dict[str, str]
    qrels: "Qrels"
    run: "Run | None"
    files: dict[str, str | None]


def read_data(given: Given, run_file: str | None) -> Data:
    """Read everything but the documents' texts, and check it, before any work is done.

    Raises:
        InvalidInputError: a file is missing, wrong, or does not fit another.
    """
    from qdrant_rerank.evaluation.corpus import find_beir, iter_corpus, read_queries
    from qdrant_rerank.evaluation.trec import (
        read_qrels,
        read_run,
        require_overlap,
        require_trec_ids,
    )

    if given.corpus is None and given.collection is None:
        raise InvalidInputError(
            "There is nothing to search: pass --corpus with a BEIR folder or a corpus.jsonl, or "
            "--collection."
        )
    if run_file is not None and (given.corpus is None or given.collection is not None):
        raise InvalidInputError(
            "--run brings the candidates, so it goes with --corpus, which has their texts, and "
            "not with --collection."
        )
    if given.collection is not None:
        qdrant_place(given.url, given.path)
    beir = None if given.corpus is None else find_beir(given.corpus)
    queries_path = _required(
        given.queries_file or (beir.queries if beir else None), "--queries", given
    )
    qrels_path = _required(given.qrels_file or (beir.qrels if beir else None), "--qrels", given)
    queries = read_queries(queries_path)
    documents = None
    if beir is not None and given.collection is None:
        documents = {document.id for document in iter_corpus(beir.corpus)}
    run = None if run_file is None else read_run(run_file, queries=queries, documents=documents)
    try:
        qrels = read_qrels(
            qrels_path, queries=queries, documents=None if given.partial_corpus else documents
        )
    except InvalidInputError as error:
        if "in the corpus" in str(error):
            error.add_note("If the corpus is a part of the judged one, pass --partial-corpus.")
        raise
    if run is None:
        require_overlap(queries, qrels, found_in=queries_path, qrels_in=qrels_path)
    else:
        require_overlap(run, qrels, found_in=str(run_file), qrels_in=qrels_path)
    judged = [query for query in queries if query in qrels][: given.limit_queries]
    if given.limit_queries is not None:
        queries = {query: queries[query] for query in judged}
    if given.out is not None:
        require_trec_ids({**dict.fromkeys(judged, ()), "documents": documents or ()})
    return Data(
        beir.corpus if beir else None,
        queries,
        qrels,
        run,
        {
            "corpus": given.corpus,
            "collection": given.collection,
            "queries_file": str(queries_path),
            "qrels_file": str(qrels_path),
            "run_file": run_file,
        },
    )


def _required(path: str | Path | None, option: str, given: Given) -> str | Path:
    if path is None:
        raise InvalidInputError(
            f"{option} is missing, and {given.corpus or 'a collection'} brings none. Pass "
            f"{option} FILE."
        )
    return path


@contextmanager
def searchers_for(
    given: Given, data: Data, rerankers: Mapping[str, str | None]
) -> "Iterator[dict[str, HybridSearcher]]":
    """A searcher a reranker, all of one collection; the client is closed afterwards.

    Rerankers are loaded first: a wrong name costs no indexing.
    """
    from qdrant_rerank.evaluation.compare import with_reranker
    from qdrant_rerank.qdrant.embedded.choice import embedded_client
    from qdrant_rerank.reranking.scoring import load_reranker
    from qdrant_rerank.search.searcher import HybridSearcher

    loaded = {name: None if r is None else load_reranker(r) for name, r in rerankers.items()}
    if given.collection is not None:
        with searcher_for(
            given.collection, given.url, given.path, given.text, given.embedder, None
        ) as searcher:
            yield {name: with_reranker(searcher, reranker) for name, reranker in loaded.items()}
        return
    assert data.corpus is not None  # read_data asks for one of the two
    with closing(embedded_client(None)) as client:
        searcher = HybridSearcher(
            IN_MEMORY,
            client=client,
            text=text_source(given.text),
            embedder=None if given.embedder == NONE else given.embedder,
            reranker=None,
        )
        index_corpus(searcher, data.corpus)
        yield {name: with_reranker(searcher, reranker) for name, reranker in loaded.items()}


def index_corpus(searcher: "HybridSearcher", corpus: Path) -> None:
    """Add the documents of a corpus; those without text cannot be found and are counted."""
    from qdrant_client.models import PointStruct

    from qdrant_rerank.evaluation.corpus import iter_corpus

    empty = 0

    def points() -> Iterator[PointStruct]:
        nonlocal empty
        for row, document in enumerate(iter_corpus(corpus)):
            if not document.content:
                empty += 1
                continue
            payload = {"_id": document.id, "title": document.title, "text": document.text}
            # Not the id of the text: two documents may have the same one.
            yield PointStruct(id=row, vector={}, payload=payload)

    searcher.add(points())
    if empty:
        click.echo(f"Without text, and so not indexed: {counted(empty, 'document')}.", err=True)


def require_folder(folder: Path) -> None:
    """Raise InvalidInputError, before any work, for a folder that cannot be written."""
    from qdrant_rerank.evaluation.plots import require_matplotlib

    require_matplotlib()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidInputError(f"{folder} cannot be written: {error.strerror}.") from error
