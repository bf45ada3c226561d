"""Many pairs: read a block ahead, scored together, in flat memory, in input order."""

import itertools
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank import HybridSearcher, TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from qdrant_rerank.inference.batching import PAIRS_PER_BLOCK, blocks_of
from tests.models import variants
from tests.models.build import WORDS

TEXTS = st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join)
# Peak memory of tokenising long documents, in KiB above that of the same for one.
LONG_DOCUMENTS = """
import resource, sys
from qdrant_rerank import TextCrossEncoder

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

encoder = TextCrossEncoder(sys.argv[1], lazy_load=True)
document = "the bread rises " * 1000
encoder.token_count([("bread", document)])
before = peak()
encoder.token_count([("bread", document)] * 600)
print(peak() - before)
"""


@pytest.fixture(scope="module")
def encoder(tiny_bert):
    """The tiny BERT."""
    return TextCrossEncoder(tiny_bert)


@given(
    st.lists(st.tuples(st.text(max_size=3), st.text(max_size=9)), max_size=40),
    st.integers(1, 9),
    st.integers(1, 40),
)
def test_blocks_hold_all_pairs_in_order_within_their_bounds(pairs, most, characters):
    """By pairs, and by characters but for the last pair."""
    windows = list(blocks_of(iter(pairs), most=most, characters=characters))
    assert [pair for window in windows for pair in window] == pairs
    for number, window in enumerate(windows):
        held = [len(query) + len(document) for query, document in window]
        assert len(window) <= most
        assert sum(held[:-1]) < characters
        full = len(window) == most or sum(held) >= characters
        assert full or number == len(windows) - 1


def test_a_generator_is_read_no_further_than_a_block_ahead(encoder):
    """All along the stream."""
    drawn = 0

    def source():
        nonlocal drawn
        for number in itertools.count():
            drawn += 1
            yield f"bread {number % 7}", "rises"

    scores = encoder.rerank_pairs(source(), progress=False)
    assert drawn == 0
    for taken, _ in enumerate(itertools.islice(scores, 2 * PAIRS_PER_BLOCK + 1), start=1):
        assert taken <= drawn < taken + PAIRS_PER_BLOCK
    assert drawn == 3 * PAIRS_PER_BLOCK


def test_a_block_of_long_texts_is_short(encoder):
    """Megabytes of text are not held by the thousand."""
    drawn = 0

    def source():
        nonlocal drawn
        while True:
            drawn += 1
            yield "bread", " " * 4_000_000

    next(encoder.rerank_pairs(source()))
    assert drawn == 2


@settings(max_examples=15, deadline=None)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), max_size=30), size=st.integers(1, 9))
def test_a_stream_gives_what_each_pair_gives_alone(encoder, pairs, size):
    """Of any queries, in input order, wherever blocks end."""
    expected = [encoder.score_pairs([pair]).scores[0] for pair in pairs]
    assert list(encoder.rerank_pairs(iter(pairs))) == pytest.approx(expected, abs=1e-5)
    parts = [encoder.score_pairs(window) for window in blocks_of(pairs, most=size)]
    joined = encoder.score_pairs(pairs[:0]).joined(parts, len(pairs)) if parts else None
    if joined is not None:
        assert joined.scores == pytest.approx(expected, abs=1e-5)
        assert joined.tokens == sum(part.tokens for part in parts)


def test_more_pairs_than_a_block_at_once(encoder):
    """Scores, order and costs are those of the blocks together."""
    pairs = [(f"bread {i % 3}", "rises " * (i % 5)) for i in range(PAIRS_PER_BLOCK + 30)]
    found = encoder.score_pairs(pairs)
    assert found.scores.shape == found.scored.shape == found.windows.shape == (len(pairs),)
    assert found.scored.all()
    assert found.tokens == encoder.token_count(pairs)
    rows = [0, 1, 14, PAIRS_PER_BLOCK - 1, PAIRS_PER_BLOCK, len(pairs) - 1]
    alone = [encoder.score_pairs([pairs[row]]).scores[0] for row in rows]
    assert found.scores[rows] == pytest.approx(alone, abs=1e-5)


def test_errors_name_the_pair_by_its_place_in_the_stream(encoder, tiny_bert, tmp_path):
    """Not by its place in a block; the blocks before were scored."""
    pairs = [("a", "b")] * (PAIRS_PER_BLOCK + 2)
    scores = encoder.rerank_pairs([*pairs, ("a", None)])
    assert len(list(itertools.islice(scores, PAIRS_PER_BLOCK))) == PAIRS_PER_BLOCK
    with pytest.raises(InvalidInputError, match=f"document of pair {PAIRS_PER_BLOCK + 2} is"):
        next(scores)
    broken = TextCrossEncoder(variants.nan_logits(tiny_bert, tmp_path / "m"))
    with pytest.raises(ModelOutputError, match="the first at index 0"):
        list(broken.rerank_pairs(pairs))


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_progress_is_shown_on_request(encoder, capsys, monkeypatch, progress, shown):
    """And of itself only on a terminal, which a test has not."""
    monkeypatch.setattr("qdrant_rerank.cross_encoder.streams.SHOW_AFTER_S", 0)
    assert len(list(encoder.rerank_pairs([("a", "b")] * 3, progress=progress))) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert ("3/3" in said.err and "pair/s" in said.err) is shown
    assert bool(said.err) is shown


def test_a_large_batch_of_queries_goes_in_parts(encoder, client, monkeypatch, capsys):
    """The results are those of each query alone, whatever went together."""
    searcher = HybridSearcher("s", client=client, reranker=encoder, candidates=4)
    searcher.add([f"{a} {b}" for a in WORDS[:6] for b in WORDS[6:9]], progress=False)
    queries = [f"{word} rises" for word in WORDS[:7]]
    alone = [searcher.search(query, limit=3) for query in queries]
    for most in (1, 8, 12_800):  # one query at a time, two, all
        monkeypatch.setattr("qdrant_rerank.search.base.CANDIDATES_AT_ONCE", most)
        together = searcher.search_batch(iter(queries), limit=3, progress=False)
        assert [found.query for found in together] == queries
        for ours, theirs in zip(together, alone, strict=True):
            assert [hit.id for hit in ours] == [hit.id for hit in theirs]
            assert [hit.score for hit in ours] == pytest.approx(
                [hit.score for hit in theirs], abs=1e-5
            )
            assert ours.trace.candidates == ours.trace.pairs == 4
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("qdrant_rerank.search.base.SHOW_AFTER_S", 0)
    searcher.search_batch(queries, progress=True)
    assert "7/7" in capsys.readouterr().err


def test_tokenising_many_long_documents_takes_bounded_memory(tiny_bert):
    """Tokens beyond the max length are not held for all of them."""
    done = subprocess.run(
        [sys.executable, "-c", LONG_DOCUMENTS, str(tiny_bert)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert int(done.stdout) < 40_000  # at once it is 110,000
