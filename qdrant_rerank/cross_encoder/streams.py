"""Any number of pairs or documents, block by block: in bounded memory, with a progress bar."""

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

from qdrant_rerank.cross_encoder.document_states import DocumentStates
from qdrant_rerank.cross_encoder.scorer import PairScorer
from qdrant_rerank.cross_encoder.state_scorer import StateScorer
from qdrant_rerank.inference.batching import blocks_of
from qdrant_rerank.inference.cpu import available_cores
from qdrant_rerank.inference.threads import shared_pool
from qdrant_rerank.types import StatesPrecision
from qdrant_rerank.utils.progress import tqdm
from qdrant_rerank.utils.validation import require_pairs

__all__ = ["encoded_stream", "scored_stream"]

SHOW_AFTER_S = 1  # seconds after which the progress is shown


def scored_stream(
    load: Callable[[], PairScorer],
    pairs: Iterable[tuple[str, str]],
    batch_size: int | None,
    parallel: int | None,
    progress: bool | None,
) -> Iterator[float]:
    """Yield the score of each pair.

    Args:
        load: returns the model; called when the first pairs were read.
        pairs: (query, document) texts.
        batch_size: pairs per batch, at most; None to let the token budget decide.
        parallel: batches at the same time; 0 for one per core, None for the model's own number.
        progress: whether the bar is shown; None to show it if stderr is a terminal.

    Raises:
        InvalidInputError: a pair is not two texts.
        ModelOutputError: the model failed, or a score is not finite.
    """
    pool = None if parallel is None else shared_pool(parallel or available_cores())
    with _bar(pairs, "pair", progress) as bar:
        first = 0
        for block in blocks_of(_checked(pairs)):
            scores = load().score(block, batch_size, pool, first=first).scores
            first += len(block)
            bar.update(len(block))
            yield from scores.tolist()


def encoded_stream(
    scorer: StateScorer,
    documents: Iterable[str],
    precision: StatesPrecision,
    progress: bool | None,
) -> DocumentStates:
    """Return the states of documents.

    Args:
        scorer: makes them.
        documents: texts.
        precision: of the states.
        progress: as of :func:`scored_stream`.

    Raises:
        InvalidInputError: a document is no text.
        ModelOutputError: the model failed.
    """
    records: list[bytes] = []
    with _bar(documents, "document", progress) as bar:
        for block in blocks_of(_checked(("", document) for document in documents)):
            records += scorer.encode([document for _, document in block], precision)
            bar.update(len(block))
    return DocumentStates(records)


def _bar(source: Iterable[Any], unit: str, progress: bool | None) -> Any:
    return tqdm(
        total=len(source) if isinstance(source, Sized) else None,
        unit=unit,
        delay=SHOW_AFTER_S,
        disable=None if progress is None else not progress,
    )


def _checked(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for number, pair in enumerate(pairs):
        require_pairs([pair], number)
        yield pair
