"""TextCrossEncoder with a score cache: the same scores, for less."""

import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client.models import ScoredPoint

from qdrant_rerank import DEFAULT_RERANKER, ScoreCache, TextCrossEncoder, rerank_points
from qdrant_rerank.cross_encoder.windows import Windows
from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from tests.models import variants
from tests.models.build import WORDS

PHRASES = st.lists(st.sampled_from(WORDS[:12]), max_size=3).map(" ".join)
PAIRS = st.lists(st.tuples(PHRASES, PHRASES), max_size=8)
PARTS = Windows(overlap=2, aggregate="mean")


@pytest.fixture(scope="module")
def kept():
    """The bundled model with room for about 20 pairs."""
    return TextCrossEncoder(DEFAULT_RERANKER, score_cache=20 * 700)


@settings(max_examples=25, deadline=None)
@given(pairs=PAIRS)
def test_a_cache_never_changes_a_score(bundled, kept, pairs):
    """To the bit, hits, misses, and those that made room alike."""
    plain, cached = bundled.score_pairs(pairs), kept.score_pairs(pairs)
    assert cached.scores.tolist() == plain.scores.tolist()
    assert cached.truncated.tolist() == plain.truncated.tolist()
    assert cached.windows.tolist() == plain.windows.tolist()
    assert kept.score_pairs(pairs[-5:]).scores.tolist() == plain.scores[-5:].tolist()
    assert kept.score_cache.used_bytes <= kept.score_cache.max_bytes
    assert plain.cached is None


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join), max_size=5))
def test_parts_and_spans_are_kept_as_well(tiny_bert, parts, texts):
    """Long documents in passages, with the best passage of each."""
    plain, cached = parts
    pairs = [("bread", text) for text in texts]
    expected = plain.score_pairs(pairs)
    cached.score_pairs(pairs[::2])
    for found in (cached.score_pairs(pairs), cached.score_pairs(pairs)):
        assert found.scores == pytest.approx(expected.scores, abs=1e-5)
        assert found.spans == expected.spans
        assert found.windows.tolist() == expected.windows.tolist()
        assert found.truncated.tolist() == expected.truncated.tolist()
    assert found.cached.all()
    assert found.tokens == found.padded_tokens == 0


@pytest.fixture(scope="module")
def parts(tiny_bert):
    """Without and with a cache; a max length of 16, so that most texts are long."""
    options = {"max_length": 16, "long_documents": PARTS}
    return (
        TextCrossEncoder(tiny_bert, **options),
        TextCrossEncoder(tiny_bert, **options, score_cache=10**6),
    )


def test_models_and_options_never_share_a_score(tiny_bert, tiny_xlmr, tmp_path):
    """In one cache; but two copies of one model do, and so do activations, which come after."""
    cache = ScoreCache(10**7)
    other = variants.two_labels(tiny_bert, tmp_path / "two")
    copy = variants.copy_of(tiny_bert, tmp_path / "copy")
    pairs = [("bread", "rises in the oven " * 5), ("the sea", "")]
    for path, options in [
        (tiny_bert, {}),
        (tiny_xlmr, {}),
        (other, {}),
        (tiny_bert, {"max_length": 16}),
        (tiny_bert, {"max_length": 16, "long_documents": "windows"}),
        (tiny_bert, {"max_length": 16, "long_documents": PARTS}),
    ]:
        expected = TextCrossEncoder(path, **options).score_pairs(pairs)
        found = TextCrossEncoder(path, score_cache=cache, **options).score_pairs(pairs)
        assert not found.cached.any()
        assert found.scores.tolist() == expected.scores.tolist()
    for path, options in [(copy, {}), (tiny_bert, {"activation": "sigmoid"})]:
        expected = TextCrossEncoder(path, **options).score_pairs(pairs)
        found = TextCrossEncoder(path, score_cache=cache, **options).score_pairs(pairs)
        assert found.cached.all()
        assert found.scores.tolist() == expected.scores.tolist()


def test_eight_callers_at_once_get_the_scores_of_one(tiny_bert):
    """With a cache too small for all, and without one."""
    rng = np.random.default_rng(0)
    pairs = [("bread", " ".join(rng.choice(WORDS, rng.integers(1, 60)))) for _ in range(60)]
    plain = TextCrossEncoder(tiny_bert)
    alone = {pair: plain.score_pairs([pair]).scores[0] for pair in pairs}
    for encoder in (plain, TextCrossEncoder(tiny_bert, score_cache=30 * 700)):
        work = [[pairs[i] for i in rng.permutation(60)[:25]] for _ in range(8)]
        seen = [None] * 8
        gate = threading.Barrier(8)

        def call(caller, encoder=encoder, work=work, seen=seen, gate=gate):
            gate.wait()
            for _ in range(3):
                seen[caller] = encoder.score_pairs(work[caller]).scores

        threads = [threading.Thread(target=call, args=(caller,)) for caller in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for mine, scores in zip(work, seen, strict=True):
            assert scores == pytest.approx([alone[pair] for pair in mine], abs=1e-5)


def test_the_trace_tells_the_share_of_hits(tiny_bert):
    """Of each search; None where there is no cache."""
    encoder = TextCrossEncoder(tiny_bert, score_cache=10**6)
    hits = [
        ScoredPoint(id=i, version=0, score=1 - i / 10, payload={"text": text})
        for i, text in enumerate(["bread rises", "the sea", "rye", "an oven"])
    ]
    first = rerank_points("bread", hits[:3], reranker=encoder)
    second = rerank_points("bread", hits, reranker=encoder)
    assert first.trace.cache_hit_rate == 0.0
    assert second.trace.cache_hit_rate == 0.75
    assert second.trace.pairs == 4
    expected = rerank_points("bread", hits, reranker=TextCrossEncoder(tiny_bert))
    assert [hit.id for hit in second] == [hit.id for hit in expected]
    assert expected.trace.cache_hit_rate is None


def test_with_a_deadline_what_is_kept_takes_no_time(tiny_bert):
    """It is found before any batch runs; a pair that was not scored is not kept."""
    encoder = TextCrossEncoder(tiny_bert, score_cache=10**6)
    pairs = [("bread", f"rises {i}") for i in range(30)]
    encoder.score_pairs(pairs[:20])
    found = encoder.score_pairs(pairs, deadline_s=1e-9)
    assert found.scored[:20].all()
    assert found.cached.tolist() == [True] * 20 + [False] * 10
    assert not found.scored[20:].any() or found.scored.all()
    again = encoder.score_pairs(pairs, deadline_s=600)
    assert again.scores == pytest.approx(TextCrossEncoder(tiny_bert).score_pairs(pairs).scores)


def test_a_failure_keeps_nothing(tiny_bert, tmp_path):
    """Scores that are no numbers are an error each time."""
    broken = variants.nan_logits(tiny_bert, tmp_path / "m")
    encoder = TextCrossEncoder(broken, score_cache=10**6)
    for _ in range(2):
        with pytest.raises(ModelOutputError, match="for 2 of 2 pairs, the first at index 0"):
            encoder.rerank("bread", ["a", "b"])
    assert len(encoder.score_cache) == 0


def test_a_copy_for_another_process_starts_empty(tiny_bert):
    """A lock does not pickle, and memory is not sent."""
    encoder = TextCrossEncoder(tiny_bert, score_cache=10**6)
    scores = encoder.rerank("bread", ["a", "b"])
    copy = pickle.loads(pickle.dumps(encoder))
    assert len(copy.score_cache) == 0
    assert copy.rerank("bread", ["a", "b"]) == scores
    with pytest.raises(InvalidInputError, match="score_cache is 0"):
        TextCrossEncoder(tiny_bert, score_cache=0)
    assert TextCrossEncoder(tiny_bert).score_cache is None
