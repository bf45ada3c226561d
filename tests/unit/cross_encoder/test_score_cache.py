"""The score cache by itself: keys, bound, threads."""

import pickle
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdrant_rerank import ScoreCache
from qdrant_rerank.cross_encoder.score_cache import (
    PairOutput,
    as_score_cache,
    model_fingerprint,
    pair_key,
)
from qdrant_rerank.errors import InvalidInputError, MissingDependencyError

TEXT = st.text(st.characters(), max_size=6)  # lone surrogates included
LETTERS = st.text("ab", max_size=3)


def output(rows=1, value=0.0):
    spans = tuple((i * 1000, i * 1000 + 900) for i in range(rows)) if rows > 1 else ()
    return PairOutput(np.full((rows, 1), value, dtype=np.float32), False, spans)


@given(st.lists(st.tuples(st.sampled_from([b"m", b"n"]), LETTERS, LETTERS), max_size=30))
def test_each_model_and_pair_has_a_key_of_its_own(whole):
    """However the same letters are split between the texts."""
    assert len({pair_key(*item) for item in whole}) == len(set(whole))


@given(TEXT, TEXT)
def test_any_text_has_a_key(query, document):
    """The same one each time, of the same length."""
    key = pair_key(b"m", query, document)
    assert key == pair_key(b"m", query, document)
    assert len(key) == 20


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 4)), max_size=60))
def test_the_bound_is_kept_and_what_is_found_is_what_was_put(items):
    """Whatever is put in, in whatever order; the last one always stays."""
    cache = ScoreCache(3000)
    last = {}
    for place, (number, rows) in enumerate(items):
        key = bytes([number])
        last[key] = output(rows, place)
        cache.put([(key, last[key])])
        assert cache.used_bytes <= 3000
        assert cache.get([key]) == [last[key]]
    for key, kept in zip(last, cache.get(list(last)), strict=True):
        assert kept is None or kept is last[key]


def test_the_least_recently_used_makes_room():
    """Asking for one keeps it."""
    cache = ScoreCache(3 * output().size)
    for key in (b"a", b"b", b"c"):
        cache.put([(key, output())])
    cache.get([b"a"])
    cache.put([(b"d", output())])
    assert [kept is not None for kept in cache.get([b"a", b"b", b"c", b"d"])] == [
        True,
        False,
        True,
        True,
    ]


def test_what_is_larger_than_the_cache_is_passed_over():
    """It would push out everything else."""
    cache = ScoreCache(2 * output().size)
    cache.put([(b"a", output()), (b"b", output(100))])
    assert len(cache) == 1
    assert cache.get([b"b"]) == [None]


@pytest.mark.parametrize("rows", [1, 3])
def test_the_bound_is_of_real_memory(rows):
    """Ten times as many pairs as fit take no more than was allowed, all overhead included."""
    count = 8_000
    cache = ScoreCache(600_000)
    tracemalloc.start()
    cache.put((pair_key(b"m", "q", str(i)), output(rows, i)) for i in range(count))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.5 * cache.max_bytes < taken <= cache.max_bytes
    assert len(cache) < count


def test_threads_never_break_it():
    """Eight at once, on few keys that push one another out; the counts add up."""
    cache = ScoreCache(20 * output().size)
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(300):
            numbers = rng.integers(0, 60, 5).tolist()
            keys = [bytes([number]) for number in numbers]
            for number, kept in zip(numbers, cache.get(keys), strict=True):
                if kept is not None and kept.logits[0, 0] != number:
                    wrong.append(number)
            cache.put(
                (key, output(value=number)) for key, number in zip(keys, numbers, strict=True)
            )

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong
    assert cache.hits + cache.misses == 8 * 300 * 5
    assert cache.used_bytes == len(cache) * output().size <= cache.max_bytes


def test_a_copy_is_empty_and_clearing_forgets():
    """Of the same size."""
    cache = ScoreCache(10_000)
    cache.put([(b"a", output())])
    cache.get([b"a", b"b"])
    assert (cache.hits, cache.misses, cache.hit_rate) == (1, 1, 0.5)
    assert "pairs=1, hit_rate=0.50" in repr(cache)
    copy = pickle.loads(pickle.dumps(cache))
    assert (len(copy), copy.max_bytes, copy.hits) == (0, 10_000, 0)
    cache.clear()
    assert (len(cache), cache.hits, cache.misses, cache.hit_rate, cache.used_bytes) == (0,) * 5


def test_a_fingerprint_is_of_contents_names_and_options(tmp_path):
    """Not of the place; what is not there does not count."""
    here, there = tmp_path / "a", tmp_path / "b"
    for folder in (here, there):
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"weights")
    files = [here / "model.onnx", here / "absent.json"]
    made = model_fingerprint(files, {"max_length": 128})
    assert made == model_fingerprint([there / "model.onnx"], {"max_length": 128})
    assert made != model_fingerprint(files, {"max_length": 64})
    (here / "model.onnx").write_bytes(b"weightS")
    assert made != model_fingerprint(files, {"max_length": 128})


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "64 MB"])
def test_sizes_that_are_none_are_refused(wrong):
    """By the argument that the caller passed."""
    with pytest.raises(InvalidInputError, match=f"score_cache is {wrong!r}; expected"):
        as_score_cache(wrong)
    with pytest.raises(InvalidInputError, match="max_bytes is"):
        ScoreCache(wrong)
    with pytest.raises(InvalidInputError, match="max_bytes is None"):
        ScoreCache(None)


def test_without_the_library_it_says_how_to_install_it(monkeypatch):
    """Asked for a cache, and at no other time."""
    monkeypatch.setitem(sys.modules, "cachetools", None)
    assert as_score_cache(None) is None
    with pytest.raises(MissingDependencyError, match=r'pip install "qdrant-rerank\[cache\]"'):
        as_score_cache(1000)
