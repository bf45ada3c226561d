"""ONNX files of other shapes: several outputs, and rows of one length only."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError, ModelFileError, ModelOutputError
from tests.models import variants
from tests.models.build import recorded_pairs

PAIRS = recorded_pairs()


def test_the_output_can_be_named(tiny_bert, tmp_path):
    """A file whose logits are not its first output, nor called so."""

    def edit(model):
        for part in (*model.graph.node, *model.graph.output):
            names = part.output if hasattr(part, "output") else None
            if names is not None:
                names[:] = ["relevance" if name == "logits" else name for name in names]
            elif part.name == "logits":
                part.name = "relevance"
        states = variants.LAST_STATES["tiny-bert"]
        node = variants.helper.make_node("Identity", [states], ["last_hidden_state"])
        model.graph.node.append(node)
        shown = variants.helper.make_tensor_value_info(
            "last_hidden_state", variants.TensorProto.FLOAT, ["batch_size", "sequence_length", None]
        )
        model.graph.output.insert(0, shown)

    model = variants.edited(tiny_bert, tmp_path / "model", edit)
    expected = TextCrossEncoder(tiny_bert).rerank("bread", ["oven", "sea"])
    with pytest.raises(ModelOutputError, match="another model"):
        TextCrossEncoder(model)
    assert TextCrossEncoder(model, output="relevance").rerank("bread", ["oven", "sea"]) == expected
    with pytest.raises(InvalidInputError, match=r"'logit'.*last_hidden_state, relevance"):
        TextCrossEncoder(model, output="logit")
    with pytest.raises(InvalidInputError, match="expected the name of an ONNX output"):
        TextCrossEncoder(model, output="")


def fixed(source, target, width, rows="batch_size"):
    """A copy whose graph takes rows of one length only."""

    def edit(model):
        for each in model.graph.input:
            sizes = each.type.tensor_type.shape.dim
            sizes[1].dim_value = width
            if isinstance(rows, int):
                sizes[0].dim_value = rows

    return variants.edited(source, target, edit)


@pytest.fixture(scope="module")
def fixed_length(tiny_bert, tmp_path_factory):
    """A model that was exported for 48 tokens."""
    model = fixed(tiny_bert, tmp_path_factory.mktemp("fixed") / "model", 48)
    return TextCrossEncoder(model, engine="onnxruntime")


@pytest.fixture(scope="module")
def cut(tiny_bert):
    """Scores of the file without a fixed length, with texts cut to the same length."""
    return list(TextCrossEncoder(tiny_bert, max_length=48).rerank_pairs(PAIRS))


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(len(PAIRS))), size=st.none() | st.integers(1, 4))
def test_exports_of_a_fixed_length_run_padded(fixed_length, cut, order, size):
    """Their scores are those of the file without a fixed length, cut to it."""
    assert fixed_length.max_length == 48
    pairs = [PAIRS[at] for at in order]
    found = list(fixed_length.rerank_pairs(pairs, batch_size=size))
    assert found == pytest.approx([cut[at] for at in order], abs=1e-5)


def test_a_shorter_max_length_is_padded_to_the_fixed_one(tiny_bert, tmp_path):
    """max_length says what is read, the file how wide a row is; one row at a time works too."""
    model = fixed(tiny_bert, tmp_path / "model", 48, rows=1)
    expected = list(TextCrossEncoder(tiny_bert, max_length=24).rerank_pairs(PAIRS))
    found = TextCrossEncoder(model, max_length=24, engine="onnxruntime")
    assert list(found.rerank_pairs(PAIRS)) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(InvalidInputError, match="exported for exactly 48 tokens"):
        TextCrossEncoder(model, max_length=64)


def test_a_fixed_number_of_pairs_is_refused(tiny_bert, tmp_path):
    """With the reason."""
    with pytest.raises(ModelFileError, match="batches of exactly 8 pairs"):
        TextCrossEncoder(fixed(tiny_bert, tmp_path / "model", 48, rows=8))
