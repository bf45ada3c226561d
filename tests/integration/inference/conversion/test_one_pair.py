"""The bundled graphs' attention without a mask, of one pair and of one text."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from qdrant_rerank import DEFAULT_RERANKER
from qdrant_rerank.hub.locate import locate
from qdrant_rerank.inference.conversion.dequantize import dequantized

BUNDLED = [DEFAULT_RERANKER, "grown-minilm-l3-v2"]
TRAINING = Path(__file__).parents[4] / "training"


def inputs(*lengths, padded_to=None, document_first=False):
    """Pairs of so many tokens of the query and of the document."""
    width = padded_to or max(map(sum, lengths))
    ids, mask, types = np.zeros((3, len(lengths), width), dtype=np.int64)
    for row, (asked, read) in enumerate(lengths):
        ids[row, : asked + read] = np.random.default_rng(row).integers(1000, 20000, asked + read)
        mask[row, : asked + read] = 1
        types[row, asked : asked + read] = 1
        if document_first:
            types[row, : asked + read] = 1 - types[row, : asked + read]
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


ONE = {
    "pair": inputs((8, 40)),
    "short pair": inputs((3, 2)),
    "long pair": inputs((60, 340)),
    "text": inputs((30, 0)),
}
ANY = {
    "padded": inputs((8, 40), padded_to=52),
    "two pairs": inputs((8, 40), (8, 40)),
    "two lengths": inputs((8, 40), (20, 12)),
    "document first": inputs((8, 40), document_first=True),
}


def fuse(path):
    """What ``training/fuse.py`` does to a file."""
    spec = importlib.util.spec_from_file_location("fuse", TRAINING / "fuse.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.fuse(path)


@pytest.fixture(scope="module", params=BUNDLED)
def files(request, tmp_path_factory):
    """The weights of a bundled model in floats: as converted, and fused again."""
    folder = tmp_path_factory.mktemp("floats")
    source = locate(request.param).model
    with dequantized(source, [source.with_name("weights.bin")], folder) as made:
        plain, fused = (Path(shutil.copy(made, folder / name)) for name in ("plain", "fused"))
    fuse(fused)
    return plain, fused


@pytest.mark.parametrize("name", ONE | ANY)
def test_both_forms_give_the_same(files, name):
    """Logits, and the vector of a text, in floats."""
    found = [onnxruntime.InferenceSession(file).run(None, (ONE | ANY)[name]) for file in files]
    for expected, got in zip(*found, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("model", BUNDLED)
@pytest.mark.parametrize("name", ONE | ANY)
def test_a_mask_is_added_only_where_one_is_needed(model, name, tmp_path):
    """Softmax is an operator of the masked form alone."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(locate(model).model, options)
    session.run(["logits"], (ONE | ANY)[name])
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = {event.get("args", {}).get("op_name") for event in events}
    assert {"MultiHeadAttention", "Softmax"} & ran == (
        {"MultiHeadAttention"} if name in ONE else {"Softmax"}
    )


def test_a_conversion_has_operators_of_the_standard_alone(files):
    """Converters for a GPU and other engines know no others."""
    nodes = onnx.load(files[0]).graph.node
    assert {node.domain for node in nodes} == {""}
    assert "If" not in {node.op_type for node in nodes}


@pytest.mark.parametrize("model", BUNDLED)
def test_a_fused_file_stays_as_it_is(model, tmp_path):
    """To the byte."""
    made = Path(shutil.copy(locate(model).model, tmp_path))
    fuse(made)
    assert made.read_bytes() == locate(model).model.read_bytes()
