"""What a ``reranker=`` argument stands for: a name, a path, or an object of any package."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.reranking.adapters import PeerReranker, as_reranker
from qdrant_rerank.reranking.awaiting import AwaitedCascade
from qdrant_rerank.reranking.late_interaction import late_interaction_of
from qdrant_rerank.types import Reranker
from qdrant_rerank.utils.fork import ForkLock

__all__ = ["load_reranker"]

_loading = ForkLock()


def load_reranker(reranker: Any, *, awaits: bool = False, searches: bool = False) -> Any:
    """Load a reranker by its name or path; adapt an object of another package.

    A named model is loaded once per process and shared. An object with
    ``rerank(query, documents)`` is returned as it is.

    Args:
        reranker: see :func:`~qdrant_rerank.reranking.adapters.as_reranker`.
        awaits: whether the caller has an event loop, so that an async reranker will do.
        searches: whether the caller searches a collection, so that a ``LateInteraction`` will do.

    Raises:
        UnknownModelError: there is no model of that name, or no such path.
        ModelFileError: the files of the model are missing or damaged.
        InvalidInputError: the value gives no scores of documents for a query, or only to a caller
            that awaits it, or that searches.
    """
    if isinstance(reranker, str | Path):
        with _loading:  # otherwise two threads would both load the model
            return _shared(str(reranker))
    late = late_interaction_of(reranker)
    if late is not None and not searches:
        raise InvalidInputError(
            f"reranker is {reranker!r:.200}. {late!r} scores the vectors of a collection in the "
            "request of a search, so only HybridSearcher and AsyncHybridSearcher take it, alone or "
            "as the first stage of a Cascade."
        )
    found = reranker if late is not None else as_reranker(reranker)
    if isinstance(found, PeerReranker | AwaitedCascade) and found.asynchronous and not awaits:
        raise InvalidInputError(found.awaited_only())
    return found


@lru_cache(maxsize=4)
def _shared(name: str) -> Reranker:
    return TextCrossEncoder(name)
