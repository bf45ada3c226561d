"""Modular cross-encoders of sentence-transformers, whose ONNX file holds the backbone alone."""

import json
import pickle
import shutil
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.errors import ModelFileError, ModelOutputError
from tests.hub_server import hub_of
from tests.hub_worker import worker
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
    """With what can be run, and what else there is."""
    path = copy / "modules.json"
    path.write_text(path.read_text().replace("Dense", "Convolution"))
    with pytest.raises(ModelFileError, match=r"Convolution.*Pooling, Dense.*whole model"):
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
        (lambda root: pooled(root, [["mean"]]), "pooling_mode is"),
        (lambda root: pooled(root, []), "pooling_mode is"),
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


def test_a_modular_model_of_the_hub(tmp_path):
    """By a registered name: the head is fetched with the ONNX file, and once."""
    name = "cross-encoder/ettin-reranker-17m-v1"
    here = TextCrossEncoder(MODULAR).rerank("which bread rises?", ["bread rises", "the sea"])
    with hub_of({name: MODULAR}) as hub, worker(hub) as process:
        found = process.score("ettin-reranker-17m-v1", cache_dir=tmp_path)
        fetched = hub.fetched()
        assert process.score(name, cache_dir=tmp_path) == found
        assert hub.fetched() == fetched
    assert found == pytest.approx(here, abs=1e-6)
    assert fetched.count("model.safetensors") == 3  # 2_Dense, 3_LayerNorm, 4_Dense
    assert not list(tmp_path.rglob("deep"))


def test_a_registered_model_without_a_known_file(tmp_path):
    """What the repository has is loaded; if that is for PyTorch, the command that exports it."""
    name = "cross-encoder/ettin-reranker-1b-v1"
    torch = shutil.copytree(MODULAR, tmp_path / "torch")
    shutil.rmtree(torch / "onnx")
    (torch / "model.safetensors").write_bytes(b"weights")
    with hub_of({name: torch}) as hub, worker(hub) as process:
        said = process.score(name, cache_dir=tmp_path / "cache")
        assert f"qdrant-rerank models export {name} NEW_DIRECTORY" in said
        assert "model.safetensors" not in hub.fetched()
        hub.repositories[name] = MODULAR
        assert isinstance(process.score(name, cache_dir=tmp_path / "other"), list)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_recorded_scores_are_those_of_sentence_transformers(tmp_path):
    """Made again by its own CrossEncoder, and compared with ours on the model made again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch", reason="torch is not installed: make adapters")
        pytest.importorskip("sentence_transformers", reason="make adapters")
    from tests.models.modular import build_modular

    build_modular(tmp_path / "made")
    again = json.loads((tmp_path / "made" / "scores.json").read_text(encoding="utf-8"))
    for theirs, recorded in (
        (again["scores"], RECORDED["scores"]),
        (again["deep"], RECORDED["deep"]),
        *((again["poolings"][mode], scores) for mode, scores in RECORDED["poolings"].items()),
    ):
        assert theirs == pytest.approx(recorded, abs=1e-5)
    assert scores(tmp_path / "made") == pytest.approx(again["scores"], abs=TOLERANCE)
