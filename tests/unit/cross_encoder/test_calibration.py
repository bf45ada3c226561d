"""Scores -> probabilities, learnt from judgments."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qdrant_rerank.cross_encoder.calibration import Calibrator
from qdrant_rerank.errors import InvalidInputError, ModelFileError

METHODS = ["platt", "isotonic"]
SCORES = st.floats(-50, 50).map(lambda x: round(x, 4))
PAIRS = st.lists(st.tuples(SCORES, st.sampled_from([0, 0.25, 1])), min_size=2, max_size=60)


def fitted(pairs, method):
    """A curve, where these pairs have one."""
    try:
        return Calibrator.fit(*zip(*pairs, strict=True), method=method)
    except InvalidInputError:
        assume(False)


def judged(slope, intercept, count=4000):
    """Logits whose labels are drawn with a known probability."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, count)
    true = 1 / (1 + np.exp(-(slope * logits + intercept)))
    return logits, (rng.random(count) < true).astype(int), true


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS, others=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1))
def test_probabilities_lie_in_0_to_1_and_never_turn_the_order(method, pairs, others):
    """Of any scores, far outside of those it was fitted on too."""
    calibrate = fitted(pairs, method)
    ordered = np.sort(np.array(others, dtype=np.float32))
    probabilities = calibrate(ordered)
    assert probabilities.dtype == np.float64
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (np.diff(probabilities) >= 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["calibration.json", "calibration.json.gz"])
@settings(max_examples=25, deadline=None)
@given(pairs=PAIRS)
def test_a_file_holds_the_same_curve_to_the_bit(method, name, pairs, tmp_path_factory):
    """Plain JSON numbers, packed or not."""
    path = tmp_path_factory.mktemp("calibration") / name
    calibrate = fitted(pairs, method)
    calibrate.save(path)
    assert Calibrator.load(path) == calibrate


@pytest.mark.parametrize("method", METHODS)
def test_a_known_curve_is_found(method):
    """Of 4,000 judgments, to a few hundredths."""
    logits, labels, true = judged(0.8, -1.0)
    calibrate = Calibrator.fit(logits, labels, method)
    assert np.abs(calibrate(logits) - true).mean() < 0.03
    if method == "platt":
        assert (calibrate.slope, calibrate.intercept) == pytest.approx((0.8, -1.0), abs=0.1)


def test_platt_is_scikit_learns_own():
    """Its calibrated classifier fits the same curve."""
    from sklearn.calibration import _SigmoidCalibration

    logits, labels, _ = judged(1.3, 0.4, 300)
    theirs = _SigmoidCalibration().fit(logits, labels)
    assert Calibrator.fit(logits, labels)(logits) == pytest.approx(theirs.predict(logits), abs=1e-4)


def test_labels_may_be_probabilities():
    """As a graded judgment or a teacher gives them."""
    logits, _, true = judged(0.8, -1.0, 500)
    for method in METHODS:
        assert Calibrator.fit(logits, true, method)(logits) == pytest.approx(true, abs=0.01)


def test_separable_judgments_stay_finite():
    """A handful of clear ones give no step of certainty."""
    calibrate = Calibrator.fit([-3.0, -2.0, 2.0, 3.0], [0, 0, 1, 1])
    low, high = calibrate(np.array([-3, 3], dtype=np.float32))
    assert 0.01 < low < 0.3
    assert 0.7 < high < 0.99


@pytest.mark.parametrize(
    ("scores", "labels", "seen"),
    [
        ([1.0, 2.0], [0], r"shape \(2,\) and labels \(1,\)"),
        ([1.0], [1], "at least two"),
        ([], [], "at least two"),
        ([1.0, np.nan], [0, 1], "Score 1 is not finite"),
        ([1.0, 2.0], [0, 3], "Label 1 is 3.0"),
        ([1.0, 2.0], [0, np.nan], "Label 1 is nan"),
        ([1.0, 2.0], [1, 1], "All 2 labels are 1.0"),
        ([1.0, 1.0], [0, 1], "All 2 scores are 1.0"),
        (["a", "b"], [0, 1], "numbers"),
        ([[1.0], [2.0]], [0, 1], "shape"),
    ],
)
def test_what_cannot_be_fitted_is_named(scores, labels, seen):
    """Before any fitting."""
    for method in METHODS:
        with pytest.raises(InvalidInputError, match=seen):
            Calibrator.fit(scores, labels, method)


@pytest.mark.parametrize("method", METHODS)
def test_relevance_that_falls_is_refused(method):
    """The labels are the wrong way round, or of other pairs."""
    with pytest.raises(InvalidInputError, match="same order"):
        Calibrator.fit([1.0, 2.0, 3.0, 4.0], [1, 1, 0, 0], method)
    with pytest.raises(InvalidInputError, match="method is 'beta'"):
        Calibrator.fit([1.0, 2.0], [0, 1], "beta")


@pytest.mark.parametrize(
    "content",
    [
        None,
        "{",
        "[]",
        {"method": "platt"},
        {"format": 2, "method": "platt"},
        {"format": 1},
        {"format": 1, "method": "platt", "slope": -1},
        {"format": 1, "method": "platt", "slope": None},
        {"format": 1, "method": "platt", "slope": float("nan")},
        {"format": 1, "method": "beta"},
        {"format": 1, "method": "isotonic"},
        {"format": 1, "method": "isotonic", "scores": [0, 1], "probabilities": [0.5, 0.4]},
        {"format": 1, "method": "isotonic", "scores": [0, 1], "probabilities": [0.5, 1.4]},
        {"format": 1, "method": "isotonic", "scores": [1, 0], "probabilities": [0.1, 0.4]},
        {"format": 1, "method": "isotonic", "scores": [0], "probabilities": [0.1, 0.4]},
    ],
)
def test_a_file_that_holds_no_curve_is_named(tmp_path, content):
    """Nothing is scored by it."""
    path = tmp_path / "calibration.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ModelFileError, match=r"calibration\.json"):
        Calibrator.load(path)


@pytest.mark.parametrize("content", [b"{}", b"", b"\x1f\x8b\x08", b"\xff"])
@pytest.mark.parametrize("name", ["calibration.json", "calibration.json.gz"])
def test_a_file_of_another_kind_than_its_name_says_is_named(tmp_path, name, content):
    """Neither packed nor text, or cut short."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=r"calibration\.json"):
        Calibrator.load(tmp_path / name)


def test_a_path_that_cannot_be_written_leaves_nothing(tmp_path):
    """Whole or not at all."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="cannot be written"):
        Calibrator("platt").save(tmp_path / "file" / "calibration.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_using_one_needs_no_scikit_learn(tmp_path):
    """Plain numbers at run time; fitting says what to install."""
    path = tmp_path / "calibration.json"
    Calibrator("platt", slope=2.0).save(path)
    code = f"""
import sys
sys.modules["sklearn"] = None
import numpy as np
from qdrant_rerank import Calibrator
from qdrant_rerank.errors import MissingDependencyError
print(Calibrator.load({str(path)!r})(np.zeros(1))[0])
try:
    Calibrator.fit([1.0, 2.0], [0, 1])
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("0.5\n")
    assert 'pip install "qdrant-rerank[calibrate]"' in done.stdout
