"""Logits -> scores, and which activation "auto" is."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qdrant_rerank.cross_encoder.activations import (
    activate,
    activation_name,
    choose_activation,
    order_logits,
    require_activation,
)
from qdrant_rerank.cross_encoder.heads import Head
from qdrant_rerank.cross_encoder.model_config import ModelConfig
from qdrant_rerank.errors import InvalidInputError, ModelFileError, ModelOutputError

ONE, TWO, YES_NO = Head(1), Head(2, column=1), Head(2, column=1, log_odds=True)
LOGITS_OF_RECORD = [-7.5, -1.0, -0.3, 0.0, 0.2, 1.0, 7.0]
RECORDED = {
    "Identity": [-7.5, -1.0, -0.3, 0.0, 0.2, 1.0, 7.0],
    "Sigmoid": [0.000552779, 0.268941, 0.425557, 0.5, 0.549834, 0.731059, 0.999089],
    "Tanh": [-0.999999, -0.761594, -0.291313, 0.0, 0.197375, 0.761594, 0.999998],
    "ReLU": [0.0, 0.0, 0.0, 0.0, 0.2, 1.0, 7.0],
    "ReLU6": [0.0, 0.0, 0.0, 0.0, 0.2, 1.0, 6.0],
    "Hardtanh": [-1.0, -1.0, -0.3, 0.0, 0.2, 1.0, 1.0],
    "Hardsigmoid": [0.0, 0.333333, 0.45, 0.5, 0.533333, 0.666667, 1.0],
    "SiLU": [-0.00414584, -0.268941, -0.127667, 0.0, 0.109967, 0.731059, 6.99362],
    "Mish": [-0.00414699, -0.303401, -0.151133, 0.0, 0.132599, 0.865098, 6.99999],
    "Hardswish": [-0.0, -0.333333, -0.135, 0.0, 0.106667, 0.666667, 7.0],
    "ELU": [-0.999447, -0.632121, -0.259182, 0.0, 0.2, 1.0, 7.0],
    "CELU": [-0.999447, -0.632121, -0.259182, 0.0, 0.2, 1.0, 7.0],
    "SELU": [-1.75713, -1.11133, -0.455667, 0.0, 0.21014, 1.0507, 7.35491],
    "GELU": [-0.0, -0.158655, -0.114627, 0.0, 0.115852, 0.841345, 7.0],
    "Hardshrink": [-7.5, -1.0, 0.0, 0.0, 0.0, 1.0, 7.0],
    "LeakyReLU": [-0.075, -0.01, -0.003, 0.0, 0.2, 1.0, 7.0],
    "LogSigmoid": [-7.50055, -1.31326, -0.854355, -0.693147, -0.598139, -0.313262, -0.000911466],
    "Softplus": [0.000552931, 0.313262, 0.554355, 0.693147, 0.798139, 1.31326, 7.00091],
    "Softshrink": [-7.0, -0.5, -0.0, 0.0, 0.0, 0.5, 6.5],
    "Softsign": [-0.882353, -0.5, -0.230769, 0.0, 0.166667, 0.5, 0.875],
    "Tanhshrink": [-6.5, -0.238406, -0.00868738, 0.0, 0.00262468, 0.238406, 6.0],
    "PReLU": [-1.875, -0.25, -0.075, 0.0, 0.2, 1.0, 7.0],
}
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


@pytest.mark.parametrize(
    "path",
    ["os.system", "evil.Sigmoid", "torch.nn.RReLU", "torch.nn.Linear", "torch.hub.load", "torch"],
)
def test_a_path_that_is_not_known_is_named_and_never_run(tmp_path, path):
    """The default of sentence-transformers is used, and said to be; the file is named."""
    read = config(tmp_path, sbert_ce_default_activation_function=path)
    with pytest.warns(UserWarning, match=f"/config.json names the activation '{path}'"):
        assert choose_activation("auto", read, ONE) == "sigmoid"
    own = tmp_path / "config_sentence_transformers.json"
    own.write_text(json.dumps({"activation_fn": path}))
    with pytest.warns(UserWarning, match=f"{own} names the activation '{path}'"):
        assert choose_activation("auto", ModelConfig.read(tmp_path), ONE) == "sigmoid"


@pytest.mark.parametrize(("name", "values"), RECORDED.items())
def test_every_activation_of_torch_is_known(tmp_path, name, values):
    """By the values that torch 2.13 gave, and by either path that names the class."""
    for path in (f"torch.nn.{name}", f"torch.nn.modules.activation.{name}"):
        read = config(tmp_path, sentence_transformers={"activation_fn": path})
        found = choose_activation("auto", read, ONE)
        scores = activate(found, ONE, np.array(LOGITS_OF_RECORD, dtype=np.float32)[:, None])
        assert scores.dtype == np.float64
        assert scores == pytest.approx(values, rel=1e-4, abs=1e-6)
        assert activation_name(found).lower() == name.lower()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Softmax", [0.0474259, 0.5, 0.999089]),
        ("Softmin", [0.952574, 0.5, 0.000911051]),
        ("LogSoftmax", [-3.04859, -0.693147, -0.000911466]),
    ],
)
def test_activations_over_labels_are_those_of_torch(tmp_path, name, values):
    """Of column 1 of two; of one label they would be equal for every pair."""
    read = config(tmp_path, sentence_transformers={"activation_fn": f"torch.nn.{name}"})
    logits = np.array([[1, -2], [0.5, 0.5], [-3, 4]], dtype=np.float32)
    found = choose_activation("auto", read, TWO)
    assert activate(found, TWO, logits) == pytest.approx(values, rel=1e-4)
    order = np.argsort(activate(found, TWO, logits))
    assert np.argsort(order_logits(found, TWO, logits)).tolist() == order.tolist()
    with pytest.raises(InvalidInputError, match="softmax is always 1"):
        choose_activation("auto", read, ONE)


def test_a_module_of_torch_is_refused_at_construction():
    """It takes tensors; the class itself and what derives from it as well."""
    module = type("Module", (), {"__module__": "torch.nn.modules.module", "__call__": min})
    own = type("Own", (module,), {})
    for activation in (module, module(), own()):
        with pytest.raises(InvalidInputError, match="a module of torch, which takes tensors"):
            require_activation(activation)


def test_a_choice_wins_over_the_configuration(tmp_path):
    """Whatever the model says."""
    read = config(tmp_path, sbert_ce_default_activation_function="torch.nn.Identity")
    assert choose_activation("sigmoid", read, ONE) == "sigmoid"
    with pytest.raises(InvalidInputError, match="softmax is always 1"):
        choose_activation("softmax", read, ONE)


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ({"model_type": 3}, "model_type is 3; expected a string"),
        ({"id2label": ["a"]}, r"id2label is \['a'\]; expected an object"),
        ({"id2label": {"0": 1}}, "id2label is {'0': 1}; expected a name for each column"),
        ({"label2id": {"a": "x"}}, "label2id: a is 'x'; expected a whole number"),
        ({"label2id": "a"}, "label2id is 'a'; expected an object"),
        ({"architectures": [1]}, r"architectures is \[1\]; expected a list of str"),
        ({"sentence_transformers": "x"}, "sentence_transformers is 'x'; expected an object"),
        ({"sentence_transformers": {"activation_fn": []}}, "activation_fn is .*expected a string"),
        ({"sbert_ce_default_activation_function": 1}, "is 1; expected a string"),
    ],
)
def test_a_field_of_a_wrong_type_is_named(tmp_path, content, seen):
    """With its file."""
    with pytest.raises(ModelFileError, match=rf"{tmp_path}/config\.json: .*{seen}"):
        config(tmp_path, **content)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelFileError, match=r"config\.json is not readable JSON .*too deep"):
        ModelConfig.read(tmp_path)


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
    with pytest.raises(ModelOutputError, match="failed on 2 logits.*AttributeError: .*detach"):
        activate(lambda x: x.detach(), ONE, logits)
    assert activation_name(total).endswith("total")
    assert activation_name("sigmoid") == "sigmoid"
