"""The result of a comparison of two configurations. Pure.

:mod:`~qdrant_rerank.evaluation.comparison_table` makes the tables for a terminal, and
:mod:`~qdrant_rerank.evaluation.comparison_page` the HTML. ``ComparisonResult.to_dict`` returns::

    {"schema": 1, "first": NAME, "second": NAME, "limit", "candidates": [of first, of second],
     "summary": {"queries", "mean_overlap", "mean_rbo", "new_first_hits", "unchanged"},
     "queries": [{"query", "overlap", "rbo", "new_first_hit",
                  "hits": [{"id", "text", "first_rank", "second_rank"}]}]}

A rank is 1-based, and null for a hit that is not among a configuration's candidates.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ComparedHit", "ComparedQuery", "ComparisonResult"]


@dataclass(frozen=True, slots=True)
class ComparedHit:
    """A hit that at least one of the two configurations returned.

    Attributes:
        id: the point's id.
        text: its opening words on one line, without control characters; "" if it has no text.
        first_rank: 1-based rank in the first configuration's order, which may be below the hits
            that it returns; None if the hit is not among its candidates.
        second_rank: the same in the second configuration's order.
    """

    id: int | str
    text: str
    first_rank: int | None
    second_rank: int | None

    @property
    def rise(self) -> int | None:
        """Ranks that it rose from first to second, negative if it fell; None if one is unknown."""
        if self.first_rank is None or self.second_rank is None:
            return None
        return self.first_rank - self.second_rank

    @property
    def shown(self) -> str:
        """The opening words, or the id if there are none."""
        return self.text or f"{self.id} (no text)"


@dataclass(frozen=True, slots=True)
class ComparedQuery:
    """The hits of two configurations for a query.

    Attributes:
        query: the query, on one line, without control characters.
        first: the first configuration's hits, best first.
        second: the second configuration's hits, best first.
        overlap: share of hits that both return, 0 to 1; 1 if neither returns any.
        rbo: rank-biased overlap, 0 to 1, see
            :func:`~qdrant_rerank.evaluation.overlap.rank_biased_overlap`.
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
        """Each hit once: those of the second configuration, then those that only the first has."""
        return self.second + tuple(hit for hit in self.first if hit not in self.second)


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """Two configurations on the same queries, without any rendering.

    Attributes:
        names: names of the first and the second configuration.
        limit: hits that each returns.
        candidates: hits that each retrieves; ranks are known down to there.
        queries: the queries, in the order given.
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
        """Return the queries, the most changed (with the lowest rank-biased overlap) first."""
        return sorted(self.queries, key=lambda query: query.rbo)

    def biggest_moves(self, count: int = 10) -> list[tuple[ComparedQuery, ComparedHit]]:
        """Return the hit that moved furthest in each query, the furthest first.

        The size of a move is the ratio of its two ranks: from 30 to 1 is more than from 50 to 10,
        and from 2 to 1 is as much as from 20 to 10. A hit that is not among the candidates of a
        configuration counts as the next one after them.
        """
        furthest = [
            (query, max(query.hits, key=self._move)) for query in self.queries if query.hits
        ]
        moved = [(query, hit) for query, hit in furthest if self._move(hit) > 0]
        return sorted(moved, key=lambda found: -self._move(found[1]))[:count]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; the module's docstring has the schema."""
        return {
            "schema": 1,
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
                    "hits": [asdict(hit) for hit in query.hits],
                }
                for query in self.queries
            ],
        }

    def _move(self, hit: ComparedHit) -> float:
        beyond = max(self.candidates) + 1
        return abs(math.log((hit.first_rank or beyond) / (hit.second_rank or beyond)))
