"""How similar two rankings are, without judgments. Pure."""

from collections.abc import Hashable, Sequence

__all__ = ["overlap", "rank_biased_overlap"]

# The first 10 ranks have 86 % of the weight (Webber, Moffat & Zobel 2010, section 4.4).
PERSISTENCE = 0.9


def overlap(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Return the share of the longer list's ids that are in both, 0 to 1; 1 if both are empty."""
    longer = max(len(first), len(second))
    return len(set(first) & set(second)) / longer if longer else 1.0


def rank_biased_overlap(
    first: Sequence[Hashable], second: Sequence[Hashable], persistence: float = PERSISTENCE
) -> float:
    """Compute how similar two rankings are: 1 if equal, 0 if disjoint; the top counts most.

    This is the expected overlap for a reader who goes on to the next rank with a probability of
    ``persistence``. Below their ends, the lists are assumed to agree as they do at their ends. The
    form for lists of different lengths: Webber, Moffat & Zobel, "A similarity measure for
    indefinite rankings", ACM TOIS 28(4), 2010, equation 32.

    Args:
        first: distinct ids, best first.
        second: distinct ids, best first.
        persistence: above 0 and below 1; higher looks deeper.
    """
    short, long = sorted((first, second), key=len)
    if not short:
        return 0.0 if long else 1.0
    s, l, p = len(short), len(long), persistence  # noqa: E741 - the paper's letters
    seen: tuple[set[Hashable], set[Hashable]] = (set(), set())
    shared = []  # X_d: ids in both lists down to rank d
    for d in range(l):
        for ids, ranking in zip(seen, (short, long), strict=True):
            ids.update(ranking[d : d + 1])
        shared.append(len(seen[0] & seen[1]))
    at_s, at_l = shared[s - 1], shared[l - 1]
    agreed = sum(x / d * p**d for d, x in enumerate(shared, start=1))
    assumed = sum(at_s * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
    rest = ((at_l - at_s) / l + at_s / s) * p**l
    # Rounding may leave equal lists slightly off 1.
    return min(1.0, round((1 - p) / p * (agreed + assumed) + rest, 12))
