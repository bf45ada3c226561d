"""Texts of wanted lengths, made of seeded random words."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from tokenizers import Tokenizer

__all__ = ["SHAPES", "Request", "Workload", "pair_lengths", "read_words", "write_requests"]

# A query and its documents.
Request = tuple[str, list[str]]

QUERY_WORDS = 8
SPECIAL_TOKENS = 3  # [CLS] query [SEP] document [SEP]
WINDOW = 511  # of 512: the bundled model's template has one special token more
# 5th and 95th percentile of tokens a pair: log-normal, mean 182; the others are uniform.
MIXED = (40, 470)
UNIFORM = {"short": (20, 60), "long": (300, 512)}
SHAPES = ("mixed", *UNIFORM)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is scored in one turn.

    Attributes:
        shape: how long the pairs are, one of ``SHAPES``.
        candidates: documents a query.
        queries: requests.
        pooled: whether all requests are given in one call, where a contender has such a call.
        callers: threads that send the requests.
    """

    shape: str
    candidates: int
    queries: int = 1
    pooled: bool = False
    callers: int = 1

    def __str__(self) -> str:
        queries = f"{self.queries}x" if self.queries > 1 else ""
        pooled = " pooled" if self.pooled else ""
        callers = f" {self.callers} callers" if self.callers > 1 else ""
        return f"{self.shape} {queries}{self.candidates}{pooled}{callers}"


def pair_lengths(shape: str, count: int) -> list[int]:
    """Tokens of each of ``count`` pairs, special tokens included, shuffled, the same each time.

    Evenly spaced quantiles of the distribution, so that any number of pairs has its percentiles.
    """
    quantiles = [(row + 0.5) / count for row in range(count)]
    if shape == "mixed":
        low, high = (math.log(tokens) for tokens in MIXED)
        spread = (high - low) / 2 / NormalDist().inv_cdf(0.95)
        normal = NormalDist((low + high) / 2, spread)
        lengths = [round(math.exp(normal.inv_cdf(quantile))) for quantile in quantiles]
    else:
        shortest, longest = UNIFORM[shape]
        lengths = [round(shortest + quantile * (longest - shortest)) for quantile in quantiles]
    least = QUERY_WORDS + SPECIAL_TOKENS + 1
    lengths = [min(max(length, least), WINDOW) for length in lengths]
    random.Random(0).shuffle(lengths)
    return lengths


def read_words(tokenizer: Path) -> list[str]:
    """Words that the WordPiece tokenizer keeps whole, so that a word is a token."""
    vocabulary = Tokenizer.from_file(str(tokenizer)).get_vocab()
    return sorted(
        word
        for word in vocabulary
        if len(word) > 2 and word.isascii() and word.isalpha() and word.islower()
    )


def write_requests(
    workload: Workload, words: Sequence[str], seed: int, path: Path, documents: int | None = None
) -> None:
    """Write the requests of one round, and the lengths of their pairs, for a worker to read.

    Args:
        workload: how many and how long.
        words: see :func:`read_words`.
        seed: which round; another one has other words of the same lengths.
        path: JSON file.
        documents: only the first so many of each request.
    """
    rng = random.Random(seed)
    lengths = pair_lengths(workload.shape, workload.candidates)[:documents]
    requests = [
        (
            " ".join(rng.choices(words, k=QUERY_WORDS)),
            [
                " ".join(rng.choices(words, k=length - QUERY_WORDS - SPECIAL_TOKENS))
                for length in lengths
            ],
        )
        for _ in range(workload.queries)
    ]
    content = {
        "requests": requests,
        "lengths": lengths * workload.queries,
        "pooled": workload.pooled,
        "callers": workload.callers,
    }
    path.write_text(json.dumps(content))
