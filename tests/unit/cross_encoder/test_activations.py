"""Logits -> scores, and which activation "auto" is."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qdrant_rerank.cross_encoder.activations import activate, activation_name, choose_activation
from qdrant_rerank.cross_encoder.heads import Head
from qdrant_rerank.cross_encoder.model_config import ModelConfig
from qdrant_rerank.errors import InvalidInputError, ModelFileError, ModelOutputError

ONE, TWO, YES_NO = Head(1), Head(2, column=1), Head(2, column=1, log_odds=True)
LOGITS = arrays(np.float32, (5, 2), elements=st.floats(-500, 500, width=32))


def config(directory, **content):
    """A configuration file, read."""
    (directory / "config.json").write_text(json.dumps(content))
    return ModelConfig.read(directory)


@pytest.mark.parametrize(
    ("content", "head", "expected"),
    [
        ({}, ONE, "sigmoid"),
        ({}, TWO, "identity"),
        ({}, YES_NO, "sigmoid"),
        ({"sentence_transformers": {"version": "4.1"}}, ONE, "sigmoid"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            ONE,
            "identity",
        ),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
            TWO,
            "sigmoid",
        ),
        ({"sbert_ce_default_activation_function": "torch.nn.Identity"}, ONE, "identity"),
        ({"sbert_ce_default_activation_function": None}, ONE, "sigmoid"),
        ({"sbert_ce_default_activation_function": "torch.nn.Softmax"}, TWO, "softmax"),
    ],
)
def test_auto_is_what_sentence_transformers_does(tmp_path, content, head, expected):
    """Its place, then its old place, then the number of labels."""
    assert choose_activation("auto", config(tmp_path, **content), head) == expected


def test_its_own_file_comes_first(tmp_path):
    """config_sentence_transformers.json, where newer versions write it."""
    (tmp_path / "config_sentence_transformers.json").write_text(
        json.dumps({"activation_fn": "torch.nn.modules.linear.Identity"})
    )
    read = config(tmp_path, sentence_transformers={"activation_fn": "torch.nn.Sigmoid"})
    assert choose_activation("auto", read, ONE) == "identity"


@pytest.mark.parametrize("path", ["os.system", "evil.Sigmoid", "torch.nn.Tanh", "torch"])
def test_a_path_that_is_not_known_is_named_and_never_run(tmp_path, path):
    """The default of sentence-transformers is used, and said to be."""
    read = config(tmp_path, sbert_ce_default_activation_function=path)
    with pytest.warns(UserWarning, match=f"names the activation '{path}'"):
        assert choose_activation("auto", read, ONE) == "sigmoid"


def test_a_choice_wins_over_the_configuration(tmp_path):
    """Whatever the model says."""
    read = config(tmp_path, sbert_ce_default_activation_function="torch.nn.Identity")
    assert choose_activation("sigmoid", read, ONE) == "sigmoid"
    with pytest.raises(InvalidInputError, match="softmax is always 1"):
        choose_activation("softmax", read, ONE)


def test_labels_are_read_from_either_direction(tmp_path):
    """And left out where they make no sense."""
    assert config(tmp_path, id2label={"1": "b", "0": "a"}).labels == ("a", "b")
    assert config(tmp_path, label2id={"b": 1, "a": 0}).labels == ("a", "b")
    assert config(tmp_path, id2label={"x": "a"}).labels == ()
    assert config(tmp_path, id2label={"1": "a"}).labels == ()
    assert config(tmp_path, architectures=["Qwen3ForCausalLM"]).causal
    assert not config(tmp_path, architectures="BertForSequenceClassification").causal
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelFileError, match="holds a list"):
        ModelConfig.read(tmp_path)


@given(LOGITS)
def test_all_activations_agree_on_the_order(logits):
    """They are increasing; the yes and no tokens' sigmoid is their softmax."""
    softmax = activate("softmax", TWO, logits)
    sigmoid = activate("sigmoid", YES_NO, logits)
    assert softmax == pytest.approx(sigmoid, abs=1e-6)
    assert ((softmax >= 0) & (softmax <= 1)).all()
    identity = activate("identity", YES_NO, logits)
    order = np.argsort(identity, kind="stable")
    assert (np.diff(sigmoid[order]) >= 0).all()
    assert activate(lambda x: x, YES_NO, logits).tolist() == identity.tolist()


def test_a_callable_must_return_one_finite_score_a_pair():
    """Else the order would be anything."""
    logits = np.zeros((2, 1), dtype=np.float32)

    def total(x):
        return x.sum()

    with pytest.raises(ModelOutputError, match="total.*shape \\(\\) for 2 logits"):
        activate(total, ONE, logits)
    with pytest.raises(ModelOutputError, match="finite"):
        activate(lambda x: x + np.nan, ONE, logits)
    for wrong in ("a", None, ["a", "b"], [[1.0], [1.0, 2.0]], object()):
        with pytest.raises(ModelOutputError, match="for 2 logits; expected as many finite"):
            activate(lambda _, wrong=wrong: wrong, ONE, logits)
    assert activation_name(total).endswith("total")
    assert activation_name("sigmoid") == "sigmoid"
