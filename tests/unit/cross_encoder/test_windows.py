"""Documents longer than the max length, in passages."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank.cross_encoder.prompts import QWEN3_RERANKER, PromptTokenizer
from qdrant_rerank.cross_encoder.windows import PairReader, Splitter, Windows, aggregate, as_windows
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.inference.tokenization import PairTokenizer
from tests.conftest import MODELS
from tests.models.build import WORDS

LONG = st.one_of(
    st.lists(
        st.sampled_from([*WORDS, "né", "東京都", "🙂🙂", "\n\n", "a\u0301"]), max_size=400
    ).map(" ".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=600),
    st.sampled_from(
        ["東京" * 300, "x" * 2000, "🙂" * 300, "word " * 500, " " * 5000 + "end", "ﷺ" * 99]
    ),
)
QUERIES = st.lists(st.sampled_from(WORDS), max_size=10).map(" ".join)


def load(name):
    """The tokenizer of a tiny model."""
    if name == "tiny-qwen3":
        return PromptTokenizer.from_directory(MODELS / name, QWEN3_RERANKER)
    return PairTokenizer.from_directory(MODELS / name)


@pytest.fixture(scope="module", params=["tiny-bert", "tiny-xlmr", "tiny-modernbert", "tiny-qwen3"])
def tokenizer(request):
    """WordPiece, Unigram, byte-level BPE, and a prompt."""
    return load(request.param)


@settings(max_examples=40, deadline=None)
@given(query=QUERIES, document=LONG)
def test_passages_hold_all_of_the_document_and_fit(tokenizer, query, document):
    """In order, overlapping, none of them cut; only blanks may be missing."""
    reading = PairReader(tokenizer, Windows())([(query, document)])
    spans = reading.spans
    if len(spans) == 1 and not tokenizer([(query, document)])[0].truncated:
        assert spans == [(0, len(document))]
        return
    starts, ends = zip(*spans, strict=True)
    assert list(starts) == sorted(set(starts))
    assert list(ends) == sorted(ends)
    inside = set().union(*(range(start, end) for start, end in spans))
    assert all(document[i].isspace() for i in range(len(document)) if i not in inside)
    assert not any(row.truncated for row in reading.rows)
    assert reading.counts == [len(spans)]


@settings(max_examples=20, deadline=None)
@given(document=LONG)
def test_passages_of_a_query_that_is_longer_than_the_max_length(tokenizer, document):
    """It is cut to half, so that each passage is still read whole."""
    query = " ".join(WORDS[:400])
    [cut] = tokenizer([(query, "bread")])
    reading = PairReader(tokenizer, Windows())([(query, document or "bread")])
    assert cut.truncated
    assert all(row.truncated for row in reading.rows)
    room = tokenizer.max_length - tokenizer.specials
    for start, end in reading.spans:
        own = tokenizer.without_truncation().encode(
            (document or "bread")[start:end], add_special_tokens=False
        )
        assert len(own) <= room - room // 2


def test_passages_end_between_words_and_share_some(tokenizer):
    """If there are words; the overlap is about as long as asked for."""
    words = [f"{word}" for word in WORDS] * 2
    document = " ".join(words)
    [first, second, *_] = Splitter(tokenizer, 10)("bread", document)
    for start, end in (first, second):
        assert document[end : end + 1] in {" ", ""}
        assert start == 0 or document[start - 1] == " "
    shared = document[second[0] : first[1]]
    assert 1 <= len(tokenizer.without_truncation().encode(shared).ids) <= 20
    [first, second, *_] = Splitter(tokenizer, 0)("bread", document)
    assert second[0] == first[1] + 1


def test_an_overlap_may_not_take_all_the_room(tokenizer):
    """The error names the longest overlap that works."""
    with pytest.raises(InvalidInputError, match="Pass an overlap of at most"):
        Splitter(tokenizer, 100)


def test_lone_surrogates_keep_their_place(tokenizer):
    """Offsets count the characters of the document as it is."""
    document = "\ud83d\ude42 bread " * 100
    [*_, last] = Splitter(tokenizer, None)("bread", document)
    assert document[slice(*last)].endswith("bread")
    assert last[1] == len(document) - 1


SCORES = np.array([1, 3, 2, 0, 5], dtype=np.float32)


@pytest.mark.parametrize(
    ("windows", "values", "rows"),
    [
        (Windows(), [3, 0, 5], [1, 3, 4]),
        (Windows(aggregate="mean"), [2, 0, 5], [1, 3, 4]),
        (Windows(aggregate="first"), [1, 0, 5], [0, 3, 4]),
        (Windows(aggregate="sum", best=2), [5, 0, 5], [1, 3, 4]),
        (Windows(aggregate="sum", best=9), [6, 0, 5], [1, 3, 4]),
    ],
)
def test_aggregates(windows, values, rows):
    """Three documents of three, one and one passages."""
    scores, best = aggregate(SCORES, [3, 1, 1], windows)
    assert scores.tolist() == values
    assert best.tolist() == rows


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"overlap": -1}, "overlap is -1; expected a whole number of 0 or more"),
        ({"overlap": 1.5}, "overlap is 1.5"),
        ({"aggregate": "median"}, "aggregate is 'median'"),
        ({"best": 0}, "best is 0"),
    ],
)
def test_options_out_of_range_are_named(options, seen):
    """At construction."""
    with pytest.raises(InvalidInputError, match=seen):
        Windows(**options)


def test_long_documents_takes_names_and_options():
    """And nothing else."""
    assert as_windows("truncate") is None
    assert as_windows("windows") == Windows()
    assert as_windows(Windows(overlap=0)).overlap == 0
    with pytest.raises(InvalidInputError, match="long_documents is 'split'"):
        as_windows("split")
