"""Files for GPUs: fused attention, fp16 with inputs and outputs kept, made once."""

import collections
import logging
import subprocess
import sys

import onnx
import pytest

from qdrant_rerank import ScoreCache, TextCrossEncoder
from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.inference.conversion.gpu import (
    Encoder,
    convert_for_gpu,
    largest_difference,
)
from tests.models import variants
from tests.models.build import WORDS

QUERY = "which bread rises?"
DOCUMENTS = [" ".join(WORDS[n : n + 3 + n % 40]) for n in range(0, 400, 10)]
WITHOUT = """
import logging, sys
for name in sys.argv[3].split():
    sys.modules[name] = None
from pathlib import Path
from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.inference.conversion.gpu import Encoder, convert_for_gpu
directory, cache = Path(sys.argv[1]), Path(sys.argv[2])
try:
    print(TextCrossEncoder(directory, precision="fp16", cache_dir=cache).precision)
except Exception as error:
    print(type(error).__name__, error)
encoder = Encoder.read(directory)
with convert_for_gpu(directory / "onnx/model.onnx", [], cache, encoder=encoder, half=False) as made:
    print(made == directory / "onnx/model.onnx")
"""


@pytest.fixture(scope="module")
def eager(tiny_bert):
    """Attention written out, as most published files have it."""
    return tiny_bert.parent / "tiny-bert-eager"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where artifacts of this module are kept."""
    return tmp_path_factory.mktemp("artifacts")


def made_of(directory, cache, tmp_path, *, half, fused=True):
    """A copy of the model's directory with the file for GPUs, and that file's operators."""
    encoder = Encoder.read(directory) if fused else None
    copy = variants.copy_of(directory, tmp_path / "copy")
    source = directory / "onnx" / "model.onnx"
    with convert_for_gpu(source, [], cache, encoder=encoder, half=half) as made:
        (copy / "onnx" / "model.onnx").write_bytes(made.read_bytes())
        graph = onnx.load(made).graph
    return copy, graph


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["tiny-bert-eager", "tiny-bert", "tiny-xlmr"])
def test_scores_stay(name, half, tiny_bert, cache, tmp_path):
    """In fp32 to 1e-4, in fp16 to 2e-2, padded and not; inputs and outputs are as they were."""
    directory = tiny_bert.parent / name
    copy, graph = made_of(directory, cache, tmp_path, half=half)
    before = onnx.load(directory / "onnx" / "model.onnx").graph
    for mine, theirs in ((graph.input, before.input), (graph.output, before.output)):
        assert [(one.name, one.type.tensor_type.elem_type) for one in mine] == [
            (one.name, one.type.tensor_type.elem_type) for one in theirs
        ]
    scores = TextCrossEncoder(copy, engine="onnxruntime").rerank(QUERY, DOCUMENTS, batch_size=9)
    expected = TextCrossEncoder(directory, engine="onnxruntime").rerank(QUERY, DOCUMENTS)
    assert scores == pytest.approx(expected, abs=2e-2 if half else 1e-4)
    weights = collections.Counter(
        onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in graph.initializer
    )
    assert ("FLOAT16" in weights) == half


def test_attention_becomes_one_operator(eager, cache, tmp_path):
    """So do a normalisation with its residual sum, and a GELU with its bias."""
    _, graph = made_of(eager, cache, tmp_path, half=True)
    operators = collections.Counter(node.op_type for node in graph.node)
    assert operators["Attention"] == 2
    assert operators["SkipLayerNormalization"] == 4
    assert operators["BiasGelu"] == 2
    assert not operators["Softmax"]
    assert sum(operators.values()) < 30


def test_a_published_fp16_file_is_fused(eager, cache, tmp_path, capfd):
    """By way of fp32, since a CPU, on which that is done, has no operators of fp16."""
    copy, _ = made_of(eager, cache, tmp_path, half=True, fused=False)
    source = copy / "onnx" / "model.onnx"
    expected = TextCrossEncoder(copy, engine="onnxruntime").rerank(QUERY, DOCUMENTS)
    encoder = Encoder.read(eager)
    with convert_for_gpu(source, [], cache, encoder=None, half=True, from_half=True) as made:
        assert made == source
    with convert_for_gpu(source, [], cache, encoder=encoder, half=True, from_half=True) as made:
        graph = onnx.load(made).graph
        source.write_bytes(made.read_bytes())
    assert sum(node.op_type == "Attention" for node in graph.node) == 2
    assert onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in graph.initializer}
    scores = TextCrossEncoder(copy, engine="onnxruntime").rerank(QUERY, DOCUMENTS)
    assert scores == pytest.approx(expected, abs=2e-2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ["tiny-bert-eager", "tiny-xlmr", "tiny-deberta"])
def test_what_follows_the_last_normalisation_stays_in_fp32(name, fused, tiny_bert, cache, tmp_path):
    """Its weights, and each result that goes from one operator of it to the next."""
    _, graph = made_of(tiny_bert.parent / name, cache, tmp_path, half=True, fused=fused)
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    [bias] = [name for name in kinds if name.endswith(("classifier.bias", "out_proj.bias"))]
    assert kinds[bias] == full
    assert list(kinds.values()).count(half) > list(kinds.values()).count(full) > 1
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "Cast" and node.attribute[0].i == full:
            before = makers.get(node.input[0])
            assert before is None or before.op_type != "Cast" or before.attribute[0].i != half


@pytest.mark.parametrize("name", ["tiny-deberta", "tiny-modernbert", "tiny-qwen3"])
def test_other_families_are_converted_as_they_are(name, tiny_bert, cache, caplog):
    """The optimizer does not know them; each says that fp16 is slower on a CPU."""
    directory = tiny_bert.parent / name
    assert Encoder.read(directory) is None
    with caplog.at_level(logging.WARNING):
        half = TextCrossEncoder(directory, precision="fp16", cache_dir=cache)
        TextCrossEncoder(directory, precision="fp16", cache_dir=cache)
    assert caplog.text.count("fp16 on a CPU, which is slower") == 1
    assert half.precision == "fp16"
    expected = TextCrossEncoder(directory, engine="onnxruntime").rerank(QUERY, DOCUMENTS[:8])
    assert half.rerank(QUERY, DOCUMENTS[:8]) == pytest.approx(expected, abs=3e-2)


def test_it_is_made_once_and_stated(tiny_xlmr, tmp_path):
    """And a score cache tells it from fp32."""
    shared = ScoreCache(1_000_000)
    options = {"cache_dir": tmp_path, "score_cache": shared}
    full = TextCrossEncoder(tiny_xlmr, precision="fp32", **options)
    half = TextCrossEncoder(tiny_xlmr, precision="fp16", **options)
    assert half.rerank(QUERY, DOCUMENTS) != full.rerank(QUERY, DOCUMENTS)
    assert shared.hits == 0
    assert half.score_pairs([(QUERY, "rye")]).precision == "fp16"
    assert "fp16" in repr(half)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("fp16-*/*")}
    assert len(before) == 2  # the model and its manifest
    TextCrossEncoder(tiny_xlmr, precision="fp16", **options)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("fp16-*/*")} == before


def test_a_published_fp16_file_is_taken_as_it_is(tiny_xlmr, cache, tmp_path):
    """Nothing is made."""
    copy, _ = made_of(tiny_xlmr, cache, tmp_path, half=True, fused=False)
    published = copy / "onnx" / "model_fp16.onnx"
    (copy / "onnx" / "model.onnx").rename(published)
    encoder = TextCrossEncoder(copy, precision="fp16", cache_dir=tmp_path / "none")
    assert "fp16" in repr(encoder)
    assert "model_fp16.onnx" in repr(encoder)
    assert not list((tmp_path / "none").rglob("fp16-*"))


@pytest.mark.parametrize(
    ("without", "first"),
    [
        ("onnx sympy", "MissingDependencyError"),
        ("sympy", "fp16"),
    ],
)
def test_without_what_makes_it_the_command_is_named(eager, tmp_path, without, first):
    """Attention that cannot be fused is left as it is; nothing else fails."""
    command = [sys.executable, "-c", WITHOUT, eager, tmp_path, without]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said, same = done.stdout.splitlines()
    assert said.startswith(first)
    assert first == "fp16" or 'pip install "qdrant-rerank[gpu]"' in said
    assert same == "True"


@pytest.mark.parametrize("linked", [False, True])
def test_external_data_is_read(eager, cache, tmp_path, linked):
    """Weights beside the file, which in the hub's cache are links; the source is left alone."""
    made = variants.copy_of(eager, tmp_path / "m")
    path = made / "onnx" / "model.onnx"
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    data = [path.parent / "weights.bin"]
    if linked:
        (tmp_path / "blobs").mkdir()
        for number, file in enumerate((path, *data)):
            blob = tmp_path / "blobs" / str(number)
            file.rename(blob)
            file.symlink_to(blob)
    before = sorted(made.rglob("*"))
    found = {}
    for encoder in (Encoder.read(made), None):
        with convert_for_gpu(path, data, cache, encoder=encoder, half=True) as file:
            found[encoder is None] = onnx.load(file).graph
    assert sum(node.op_type == "Attention" for node in found[False].node) == 2
    assert any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in found[True].initializer)
    assert sorted(made.rglob("*")) == before


def test_what_is_no_model_is_refused(eager, tmp_path):
    """By name."""
    broken = variants.truncated(eager, tmp_path / "m") / "onnx" / "model.onnx"
    for encoder in (Encoder.read(eager), None):
        with (
            pytest.raises(ModelFileError, match="cannot be"),
            convert_for_gpu(broken, [], tmp_path / "c", encoder=encoder, half=True),
        ):
            pass


def test_a_fusion_that_changes_answers_would_be_seen(eager, tmp_path):
    """On pairs with padding, by the logits; and heads that the model does not have fuse nothing."""
    source = eager / "onnx" / "model.onnx"
    assert largest_difference(source, source) == 0

    def double(model):
        [bias] = [one for one in model.graph.initializer if one.name == "classifier.bias"]
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))

    changed = variants.edited(eager, tmp_path / "m", double) / "onnx" / "model.onnx"
    assert largest_difference(source, changed) == pytest.approx(1, abs=1e-5)
    wrong = Encoder("bert", heads=4, width=32)
    with convert_for_gpu(source, [], tmp_path / "c", encoder=wrong, half=False) as made:
        assert largest_difference(source, made) < 1e-4
