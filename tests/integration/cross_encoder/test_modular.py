"""Modular cross-encoders of sentence-transformers, whose ONNX file holds the backbone alone."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError, ModelFileError, ModelOutputError
from tests.models import variants

MODULAR = Path(__file__).parents[2] / "models" / "tiny-modular"
RECORDED = json.loads((MODULAR / "scores.json").read_text(encoding="utf-8"))
PAIRS = [tuple(pair) for pair in RECORDED["pairs"]]
TOLERANCE = 1e-4


def scores(directory, **options):
    """Scores of the recorded pairs."""
    encoder = TextCrossEncoder(directory, activation="auto", engine="onnxruntime", **options)
    return list(encoder.rerank_pairs(PAIRS))


@pytest.fixture
def copy(tmp_path):
    """A copy to change."""
    return shutil.copytree(MODULAR, tmp_path / "model")


def change(path, **content):
    """Change fields of a JSON file; None takes a field out."""
    fields = json.loads(path.read_text()) | content
    path.write_text(
        json.dumps({name: value for name, value in fields.items() if value is not None})
    )


def pooled(directory, mode):
    """A copy with another pooling."""
    change(directory / "1_Pooling" / "config.json", pooling_mode=mode)
    return directory


def test_scores_equal_sentence_transformers():
    """On every recorded pair: other scripts, empty texts, more than the max length."""
    assert scores(MODULAR) == pytest.approx(RECORDED["scores"], abs=TOLERANCE)
    assert max(RECORDED["scores"]) - min(RECORDED["scores"]) > 0.1


@pytest.mark.parametrize("mode", [mode for mode in RECORDED["poolings"] if "+" not in mode])
def test_every_pooling_equals_sentence_transformers(copy, mode):
    """Each way to make one vector of the tokens' states."""
    expected = RECORDED["poolings"][mode]
    assert scores(pooled(copy, mode)) == pytest.approx(expected, abs=TOLERANCE)


def test_the_old_names_of_poolings(copy):
    """Files that were written before version 5.4 have one true or false for each way."""
    path = copy / "1_Pooling" / "config.json"
    change(path, pooling_mode=None, pooling_mode_mean_tokens=True, pooling_mode_cls_token=False)
    assert scores(copy) == pytest.approx(RECORDED["poolings"]["mean"], abs=TOLERANCE)


def test_normalised_and_residual_layers(copy):
    """A head of other parts: Normalize, and layers that add what they read."""
    for path in (copy / "deep").iterdir():
        place = copy / path.name
        if place.is_dir():
            shutil.rmtree(place)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, place)
    assert scores(copy) == pytest.approx(RECORDED["deep"], abs=TOLERANCE)


@settings(max_examples=8, deadline=None)
@given(
    order=st.permutations(range(len(PAIRS))),
    size=st.integers(1, 6),
    mode=st.sampled_from(["cls", "max", "mean", "weightedmean", "lasttoken"]),
)
def test_companions_and_padding_never_change_a_score(tmp_path_factory, order, size, mode):
    """Whatever the pooling, padding is not read."""
    copy = shutil.copytree(MODULAR, tmp_path_factory.mktemp("modular") / "model")
    encoder = TextCrossEncoder(pooled(copy, mode), activation="auto", engine="onnxruntime")
    found = list(encoder.rerank_pairs([PAIRS[at] for at in order], batch_size=size))
    expected = [RECORDED["poolings"][mode][at] for at in order]
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_a_file_with_logits_is_read_as_before(tiny_bert, tmp_path):
    """modules.json beside a file that returns logits changes nothing."""
    model = variants.copy_of(tiny_bert, tmp_path / "model")
    expected = TextCrossEncoder(model).rerank("bread", ["oven", "sea"])
    shutil.copy(MODULAR / "modules.json", model)
    assert TextCrossEncoder(model).rerank("bread", ["oven", "sea"]) == expected


def test_token_states_without_modules_are_refused(copy):
    """Without modules.json nothing tells what the states mean."""
    (copy / "modules.json").unlink()
    with pytest.raises(ModelOutputError, match="embedding or another model"):
        TextCrossEncoder(copy)


def test_a_module_that_is_not_known_is_named(copy):
    """With what can be run, and the command that exports all of it."""
    path = copy / "modules.json"
    path.write_text(path.read_text().replace("Dense", "Convolution"))
    with pytest.raises(ModelFileError, match=r"Convolution.*Pooling, Dense.*models export"):
        TextCrossEncoder(copy)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root / "4_Dense" / "model.safetensors").unlink(), "is not there"),
        (lambda root: (root / "2_Dense" / "model.safetensors").write_bytes(b"x"), "safetensors"),
        (lambda root: (root / "modules.json").write_text("{"), "not a list of modules"),
        (
            lambda root: change(root / "4_Dense" / "config.json", module_output_name="logits"),
            "module_output_name is 'scores'",
        ),
        (
            lambda root: change(root / "2_Dense" / "config.json", activation_function="os.system"),
            "activation_function is 'os.system'",
        ),
        (lambda root: pooled(root, "median"), "pooling_mode is 'median'"),
        (
            lambda root: (root / "modules.json").write_text(
                (root / "modules.json").read_text().replace("1_Pooling", "../elsewhere")
            ),
            "outside its own directory",
        ),
    ],
)
def test_a_damaged_head_is_an_error_of_ours(copy, damage, said):
    """Before anything is scored."""
    damage(copy)
    with pytest.raises(ModelFileError, match=said):
        TextCrossEncoder(copy)


def test_it_is_pickled_and_cached_by_its_head(copy):
    """A copy in another process has the head; another head is not scored by the cache of this."""
    first = TextCrossEncoder(copy, activation="auto", engine="onnxruntime", score_cache=1_000_000)
    before = first.rerank(*PAIRS[0][:1], [PAIRS[0][1]])
    assert pickle.loads(pickle.dumps(first)).rerank(PAIRS[0][0], [PAIRS[0][1]]) == before
    pooled(copy, "mean")
    other = TextCrossEncoder(
        copy, activation="auto", engine="onnxruntime", score_cache=first.score_cache
    )
    assert other.rerank(PAIRS[0][0], [PAIRS[0][1]]) != before


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
