"""A model's name or path -> the files to load, fetched from the hub where they must be.

huggingface_hub does the transfer and the caching; only the files that are needed come.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from qdrant_rerank.errors import InvalidInputError, ModelFileError, UnknownModelError
from qdrant_rerank.models import BUNDLED_DIRECTORY, Precision
from qdrant_rerank.registry import find_model

__all__ = ["ModelFiles", "Precision", "download", "locate", "locate_embedder"]

TOKENIZER_FILES = (
    "tokenizer.json",
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
# Names under which exporters publish each precision, best known first.
FILES_OF_PRECISION = {
    "auto": ("model.onnx",),
    "fp32": ("model.onnx",),
    "int8": ("model_int8.onnx", "model_quantized.onnx"),
    "fp16": ("model_fp16.onnx",),
    "q4f16": ("model_q4f16.onnx",),
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model lies on disk.

    Attributes:
        name: what to call it.
        model: the ONNX file.
        tokenizer: the directory that holds ``tokenizer.json``.
    """

    name: str
    model: Path
    tokenizer: Path


def locate(
    model_name: str | Path,
    *,
    precision: Precision = "auto",
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    specific_model_path: str | Path | None = None,
) -> ModelFiles:
    """Find a model's files, downloading those of a hub model that are not cached.

    Args:
        model_name: a registered or bundled name, a directory, or an ``.onnx`` file.
        precision: which file of the model; "auto" is the one it is registered with.
        revision: a hub branch, tag or commit.
        cache_dir: where downloads are kept; else ``QDRANT_RERANK_CACHE``, else the hub's own.
        local_files_only: never touch the network.
        specific_model_path: a directory to load the named model from instead.

    Raises:
        UnknownModelError: no such name or path.
        ModelFileError: a file is missing or could not be fetched.
        InvalidInputError: the model has no file of that precision.
    """
    if precision not in get_args(Precision):
        raise InvalidInputError(
            f"precision is {precision!r}; expected one of {', '.join(get_args(Precision))}."
        )
    if specific_model_path is not None:
        return _in_directory(str(model_name), Path(specific_model_path), precision)
    try:
        spec = find_model(str(model_name))
    except UnknownModelError:
        path = Path(model_name).expanduser()
        if path.is_dir():
            return _in_directory(path.name, path, precision)
        if path.is_file():
            return _beside(path.stem, path)
        raise
    entry = spec.file(precision)
    file = entry.path
    if spec.sources is None:
        root = BUNDLED_DIRECTORY / spec.model
        return ModelFiles(spec.model, root / file, root)
    root = download(
        spec.sources.hf or spec.model,
        (file, *entry.additional_files),
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    return ModelFiles(spec.model, root / file, root)


def locate_embedder(
    model_name: str | Path,
    *,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> ModelFiles:
    """Find the files of an ONNX embedding model, downloading those that are not cached.

    Args:
        model_name: a hub repository ("sentence-transformers/" may be left out), a directory, or
            an ``.onnx`` file.
        cache_dir: as in :func:`locate`.
        local_files_only: never touch the network.

    Raises:
        ModelFileError: a file is missing or could not be fetched.
    """
    path = Path(model_name).expanduser()
    if path.is_dir():
        return _in_directory(path.name, path, "auto")
    if path.is_file():
        return _beside(path.stem, path)
    name = str(model_name)
    repository = name if "/" in name else f"sentence-transformers/{name}"
    root = download(
        repository,
        ("onnx/model.onnx",),
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    return ModelFiles(repository, root / "onnx/model.onnx", root)


def download(
    repository: str,
    files: tuple[str, ...],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Fetch files of a hub repository and the tokenizer beside them; cached ones stay.

    Returns:
        The directory of the snapshot.

    Raises:
        ModelFileError: not reachable, refused, or a file is not in the repository.
    """
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        root = Path(
            snapshot_download(
                repository,
                revision=revision,
                cache_dir=cache_dir or os.environ.get("QDRANT_RERANK_CACHE") or None,
                allow_patterns=[*files, *TOKENIZER_FILES],
                local_files_only=local_files_only,
            )
        )
    except LocalEntryNotFoundError as error:
        raise ModelFileError(
            f"{repository} is not in the cache, and "
            + (
                "local_files_only forbids fetching it. Load it once with a network."
                if local_files_only
                else f"the hub did not give it: {_one_line(error.__cause__ or error)} Check the "
                "name, the network or HF_ENDPOINT, and for a gated repository the token "
                "(HF_TOKEN). The bundled models need no download."
            )
        ) from error
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise ModelFileError(
            f"{repository} could not be fetched: {_one_line(error)} Check the name, the network, "
            "and for a gated repository the token (HF_TOKEN)."
        ) from error
    missing = [name for name in files if not (root / name).is_file()]
    if missing:
        raise ModelFileError(
            f"{repository} has no {', '.join(missing)}"
            + (" in the cache; load it once with a network." if local_files_only else ".")
        )
    return root


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _in_directory(name: str, directory: Path, precision: Precision) -> ModelFiles:
    if not directory.is_dir():
        raise ModelFileError(f"No directory {directory}. Pass the one with the ONNX file.")
    names = FILES_OF_PRECISION[precision]
    for candidate in (directory / sub / file for file in names for sub in ("", "onnx")):
        if candidate.is_file():
            return _beside(name, candidate)
    present = sorted(str(path.relative_to(directory)) for path in directory.glob("**/*.onnx"))
    raise ModelFileError(
        f"{directory} has no {' or '.join(names)}, neither directly nor under onnx/; ONNX files "
        f"there: {', '.join(present) or 'none'}. Pass the path of the file itself to load it."
    )


def _beside(name: str, model: Path) -> ModelFiles:
    """The tokenizer of an ONNX file: beside it, or beside its ``onnx/`` folder."""
    in_folder = model.absolute().parent.name == "onnx"
    roots = [model.parent, model.absolute().parent.parent] if in_folder else [model.parent]
    tokenizer = next((root for root in roots if (root / "tokenizer.json").is_file()), roots[-1])
    return ModelFiles(name, model, tokenizer)
