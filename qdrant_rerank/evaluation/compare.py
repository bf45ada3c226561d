"""Two configurations side by side on queries without judgments: what changes, and how much.

Nothing here says which order is better; it says where to look. The terminal table is made by
:mod:`~qdrant_rerank.evaluation.compare_table`, the HTML page by
:mod:`~qdrant_rerank.evaluation.compare_page`.
"""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from qdrant_rerank.arguments import require_positive, require_query
from qdrant_rerank.embedders import Bm25Encoder
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.reranking import load_reranker, rerank_points
from qdrant_rerank.searcher import HybridSearcher
from qdrant_rerank.types import RerankedPoint, Reranker

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["ComparedHit", "ComparedQuery", "Comparison", "compare", "with_reranker"]

# The first 10 ranks have 86 % of the weight (Webber, Moffat & Zobel 2010, section 4.4).
PERSISTENCE = 0.9
OPENING = 300  # characters of a hit's text kept


@dataclass(frozen=True, slots=True)
class ComparedHit:
    """A hit that at least one of the two configurations returned.

    Attributes:
        id: of the point.
        text: its opening words on one line, control characters left out; "" where it has none.
        first_rank: 1-based place in the first configuration's order, which may be below what it
            returns; None if it is not among its candidates.
        second_rank: the same in the second's.
    """

    id: int | str
    text: str
    first_rank: int | None
    second_rank: int | None

    @property
    def rise(self) -> int | None:
        """Places it came up from first to second, negative if it fell; None if one is unknown."""
        if self.first_rank is None or self.second_rank is None:
            return None
        return self.first_rank - self.second_rank


@dataclass(frozen=True, slots=True)
class ComparedQuery:
    """What two configurations return for a query.

    Attributes:
        query: the query, on one line, control characters left out.
        first: the first configuration's hits, best first.
        second: the second's.
        overlap: share of hits that both return, 0 to 1; 1 where neither returns any.
        rbo: rank-biased overlap, 0 to 1, see :func:`rank_biased_overlap`.
    """

    query: str
    first: tuple[ComparedHit, ...]
    second: tuple[ComparedHit, ...]
    overlap: float
    rbo: float

    @property
    def new_first_hit(self) -> bool:
        """Whether another hit comes first."""
        return [hit.id for hit in self.first[:1]] != [hit.id for hit in self.second[:1]]

    @property
    def same(self) -> bool:
        """Whether the same hits come in the same order."""
        return self.first == self.second

    @property
    def hits(self) -> tuple[ComparedHit, ...]:
        """Each hit once: the second configuration's, then those that only the first returns."""
        return self.second + tuple(hit for hit in self.first if hit not in self.second)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two configurations on the same queries. Prints as a table in rich and in notebooks.

    Attributes:
        names: of the first and the second configuration.
        limit: hits that each returns.
        candidates: hits that each recalls; ranks are known down to there.
        queries: in the order given.
    """

    names: tuple[str, str]
    limit: int
    candidates: tuple[int, int]
    queries: tuple[ComparedQuery, ...]

    @property
    def mean_overlap(self) -> float:
        """Mean share of hits that both return, 0 to 1."""
        return math.fsum(query.overlap for query in self.queries) / len(self.queries)

    @property
    def mean_rbo(self) -> float:
        """Mean rank-biased overlap, 0 to 1."""
        return math.fsum(query.rbo for query in self.queries) / len(self.queries)

    @property
    def new_first_hits(self) -> int:
        """Queries whose first hit is another."""
        return sum(query.new_first_hit for query in self.queries)

    @property
    def unchanged(self) -> int:
        """Queries with the same hits in the same order."""
        return sum(query.same for query in self.queries)

    def by_change(self) -> list[ComparedQuery]:
        """The queries, those that changed most (the lowest rank-biased overlap) first."""
        return sorted(self.queries, key=lambda query: query.rbo)

    def biggest_moves(self, count: int = 10) -> list[tuple[ComparedQuery, ComparedHit]]:
        """The hit of each query that moved furthest, the furthest first.

        A move is as big as the ratio of its two ranks: from 30 to 1 is more than from 50 to 10,
        and from 2 to 1 as much as from 20 to 10. A hit that is not among one side's candidates
        counts as the next after them.
        """
        furthest = [
            (query, max(query.hits, key=self._move)) for query in self.queries if query.hits
        ]
        moved = [(query, hit) for query, hit in furthest if self._move(hit) > 0]
        return sorted(moved, key=lambda found: -self._move(found[1]))[:count]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: a summary, and each query with its hits; in the order given."""
        return {
            "first": self.names[0],
            "second": self.names[1],
            "limit": self.limit,
            "candidates": list(self.candidates),
            "summary": {
                "queries": len(self.queries),
                "mean_overlap": self.mean_overlap,
                "mean_rbo": self.mean_rbo,
                "new_first_hits": self.new_first_hits,
                "unchanged": self.unchanged,
            },
            "queries": [
                {
                    "query": query.query,
                    "overlap": query.overlap,
                    "rbo": query.rbo,
                    "new_first_hit": query.new_first_hit,
                    "hits": [
                        {
                            "id": hit.id,
                            "first_rank": hit.first_rank,
                            "second_rank": hit.second_rank,
                            "text": hit.text,
                        }
                        for hit in query.hits
                    ],
                }
                for query in self.queries
            ],
        }

    def save_html(self, path: str | Path) -> Path:
        """Write one self-contained page, whole or not at all.

        Returns:
            The path.

        Raises:
            InvalidInputError: nothing can be written there.
        """
        from qdrant_rerank.evaluation.compare_page import page

        return write_whole(Path(path), page(self))

    def __rich__(self) -> "Group":
        from qdrant_rerank.evaluation.compare_table import tables

        return tables(self)

    def _repr_html_(self) -> str:
        """The summary and the queries that changed most, for notebooks; all text is escaped."""
        from qdrant_rerank.evaluation.compare_page import excerpt

        return excerpt(self)

    def _move(self, hit: ComparedHit) -> float:
        beyond = max(self.candidates) + 1
        return abs(math.log((hit.first_rank or beyond) / (hit.second_rank or beyond)))


def compare(
    first: HybridSearcher,
    second: HybridSearcher,
    queries: Iterable[str] | Mapping[str, str],
    *,
    limit: int = 10,
    candidates: int | None = None,
    names: tuple[str, str] | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Ask two configurations the same queries and set their answers side by side.

    Where both recall alike (same client, collection, encoders, options and candidates), each
    query is recalled once and the second stages alone are compared.

    Args:
        first: usually what is in use now.
        second: what might replace it.
        queries: texts, or a mapping of ids to texts as ``read_queries`` returns it.
        limit: hits to compare a query.
        candidates: hits to recall, ``limit`` or more; None for each searcher's own.
        names: of the two, for tables; None for those of their rerankers.
        progress: a progress bar on stderr; None for one if stderr is a terminal.

    Raises:
        InvalidInputError: no queries, an empty one, or an argument out of range.
        QdrantRerankError: as :meth:`HybridSearcher.search`.

    Examples:
        >>> from qdrant_client import QdrantClient
        >>> searcher = HybridSearcher("docs", client=QdrantClient(":memory:"))
        >>> added = searcher.add(["Bread is baked.", "Iron melts at 1538 C.", "Iron is a metal."])
        >>> recall = with_reranker(searcher, None)
        >>> compared = compare(recall, searcher, ["melting point of iron"], limit=2)
        >>> compared.names
        ('recall order', 'grown-minilm-l6-v1')
        >>> compared.mean_overlap
        1.0
    """
    texts = _texts(queries)
    require_positive("limit", limit)
    require_positive("candidates", candidates)
    for role, searcher in (("first", first), ("second", second)):
        if not isinstance(searcher, HybridSearcher):
            raise InvalidInputError(
                f"{role} is a {type(searcher).__name__}; expected a HybridSearcher."
            )
    if candidates is not None and candidates < limit:
        raise InvalidInputError(
            f"candidates is {candidates} and limit {limit}; expected candidates of at least limit, "
            "since only candidates can be returned."
        )
    depths = tuple(candidates or max(searcher.candidates, limit) for searcher in (first, second))
    labels = _labels(first, second, names)
    recall = with_reranker(first, None) if _recall_alike(first, second) else None
    compared = []
    for text in tqdm(texts, unit="query", disable=None if progress is None else not progress):
        recalled = None
        if recall is not None and depths[0] == depths[1]:
            recalled = recall.search(text, depths[0], candidates=depths[0])
        orders = [
            _order(searcher, text, depth, recalled)
            for searcher, depth in zip((first, second), depths, strict=True)
        ]
        compared.append(_compared(text, orders, limit, (first, second)))
    return Comparison(labels, limit, (depths[0], depths[1]), tuple(compared))


def with_reranker(
    searcher: HybridSearcher, reranker: Reranker | str | Path | None
) -> HybridSearcher:
    """The same first stage under another second stage; the client is shared.

    Args:
        searcher: stays as it is, and stays the one to close.
        reranker: as in ``HybridSearcher``; None for the recall order.

    Raises:
        ModelError: the model cannot be found or loaded.
    """
    other = copy(searcher)
    other.reranker = None if reranker is None else load_reranker(reranker)
    return other


def overlap(first: Sequence[int | str], second: Sequence[int | str]) -> float:
    """Share of ids that are in both lists, 0 to 1, of the longer one; 1 if both are empty."""
    longer = max(len(first), len(second))
    return len(set(first) & set(second)) / longer if longer else 1.0


def rank_biased_overlap(
    first: Sequence[int | str], second: Sequence[int | str], persistence: float = PERSISTENCE
) -> float:
    """How alike two rankings are, the top counting most: 1 for equal ones, 0 for disjoint ones.

    The expected overlap seen by a reader who goes on to the next rank with a probability of
    ``persistence``; what lies below the lists is taken to agree as they do at their ends.
    Extrapolated form for lists that may differ in length: Webber, Moffat & Zobel, "A similarity
    measure for indefinite rankings", ACM TOIS 28(4), 2010, equation 32.

    Args:
        first: distinct ids, best first.
        second: likewise.
        persistence: above 0 and below 1; higher looks deeper.
    """
    short, long = sorted((first, second), key=len)
    if not short:
        return 0.0 if long else 1.0
    s, l, p = len(short), len(long), persistence  # noqa: E741 - the paper's letters
    seen: tuple[set[int | str], set[int | str]] = (set(), set())
    shared = []  # X_d: ids in both lists down to rank d
    for d in range(l):
        for ids, ranking in zip(seen, (short, long), strict=True):
            ids.update(ranking[d : d + 1])
        shared.append(len(seen[0] & seen[1]))
    at_s, at_l = shared[s - 1], shared[l - 1]
    agreed = sum(x / d * p**d for d, x in enumerate(shared, start=1))
    assumed = sum(at_s * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
    rest = ((at_l - at_s) / l + at_s / s) * p**l
    # Rounding may leave equal lists a hair off 1.
    return min(1.0, round((1 - p) / p * (agreed + assumed) + rest, 12))


def one_line(text: str) -> str:
    """On one line, without control characters, which could drive a terminal."""
    kept = (" " if unicodedata.category(c) in {"Cc", "Cs"} else c for c in text)
    return " ".join("".join(kept).split())


def shortened(text: str, length: int) -> str:
    """At most so many characters, with an ellipsis for the rest."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _order(
    searcher: HybridSearcher, query: str, depth: int, recalled: list[RerankedPoint] | None
) -> list[RerankedPoint]:
    """All candidates in the configuration's order."""
    if recalled is None:
        return searcher.search(query, depth, candidates=depth)
    if searcher.reranker is None:
        return recalled
    return rerank_points(
        query,
        recalled,
        reranker=searcher.reranker,
        text=searcher.text.source,
        on_missing_text=searcher.options.on_missing_text,
    )


def _compared(
    query: str,
    orders: Sequence[list[RerankedPoint]],
    limit: int,
    searchers: Sequence[HybridSearcher],
) -> ComparedQuery:
    ranks = [{point.id: at for at, point in enumerate(order, start=1)} for order in orders]
    hits = {}
    for point in (*orders[0][:limit], *orders[1][:limit]):
        text = next(filter(None, (searcher.text(point.payload) for searcher in searchers)), "")
        hits[point.id] = ComparedHit(
            id=point.id if isinstance(point.id, int) else str(point.id),
            text=shortened(one_line(text), OPENING),
            first_rank=ranks[0].get(point.id),
            second_rank=ranks[1].get(point.id),
        )
    first, second = ([point.id for point in order[:limit]] for order in orders)
    return ComparedQuery(
        query=one_line(query),
        first=tuple(hits[point_id] for point_id in first),
        second=tuple(hits[point_id] for point_id in second),
        overlap=overlap(first, second),
        rbo=rank_biased_overlap(first, second),
    )


def _texts(queries: Iterable[str] | Mapping[str, str]) -> list[str]:
    if isinstance(queries, str):
        raise InvalidInputError("queries is one str; expected several. Pass [query].")
    texts = list(queries.values() if isinstance(queries, Mapping) else queries)
    if not texts:
        raise InvalidInputError("There are no queries; expected one or more.")
    for at, text in enumerate(texts):
        try:
            require_query(text)
        except InvalidInputError as error:
            raise InvalidInputError(f"Query {at}: {error}") from None
    return texts


def _recall_alike(first: HybridSearcher, second: HybridSearcher) -> bool:
    """Whether both find the same candidates, given the same number of them."""
    # A query's BM25 vector does not depend on the encoder's parameters.
    sparse_alike = first.sparse is second.sparse or (
        isinstance(first.sparse, Bm25Encoder) and isinstance(second.sparse, Bm25Encoder)
    )
    return (
        first.client is second.client
        and first.collection == second.collection
        and first.embedder is second.embedder
        and sparse_alike
        and first.options == second.options
    )


def _labels(
    first: HybridSearcher, second: HybridSearcher, names: tuple[str, str] | None
) -> tuple[str, str]:
    if names is not None:
        if len(names) != 2 or not all(isinstance(name, str) and name.strip() for name in names):
            raise InvalidInputError(f"names is {names!r}; expected two names, one a searcher.")
        return one_line(names[0]), one_line(names[1])
    labels = _label(first.reranker), _label(second.reranker)
    if labels[0] == labels[1]:
        return f"{labels[0]} (first)", f"{labels[1]} (second)"
    return labels


def _label(reranker: Reranker | None) -> str:
    if reranker is None:
        return "recall order"
    return str(getattr(reranker, "model_name", type(reranker).__name__))
