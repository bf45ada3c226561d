"""Label logits -> the column that is relevance."""

from pathlib import Path

import numpy as np
import pytest

from qdrant_rerank.cross_encoder.heads import choose_head, label_logits
from qdrant_rerank.errors import InvalidInputError, ModelOutputError

PATH = Path("model.onnx")
ROW = np.array([[1.0, 2.0, 4.0]], dtype=np.float32)


def chosen(labels, names=(), label=None, **options):
    """The head of a model with so many labels."""
    return choose_head(ROW[:, :labels], names, label, PATH, **options)


@pytest.mark.parametrize(
    ("names", "column"),
    [
        ((), 1),
        (("LABEL_1", "LABEL_0"), 0),
        (("LABEL_0", "LABEL_1"), 1),
        (("no", "yes"), 1),
        (("Yes", "No"), 0),
        (("relevant", "not relevant"), 0),
        (("entailment", "not_entailment"), 0),
        (("irrelevant", "relevant"), 1),
        (("a", "b", "c"), 1),  # the configuration of another head
    ],
)
def test_of_two_labels_the_configuration_says_which(names, column):
    """If it has no names, the second, as (no, yes) heads have it."""
    head = chosen(2, names)
    assert head.column == column
    assert head.relevance(ROW[:, :2]) == [ROW[0, column]]


@pytest.mark.parametrize(
    "names",
    [
        ("duplicate", "not_duplicate"),
        ("good", "bad"),
        ("left", "right"),
        ("true", "yes"),  # both claim it
        ("relevant", "relevant"),
    ],
)
def test_of_two_labels_with_other_names_none_is_guessed(names):
    """They are listed, and the caller chooses."""
    with pytest.raises(ModelOutputError, match="the labels 0: .*, 1: .* Pass the one that is rel"):
        chosen(2, names)
    assert chosen(2, names, 0).column == 0
    if names[0] == names[1]:
        with pytest.raises(InvalidInputError, match="Pass one of them, by name or number"):
            chosen(2, names, names[0])
    else:
        assert chosen(2, names, names[1]).column == 1


def test_one_label_needs_no_name():
    """Whatever it is called."""
    assert chosen(1, ("contradiction",)).column == 0


def test_several_labels_are_chosen_by_name_or_number():
    """And only by what there is."""
    names = ("contradiction", "neutral", "entailment")
    assert chosen(3, names, "entailment").column == 2
    assert chosen(3, names, 0).column == 0
    assert chosen(2, (), 0).column == 0
    for wrong in ("relevant", 3, -1, True):
        with pytest.raises(InvalidInputError, match="the labels 0: 'contradiction', 1: 'neutral'"):
            chosen(3, names, wrong)
    with pytest.raises(InvalidInputError, match="labels 0 to 2 without names"):
        chosen(3, (), "entailment")


def test_several_labels_without_a_choice_are_listed():
    """Guessing would invert some model's order."""
    with pytest.raises(ModelOutputError, match="2: 'entailment'.*Pass the one that is relevance"):
        chosen(3, ("contradiction", "neutral", "entailment"))


def test_yes_and_no_tokens_are_log_odds():
    """Their sigmoid is the softmax of the two."""
    head = chosen(2, no_yes=True)
    assert head.relevance(ROW[:, :2]) == [1.0]
    with pytest.raises(InvalidInputError, match="yes and no tokens"):
        chosen(2, label=1, no_yes=True)


def test_outputs_of_any_known_shape_become_labels():
    """(n,), (n, labels), and a vocabulary of which two tokens count."""
    flat = np.array([3.0, 5.0], dtype=np.float32)
    assert label_logits(flat, 2, PATH).tolist() == [[3.0], [5.0]]
    assert label_logits(ROW, 1, PATH).tolist() == ROW.tolist()
    assert label_logits(ROW, 1, PATH, (2, 0)).tolist() == [[4.0, 1.0]]
    assert label_logits(ROW[:, :2], 1, PATH, (9, 7)).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("shape", [(1, 5, 8), (2, 1), (1, 0), ()])
def test_other_shapes_are_no_rerankers(shape):
    """Token vectors, the wrong number of rows, nothing."""
    with pytest.raises(ModelOutputError, match="returned shape"):
        label_logits(np.zeros(shape, dtype=np.float32), 1, PATH)
    with pytest.raises(ModelOutputError, match="tokens up to id 7"):
        label_logits(ROW, 1, PATH, (3, 7))
