"""Which files an ONNX file reads its weights from."""

import shutil
from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from qdrant_rerank import OnnxEmbedder, TextCrossEncoder
from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.hub.onnx_files import external_array, external_data, external_files


def tensor(location):
    """A tensor whose values lie in another file."""
    made = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    made.data_location = TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "4")):
        made.external_data.add(key=key, value=value)
    return made


def model_of(*locations):
    """A model that names its data in every place where a tensor can be."""
    first, *others = [tensor(location) for location in locations]
    inner = helper.make_graph([], "inner", [], [], initializer=others[:1])
    attributes = {"value": others[1], "values": others[2:3]} if len(others) > 2 else {}
    nodes = [helper.make_node("If", ["c"], ["d"], then_branch=inner, **attributes)]
    graph = helper.make_graph(nodes, "outer", [], [], initializer=[first])
    return helper.make_model(graph)


def written(folder, *locations):
    """The file of such a model."""
    path = folder / "model.onnx"
    path.write_bytes(model_of(*locations).SerializeToString())
    return path


def test_every_place_of_a_tensor_is_read(tmp_path):
    """Initialisers, subgraphs, attributes and lists of tensors; each file once."""
    path = written(tmp_path, "a", "b", "c", "d")
    assert sorted(external_data(path)) == ["a", "b", "c", "d"]
    assert external_data(written(tmp_path, "a", "a")) == ["a"]


def test_a_weight_beside_an_onnx_file_is_mapped(tmp_path):
    """By its name, at its place; a model without it, or damaged, is refused."""
    path = written(tmp_path, "weights")
    (tmp_path / "weights").write_bytes(np.float32([2.5, 3.5]).tobytes())
    assert external_array(path, "w", "<f4").tolist() == [2.5]
    assert external_array(path, "w", "i1").shape == (4,)
    with pytest.raises(ModelFileError, match="no weight other"):
        external_array(path, "other", "<f4")
    (tmp_path / "weights").write_bytes(b"")
    with pytest.raises(ModelFileError, match="cannot be read"):
        external_array(path, "w", "<f4")


def test_models_without_external_data_name_none(tiny_bert, tiny_xlmr):
    """The real ones of these tests."""
    for folder in (tiny_bert, tiny_xlmr):
        assert external_data(folder / "onnx" / "model.onnx") == []


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=2_000))
def test_a_file_that_is_cut_is_refused_or_names_nothing_new(tmp_path_factory, length):
    """Wherever the cut is, and never another error."""
    folder = tmp_path_factory.mktemp("cut")
    path = written(folder, "a", "b", "c", "d")
    content = path.read_bytes()
    path.write_bytes(content[: length % len(content)])
    with suppress(ModelFileError):
        assert set(external_data(path)) <= {"a", "b", "c", "d"}


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    """Never another error, and never without end."""
    path = tmp_path_factory.mktemp("any") / "model.onnx"
    path.write_bytes(content)
    with suppress(ModelFileError):
        external_data(path)


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../secret", "a/../../secret", "C:\\secret", "\\secret", "..\\secret", ""],
)
def test_data_outside_the_directory_is_refused(tmp_path, location):
    """Absolute or upwards, as any system writes it; before anything opens it."""
    (tmp_path / "secret").write_bytes(bytes(4))
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(ModelFileError, match="outside its own directory"):
        external_data(written(folder, location))


def test_links_out_of_the_directory_are_refused(tmp_path, tiny_bert):
    """Unless they lead where the ONNX file's own link leads, or to a place that is trusted."""
    (tmp_path / "secret").write_bytes(bytes(4))
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    path = written(folder, "weights")
    with pytest.raises(ModelFileError, match="'weights', which is not there"):
        external_files(path)
    (folder / "weights").symlink_to(tmp_path / "secret")
    for model in (TextCrossEncoder, OnnxEmbedder):
        with pytest.raises(ModelFileError, match="a link to .*secret, outside"):
            model(path)
    assert external_files(path, trusted=[tmp_path]) == [folder / "weights"]
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    path.rename(blobs / "0123")
    path.symlink_to(blobs / "0123")
    (folder / "weights").unlink()
    (folder / "weights").symlink_to((tmp_path / "secret").rename(blobs / "4567"))
    assert external_files(path) == [folder / "weights"]


def test_external_data_in_a_local_directory_loads(tmp_path, tiny_bert):
    """With the scores of the model in one file."""
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    file = folder / "onnx" / "model.onnx"
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="w", size_threshold=64)
    assert external_files(file) == [folder / "onnx" / "w"]
    documents = ["bread rises", "the sea"]
    expected = TextCrossEncoder(tiny_bert).rerank("which bread rises?", documents)
    found = TextCrossEncoder(folder).rerank("which bread rises?", documents)
    assert found == pytest.approx(expected, abs=1e-6)
