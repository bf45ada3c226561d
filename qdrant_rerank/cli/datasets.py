"""The data that eval and tune measure on: their options, the files, the searchers, the results."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import click

from qdrant_rerank.cli.options import (
    AUTO,
    Source,
    as_one,
    language_option,
    model,
    text_source,
)
from qdrant_rerank.cli.output import console, counted, print_json, say
from qdrant_rerank.cli.searchers import qdrant_place, searcher_for
from qdrant_rerank.errors import InvalidInputError, UnknownDocumentError
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER

if TYPE_CHECKING:
    from qdrant_rerank.evaluation.evaluation_result import Evaluation
    from qdrant_rerank.evaluation.sets import EvaluatedSets
    from qdrant_rerank.evaluation.trec import Qrels, Run
    from qdrant_rerank.evaluation.tuning_result import Tuning
    from qdrant_rerank.search.searcher import HybridSearcher

__all__ = ["Data", "Given", "data_options", "read_data", "searchers_for", "show", "show_sets"]

#: Name of a collection that is indexed in memory while a command runs.
IN_MEMORY = "corpus"
#: Payload fields with the text of a BEIR document.
BEIR_TEXT = ("title", "text")

DATA_OPTIONS = (
    click.option(
        "--corpus",
        "corpora",
        multiple=True,
        help="A BEIR folder, or the corpus.jsonl[.gz] of one. Repeatable in eval.",
    ),
    click.option("--queries", "queries_file", help="queries.jsonl[.gz]; default: the folder's."),
    click.option(
        "--qrels",
        "qrels_file",
        help="Judgments, TSV or TREC; default: the folder's qrels.tsv or qrels/test.tsv.",
    ),
    click.option(
        "--partial-corpus",
        is_flag=True,
        help="The qrels may name documents that the corpus lacks: relevant ones count as missed.",
    ),
    click.option(
        "--ignore-identical-ids/--keep-identical-ids",
        default=True,
        show_default=True,
        help="Whether a hit with the query's own id does not count, as in BEIR.",
    ),
    click.option(
        "--limit-queries", type=click.IntRange(min=1), help="Use only the first so many queries."
    ),
    click.option("--collection", help="Search this collection instead of indexing the corpus."),
    click.option("--url", help="Server of the collection; else QDRANT_URL."),
    click.option("--path", help="Directory of an embedded Qdrant with it; else QDRANT_PATH."),
    click.option(
        "--text",
        multiple=True,
        default=(AUTO,),
        show_default="title and text of a corpus; found by itself in a collection",
        help="Payload field with the text, a template or a preset. Repeatable.",
    ),
    click.option(
        "--id-field",
        default="_id",
        show_default=True,
        help="Payload field with the id that the qrels use; without it, a point's own id counts.",
    ),
    click.option("--embedder", default=DEFAULT_EMBEDDER, show_default=True, help="Dense encoder."),
    language_option,
    click.option("--out", type=click.Path(file_okay=False), help="Folder for JSON, runs and plot."),
    click.option("--seed", default=0, show_default=True, help="Seed of all that is random."),
)


@dataclass(frozen=True, slots=True)
class Given:
    """The values of DATA_OPTIONS."""

    corpora: tuple[str, ...]
    queries_file: str | None
    qrels_file: str | None
    partial_corpus: bool
    ignore_identical_ids: bool
    limit_queries: int | None
    collection: str | None
    url: str | None
    path: str | None
    text: tuple[str, ...]
    id_field: str
    embedder: str
    language: str | None
    out: str | None
    seed: int

    @property
    def corpus(self) -> str | None:
        """The only corpus, if there is one.

        Raises:
            InvalidInputError: there are several.
        """
        if len(self.corpora) > 1:
            raise InvalidInputError(
                f"--corpus is given {len(self.corpora)} times; expected one here."
            )
        return self.corpora[0] if self.corpora else None

    @property
    def source(self) -> Source:
        """The collection to search; that of the corpus if none is named."""
        return Source(
            self.collection or IN_MEMORY,
            self.url,
            self.path,
            self.text,
            self.embedder,
            self.language,
        )


#: Adds DATA_OPTIONS to a command, which gets them as ``given``.
data_options = as_one(Given, "given", DATA_OPTIONS)


@dataclass(frozen=True, slots=True)
class Data:
    """Queries, judgments and candidates, read and checked against each other.

    Attributes:
        corpus: the corpus file; None if a collection is searched.
        queries: texts by id.
        qrels: grades.
        run: candidates; None if they are searched for.
        ranked: whether they are in an order of relevance.
        files: the files that were read, as the JSON records them.
    """

    corpus: Path | None
    queries: dict[str, str]
    qrels: "Qrels"
    run: "Run | None"
    ranked: bool
    files: dict[str, str | None]


def read_data(given: Given, run_file: str | None) -> Data:
    """Read and check everything but the documents' texts, before any work is done.

    Raises:
        InvalidInputError: a file is missing, wrong, or does not fit another.
    """
    from qdrant_rerank.evaluation.corpus import find_beir, iter_corpus, read_queries
    from qdrant_rerank.evaluation.trec import (
        is_ranked,
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
    if given.out is not None:
        require_folder(Path(given.out))
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
    except UnknownDocumentError as error:
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
        run_file is None or is_ranked(run_file),
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
    """Make a searcher per reranker, all of one collection; close their client afterwards.

    Rerankers are loaded first: a wrong name costs no indexing.
    """
    from qdrant_rerank.evaluation.compare import with_reranker
    from qdrant_rerank.reranking.loading import load_reranker

    loaded = {name: None if r is None else load_reranker(r) for name, r in rerankers.items()}
    collection = corpus_in_memory(given, data) if given.collection is None else None
    with collection or searcher_for(given.source) as searcher:
        yield {name: with_reranker(searcher, reranker) for name, reranker in loaded.items()}


@contextmanager
def corpus_in_memory(given: Given, data: Data) -> "Iterator[HybridSearcher]":
    """Index the corpus for a searcher without a reranker."""
    from qdrant_rerank.qdrant.embedded.choice import embedded_client
    from qdrant_rerank.search.searcher import HybridSearcher

    assert data.corpus is not None  # read_data requires one of the two
    with closing(embedded_client(None)) as client:
        searcher = HybridSearcher(
            IN_MEMORY,
            client=client,
            text=list(BEIR_TEXT) if given.text == (AUTO,) else text_source(given.text),
            embedder=model(given.embedder),
            reranker=None,
            language=given.language,
        )
        index_corpus(searcher, data.corpus)
        yield searcher


def index_corpus(searcher: "HybridSearcher", corpus: Path) -> None:
    """Add the documents of a corpus. Those without text are only counted: nothing finds them."""
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
            # Not the id made from the text: two documents may have the same text.
            yield PointStruct(id=row, vector={}, payload=payload)

    searcher.add(points())
    if empty:
        say(f"Without text, and so not indexed: {counted(empty, 'document')}.", err=True)


def show(found: "Evaluation | Tuning", given: Given, as_json: bool) -> None:
    """Print a result, and save it if that was asked for."""
    written = [] if given.out is None else found.save(given.out)
    if as_json:
        print_json(found.to_dict())
    else:
        console().print(found.table())
    for path in written:
        say(f"Wrote {path}", err=True)


def show_sets(found: "EvaluatedSets", as_json: bool) -> None:
    """Print evaluations of several sets, and how they compare."""
    if as_json:
        print_json(found.to_dict())
        return
    for name, evaluation in found.sets.items():
        say(f"\n{name}")
        console().print(evaluation.table())
    say("")
    console().print(found.table())


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
