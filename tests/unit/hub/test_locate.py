"""Names and paths that stand for no model, and directories that hold none."""

import shutil
import time
from pathlib import Path, PurePosixPath

import pytest

from qdrant_rerank import DEFAULT_RERANKER, OnnxEmbedder, SpladeEncoder, TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError, ModelFileError, UnknownModelError

NAMED = [TextCrossEncoder, OnnxEmbedder, SpladeEncoder]


@pytest.fixture(params=[TextCrossEncoder, OnnxEmbedder])
def load(request):
    """What takes a name or a path."""
    return request.param


@pytest.mark.parametrize("load", NAMED)
@pytest.mark.parametrize("name", ["", "  ", "\n"])
def test_an_empty_name_is_named(load, name, tmp_path, monkeypatch):
    """It is not the working directory."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="model_name is empty; expected the name of a mod"):
        load(name)
    with pytest.raises(InvalidInputError, match="specific_model_path is empty"):
        TextCrossEncoder("bge-reranker-base", specific_model_path=name)


@pytest.mark.parametrize("load", NAMED)
@pytest.mark.parametrize("name", [None, 3, b"model", ["model"]])
def test_a_name_of_another_type_is_named(load, name):
    """With its type."""
    with pytest.raises(InvalidInputError, match="model_name is a.*; expected a str or a path"):
        load(name)


@pytest.mark.parametrize("load", NAMED)
def test_a_path_of_any_kind_is_a_name(load, tmp_path):
    """Also one that pathlib does not know as a file's."""
    with pytest.raises(ModelFileError, match=str(tmp_path)):
        load(PurePosixPath(tmp_path))


@pytest.mark.parametrize("wrong", [5, 0, b"models", ["models"], "a\0b", "~no.such.user/models"])
@pytest.mark.parametrize("load", NAMED)
def test_a_cache_that_is_no_path_is_named(load, wrong, tmp_path, monkeypatch):
    """Of a bundled model too, which keeps there what is made of it."""
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path))
    for name in ("owner/model", *[DEFAULT_RERANKER] * (load is TextCrossEncoder)):
        with pytest.raises(
            InvalidInputError, match=r"cache_dir is .*; (expected|no path)|no\.such"
        ):
            load(name, cache_dir=wrong)


def test_other_arguments_are_checked_before_anything_is_fetched():
    """Their names are told."""
    with pytest.raises(InvalidInputError, match="revision is an int; expected a branch, tag or co"):
        TextCrossEncoder("owner/model", revision=5)
    for arguments in ({"max_length": "a"}, {"max_length": 0}, {"threads": "a"}):
        [name] = arguments
        for load in NAMED:
            with pytest.raises(InvalidInputError, match=f"{name} is .*; expected "):
                load("owner/model", **arguments)


@pytest.mark.parametrize(
    "name", ["a\0b", "x" * 5000, "a/" * 3000, "/no/such/model", "..", "a/../b"]
)
def test_a_name_that_nothing_can_have_is_unknown(name, tmp_path, monkeypatch):
    """Whatever the system says of such a path."""
    monkeypatch.chdir(tmp_path)
    expected = ModelFileError if name == ".." else UnknownModelError
    with pytest.raises(expected):
        TextCrossEncoder(name, local_files_only=True)
    with pytest.raises((ModelFileError, UnknownModelError)):
        OnnxEmbedder(name, local_files_only=True)


def test_a_large_tree_is_not_searched(load, tmp_path):
    """The ONNX file lies at the top or under onnx/; of many names, a few are listed."""
    for number in range(300):
        folder = tmp_path / f"project{number}"
        folder.mkdir()
        (folder / "model.onnx").touch()
        (tmp_path / f"export{number}.onnx").touch()
    began = time.perf_counter()
    with pytest.raises(
        ModelFileError, match=r"export0\.onnx, .*, \.\.\.\. Pass the path"
    ) as raised:
        load(tmp_path)
    assert time.perf_counter() - began < 1
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("file", ["onnx/model.onnx", "tokenizer.json", "config.json"])
def test_a_link_that_leads_nowhere_is_named(load, tiny_bert, tmp_path, file):
    """A configuration is not taken for absent."""
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    (folder / file).unlink()
    (folder / file).symlink_to(tmp_path / "blobs" / "0123")
    with pytest.raises(ModelFileError, match=f"{Path(file).name}.*0123"):
        load(folder)
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelFileError, match="link leads to .*gone, where there is no file"):
        load(tmp_path / "link")


def test_a_directory_in_the_place_of_the_file_is_named(load, tiny_bert, tmp_path):
    """Not opened."""
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    (folder / "onnx" / "model.onnx").unlink()
    (folder / "onnx" / "model.onnx").mkdir()
    with pytest.raises(ModelFileError, match="is a directory: there is no file"):
        load(folder)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_weights_of_pytorch_are_told_how_to_be_exported(tiny_bert, tmp_path, weights):
    """With the command."""
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    (folder / "onnx" / "model.onnx").rename(folder / weights)
    command = f"qdrant-rerank models export {folder} NEW_DIRECTORY"
    with pytest.raises(ModelFileError, match="Its weights are for PyTorch. Export") as raised:
        TextCrossEncoder(folder)
    assert command in str(raised.value)


@pytest.mark.parametrize("revision", ["../../x", "/etc/passwd", "", "a\\..\\b"])
def test_a_revision_is_no_path(revision):
    """It names a file of the cache."""
    with pytest.raises(InvalidInputError, match="expected a branch, a tag or a commit"):
        TextCrossEncoder("bge-reranker-base", revision=revision, local_files_only=True)
