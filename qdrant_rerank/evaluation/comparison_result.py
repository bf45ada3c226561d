"""What a comparison of two configurations found, ready to be looked at. Pure.

The terminal table is made by :mod:`~qdrant_rerank.evaluation.comparison_table`, the HTML by
:mod:`~qdrant_rerank.evaluation.comparison_page`. The JSON of ``ComparisonResult.to_dict``::

    {"schema": 1, "first": NAME, "second": NAME, "limit", "candidates": [of first, of second],
     "summary": {"queries", "mean_overlap", "mean_rbo", "new_first_hits", "unchanged"},
     "queries": [{"query", "overlap", "rbo", "new_first_hit",
                  "hits": [{"id", "first_rank", "second_rank", "text"}]}]}

A rank is 1-based, and null for a hit that is not among a configuration's candidates.
"""

import math
import unicodedata
from dataclasses import dataclass
from typing import Any

__all__ = ["ComparedHit", "ComparedQuery", "ComparisonResult", "one_line", "shortened"]

BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class ComparedHit:
    """A hit that at least one of the two configurations returned.

    Attributes:
        id: of the point.
        text: its opening words on one line, controls left out; "" where it has none.
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
        query: the query, on one line, controls left out.
        first: the first configuration's hits, best first.
        second: the second's.
        overlap: share of hits that both return, 0 to 1; 1 where neither returns any.
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
        """Each hit once: the second configuration's, then those that only the first returns."""
        return self.second + tuple(hit for hit in self.first if hit not in self.second)


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """Two configurations on the same queries: what was found, and no rendering.

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
        """JSON-ready; the module's docstring has the schema."""
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

    def _move(self, hit: ComparedHit) -> float:
        beyond = max(self.candidates) + 1
        return abs(math.log((hit.first_rank or beyond) / (hit.second_rank or beyond)))


def one_line(text: str) -> str:
    """On one line, without what could drive a terminal, reorder its line or not be UTF-8."""
    kept = (" " if unicodedata.category(c) in {"Cc", "Cs"} else c for c in text)
    return " ".join("".join(c for c in kept if c not in BIDI_CONTROLS).split())


def shortened(text: str, length: int) -> str:
    """At most so many characters, with an ellipsis for the rest."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
