"""The commands that measure: eval and tune."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from qdrant_rerank.cli_shared import (
    json_option,
    print_json,
    searcher_for,
    text_source,
)
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.models import DEFAULT_EMBEDDER, DEFAULT_RERANKER

if TYPE_CHECKING:
    from qdrant_rerank.evaluation.files import Qrels, Run
    from qdrant_rerank.evaluation.results import Evaluation
    from qdrant_rerank.evaluation.tuning import Tuning
    from qdrant_rerank.hub import Precision
    from qdrant_rerank.searcher import HybridSearcher
    from qdrant_rerank.types import Blend, Fusion

__all__ = ["COMMANDS"]

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


@click.command("eval")
@data_options
@click.option("--run", "run_file", help="Rerank these candidates, TREC or TSV; no Qdrant needed.")
@click.option(
    "--reranker",
    "rerankers",
    multiple=True,
    default=(DEFAULT_RERANKER,),
    show_default=True,
    help="A name from 'models', a path, or 'none'. May be repeated, to compare.",
)
@click.option(
    "--candidates", type=click.IntRange(min=1), default=100, show_default=True, help="To rerank."
)
@click.option(
    "--measure",
    "measures",
    multiple=True,
    default=("nDCG@10", "RR", "AP"),
    show_default=True,
    help="A name of ir-measures. May be repeated.",
)
@json_option
def evaluate_command(
    given: Given,
    run_file: str | None,
    rerankers: tuple[str, ...],
    candidates: int,
    measures: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure what reranking buys and costs, on judged queries.

    The --corpus is indexed in memory (BM25 and the static embedder, fused) and searched; with --run
    its candidates are reranked; with --collection that is searched.
    """
    from qdrant_rerank.evaluation.evaluate import evaluate, evaluate_run
    from qdrant_rerank.evaluation.files import read_corpus
    from qdrant_rerank.evaluation.measures import require_measures

    require_measures(measures)
    data = read_data(given, run_file)
    named = {name: None if name == "none" else name for name in dict.fromkeys(rerankers)}
    if data.run is not None and data.corpus is not None:
        wanted = {document for found in data.run.values() for document in found}
        evaluation = evaluate_run(
            data.run,
            read_corpus(data.corpus, only=wanted),
            data.queries,
            data.qrels,
            reranker=named,
            candidates=candidates,
            measures=measures,
            seed=given.seed,
        )
    else:
        with searchers_for(given, data, named) as searchers:
            evaluation = evaluate(
                searchers,
                data.queries,
                data.qrels,
                candidates=candidates,
                id_field=given.id_field,
                measures=measures,
                seed=given.seed,
            )
    show(replace(evaluation, arguments={**data.files, **evaluation.arguments}), given, as_json)


@click.command("tune")
@data_options
@click.option(
    "--reranker",
    "rerankers",
    multiple=True,
    default=(DEFAULT_RERANKER,),
    show_default=True,
    help="A name from 'models', or a path. May be repeated, as may the next four.",
)
@click.option("--precision", "precisions", multiple=True, default=("auto",), show_default=True)
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    multiple=True,
    default=(10, 20, 50, 100),
    show_default=True,
)
@click.option(
    "--blend",
    "blends",
    multiple=True,
    default=("0", "0.2", "0.5", "rrf"),
    show_default=True,
    help="The retrieval score's share, 0 to 1, or 'rrf'.",
)
@click.option(
    "--fusion",
    "fusions",
    type=click.Choice(["rrf", "dbsf"]),
    multiple=True,
    default=("rrf", "dbsf"),
    show_default=True,
)
@click.option("--measure", default="nDCG@10", show_default=True, help="A name of ir-measures.")
@click.option("--max-ms", type=float, help="Most milliseconds a query of what is chosen.")
@json_option
def tune_command(
    given: Given,
    rerankers: tuple[str, ...],
    precisions: "tuple[Precision, ...]",
    candidates: tuple[int, ...],
    blends: tuple[str, ...],
    fusions: "tuple[Fusion, ...]",
    measure: str,
    max_ms: float | None,
    as_json: bool,
) -> None:
    """Sweep depth, model, precision, blend and fusion on judged queries.

    Prints the Pareto front of quality against milliseconds, and the constructor call of the best.
    Each pair is scored once. Half of the queries choose, the other half reports.
    """
    from qdrant_rerank.evaluation.measures import require_measures
    from qdrant_rerank.evaluation.tune import tune

    require_measures([measure])
    data = read_data(given, None)
    with searchers_for(given, data, {"none": None}) as searchers:
        found = tune(
            searchers["none"],
            data.queries,
            data.qrels,
            rerankers=rerankers,
            precisions=precisions,
            candidates=candidates,
            blends=[_blend(value) for value in blends],
            fusions=fusions,
            measure=measure,
            max_ms=max_ms,
            id_field=given.id_field,
            seed=given.seed,
        )
    show(replace(found, arguments={**data.files, **found.arguments}), given, as_json)


def _blend(value: str) -> "Blend":
    try:
        return "rrf" if value == "rrf" else float(value)
    except ValueError as error:
        raise InvalidInputError(
            f"--blend is {value!r}; expected the retrieval score's share, 0 to 1, or 'rrf'."
        ) from error


def show(found: "Evaluation | Tuning", given: Given, as_json: bool) -> None:
    """Print it, and save it where that was asked for."""
    written = [] if given.out is None else found.save(given.out)
    if as_json:
        print_json(found.to_dict())
    else:
        Console().print(found.table())
    for path in written:
        click.echo(f"Wrote {path}", err=True)


def read_data(given: Given, run_file: str | None) -> Data:
    """Read everything but the documents' texts, and check it, before any work is done.

    Raises:
        InvalidInputError: a file is missing, wrong, or does not fit another.
    """
    from qdrant_rerank.evaluation.files import (
        find_beir,
        iter_corpus,
        read_qrels,
        read_queries,
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
    from qdrant_client import QdrantClient

    from qdrant_rerank.reranking import load_reranker
    from qdrant_rerank.searcher import HybridSearcher

    loaded = {name: None if r is None else load_reranker(r) for name, r in rerankers.items()}
    if given.collection is not None:
        with searcher_for(
            given.collection, given.url, given.path, given.text, given.embedder, None
        ) as searcher:
            yield {
                name: HybridSearcher(
                    given.collection,
                    client=searcher.client,
                    text=text_source(given.text),
                    embedder=searcher.embedder,
                    reranker=reranker,
                )
                for name, reranker in loaded.items()
            }
        return
    assert data.corpus is not None  # read_data asks for one of the two
    with closing(QdrantClient(location=":memory:")) as client:
        searchers = {
            name: HybridSearcher(
                IN_MEMORY,
                client=client,
                text=text_source(given.text),
                embedder=None if given.embedder == "none" else given.embedder,
                reranker=reranker,
            )
            for name, reranker in loaded.items()
        }
        index_corpus(next(iter(searchers.values())), data.corpus)
        yield searchers


def index_corpus(searcher: "HybridSearcher", corpus: Path) -> None:
    """Add the documents of a corpus; those without text cannot be found and are counted."""
    from qdrant_client.models import PointStruct

    from qdrant_rerank.evaluation.files import iter_corpus

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
        click.echo(f"{empty:,} documents have no text and were not indexed.", err=True)


def require_folder(folder: Path) -> None:
    """Raise InvalidInputError, before any work, for a folder that cannot be written."""
    from qdrant_rerank.evaluation.pictures import require_matplotlib

    require_matplotlib()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidInputError(f"{folder} cannot be written: {error.strerror}.") from error


COMMANDS: list[click.Command] = [evaluate_command, tune_command]
