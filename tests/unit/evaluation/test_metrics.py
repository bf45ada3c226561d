"""Measures by query, the best order of the candidates, intervals and tests."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.evaluation import metrics as m
from tests.unit.test_package import python

ALL = ["nDCG@10", "RR", "AP", "R@3"]
GRADES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3), min_size=1)
VALUES = st.lists(st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0]), min_size=1, max_size=9)


def ranked(documents):
    """A run of one query; its scores all tie, for only the order may count."""
    return {"q": dict.fromkeys(documents, 0.0)}


def test_measures_of_a_known_order():
    """By hand: the relevant one is second, of two."""
    found = m.by_query([*ALL, "MRR"], {"q": {"a": 0, "b": 2, "z": 1}}, ranked("ab"), ["q"])
    dcg, ideal = 2 / np.log2(3), 2 + 1 / np.log2(3)
    assert {name: value.tolist() for name, value in found.items()} == {
        "nDCG@10": [pytest.approx(dcg / ideal)],
        "RR": [0.5],
        "MRR": [0.5],
        "AP": [0.25],
        "R@3": [0.5],
    }


def test_a_query_without_results_counts_as_zero():
    """Absent from the run, or there with nothing; the order is that of the queries."""
    qrels = {"1": {"a": 1}, "2": {"a": 1}, "3": {"a": 1}, "unasked": {"a": 1}}
    run = {"3": {"a": 1.0}, "2": {}, "unjudged": {"a": 1.0}}
    assert m.by_query(["RR"], qrels, run, ["1", "2", "3"])["RR"].tolist() == [0, 0, 1]
    assert m.by_query(["RR"], qrels, {}, ["1"])["RR"].tolist() == [0]


@pytest.mark.parametrize("name", ["ndcg", "nDCG@", "", "P(rel="])
def test_an_unknown_measure_is_named(name):
    """Before any work."""
    with pytest.raises(InvalidInputError, match="expected a name of ir-measures"):
        m.require_metrics(["RR", name])


@pytest.mark.parametrize("measures", ["RR", []])
def test_measures_are_a_list_of_names(measures):
    """Not one str, not none."""
    with pytest.raises(InvalidInputError, match="expected names"):
        m.require_metrics(measures)


def test_without_ir_measures_the_command_is_named():
    """The extra that brings it."""
    said = python(
        "import sys; sys.modules['ir_measures'] = None\n"
        "from qdrant_rerank.evaluation.metrics import require_metrics\n"
        "try: require_metrics(['RR'])\n"
        "except ImportError as error: print(error)"
    )
    assert 'pip install "qdrant-rerank[eval]"' in said


@settings(max_examples=60, deadline=None)
@given(GRADES, st.permutations("abcdefgh"), st.integers(1, 8))
def test_no_order_of_the_candidates_beats_the_best_order(grades, documents, depth):
    """For every measure; and ordering the best order again changes nothing."""
    run = ranked(documents[:depth])
    best = m.best_order({"q": grades}, run)
    assert set(best["q"]) == set(run["q"])
    reached = m.by_query(ALL, {"q": grades}, best, ["q"])
    found = m.by_query(ALL, {"q": grades}, run, ["q"])
    for name in ALL:
        assert reached[name][0] >= found[name][0] - 1e-12
    assert list(m.best_order({"q": grades}, best)["q"]) == list(best["q"])


@given(VALUES, st.integers(0, 3))
def test_equal_runs_have_no_gain(values, seed):
    """The interval is 0 and p is 1."""
    values = np.array(values)
    assert m.gain_of(values, values, resamples=50, seed=seed) == m.Gain(0.0, 0.0, 0.0, 1.0)


@given(VALUES, st.data(), st.sampled_from([16, 2000]))
def test_swapping_the_runs_mirrors_the_gain(values, data, resamples):
    """p stays, the mean and the interval change their sign; all patterns or random ones."""
    other = data.draw(st.permutations(values))
    one, two = np.array(values), np.array(other)
    there = m.gain_of(one, two, resamples=resamples)
    back = m.gain_of(two, one, resamples=resamples)
    assert there.p == back.p
    assert there.mean == pytest.approx(-back.mean)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.low - 1e-12 <= there.mean <= there.high + 1e-12 or resamples == 16


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([-0.25, -0.125, 0.0, 0.125, 0.75]), min_size=2, max_size=8))
def test_few_queries_are_tested_exactly(differences):
    """As scipy's permutation test of all sign patterns, on numbers whose sums are exact."""
    differences = np.array(differences)
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert m.randomisation_p(differences) == pytest.approx(theirs.pvalue)


def test_sums_that_differ_in_their_last_bits_are_equal():
    """0.1 + 0.2 - 0.3 is not 0 to a computer; the patterns that give it count all the same."""
    assert m.randomisation_p(np.array([-0.3, -0.1, 0.1, 0.1, 0.2])) == 1.0


def test_many_queries_are_tested_by_sampling():
    """Close to the exact p; the same seed gives the same; the interval is close to scipy's."""
    rng = np.random.default_rng(5)
    differences = rng.normal(0.1, 0.4, 18)
    exact = m.randomisation_p(differences, resamples=2**18)
    sampled = m.randomisation_p(differences, resamples=20_000, seed=3)
    assert sampled == pytest.approx(exact, abs=0.015)
    assert sampled == m.randomisation_p(differences, resamples=20_000, seed=3)
    theirs = stats.bootstrap((differences,), np.mean, method="percentile", rng=rng)
    expected = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    assert m.bootstrap_interval(differences) == pytest.approx(expected, abs=0.02)


def test_memory_stays_flat(monkeypatch):
    """Drawing in portions gives an interval and a p of the same kind."""
    differences = np.random.default_rng(1).normal(0.2, 0.5, 30)
    whole = m.bootstrap_interval(differences), m.randomisation_p(differences)
    monkeypatch.setattr(m, "VALUES_AT_ONCE", 1000)
    portions = m.bootstrap_interval(differences), m.randomisation_p(differences)
    assert portions[0] == pytest.approx(whole[0], abs=0.01)
    assert portions[1] == pytest.approx(whole[1], abs=0.01)
