"""A model's name or path -> the files to load, fetched from the hub if they are not cached."""

import functools
import os
import shlex
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from qdrant_rerank.errors import (
    InvalidInputError,
    LicenseWarning,
    MissingPrecisionError,
    ModelFileError,
    UnknownModelError,
)
from qdrant_rerank.hub import snapshots
from qdrant_rerank.hub.cache import cached_repository, expanded, is_repository
from qdrant_rerank.hub.client_errors import is_not_found
from qdrant_rerank.hub.integrity import stays_inside
from qdrant_rerank.hub.onnx_files import external_files, how_to_export, is_quantized, listed
from qdrant_rerank.hub.precision import (
    MADE_OF,
    FilePrecision,
    Precision,
    choose_file,
    precision_of,
    usual_names,
)
from qdrant_rerank.hub.registry import find_model, forbids_commercial_use, near_names, no_such_model
from qdrant_rerank.hub.snapshots import Wanted
from qdrant_rerank.hub.specs import ModelSource, ModelSpec
from qdrant_rerank.utils.validation import a_type, require_choice, shown
from qdrant_rerank.utils.warn import warn_caller

__all__ = ["ModelFiles", "find_spec", "locate", "locate_embedder", "path_of", "wanted_of"]


NEARLY_THE_SAME = 0.9  # of two names

_warned: set[str] = set()
_warned_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model on disk.

    Attributes:
        name: registered name, or name of the directory or file.
        model: the ONNX file, its external data beside it.
        tokenizer: the directory that holds ``tokenizer.json`` and ``config.json``.
        spec: its entry in the registry; None for a path, and for a repository that is not in it.
        trusted: directories that links of its external data may lead to.
    """

    name: str
    model: Path
    tokenizer: Path
    spec: ModelSpec | None = None
    trusted: tuple[Path, ...] = ()

    @property
    def precision(self) -> FilePrecision:
        """Precision of the ONNX file by its name; int8 as well if it computes in int8."""
        named = precision_of(self.model.name)
        return "int8" if named == "fp32" and is_quantized(self.model) else named

    @property
    def external_data(self) -> list[Path]:
        """Files that the ONNX file reads its weights from.

        Raises:
            ModelFileError: a file is missing, or does not lie in the model's directory.
        """
        return external_files(self.model, trusted=self.trusted)

    def require_own_data(self) -> None:
        """Raise ModelFileError unless the external data lies in the model's directory.

        Call it right before the ONNX file is loaded, which may be long after it was found.
        """
        _ = self.external_data


def locate(
    model_name: str | Path,
    *,
    precision: Precision = "auto",
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    specific_model_path: str | Path | None = None,
) -> ModelFiles:
    """Find a model's files, and download the files of a hub model that are not cached.

    Args:
        model_name: a registered or bundled name, a directory, an ``.onnx`` file, or a hub
            repository as "owner/name".
        precision: which file of the model; "auto" is the file that it is registered with. If the
            model has no file of this precision, a file that it can be made of, see
            :data:`~qdrant_rerank.hub.precision.MADE_OF`.
        revision: a hub branch, tag or commit; None for the commit first fetched.
        cache_dir: where downloads are kept; else ``QDRANT_RERANK_CACHE``, else the hub's own cache.
            A model in fastembed's cache (``FASTEMBED_CACHE_PATH``) is used as well.
        local_files_only: never use the network.
        specific_model_path: a directory to load the named model from instead.

    Raises:
        UnknownModelError: no such name, path or repository.
        ModelFileError: a file is missing, damaged or could not be fetched.
        MissingPrecisionError: the model has no such file, nor one that it could be made of.
        InvalidInputError: an argument is empty or of a wrong kind, or there is no home directory
            for the "~" of a path.
    """
    require_choice("precision", precision, Precision)
    if revision is not None and not isinstance(revision, str):
        raise InvalidInputError(
            f"revision is {a_type(revision)}; expected a branch, tag or commit as a str."
        )
    find: Callable[[Precision], ModelFiles]
    if specific_model_path is not None:
        path = path_of("specific_model_path", specific_model_path)
        find = functools.partial(_in_directory, str(model_name), path)
    elif (spec := find_spec(model_name)) is None:
        path = path_of("model_name", model_name)
        if not path.is_dir():
            return _beside(path)
        find = functools.partial(_in_directory, path.name, path)
    elif spec.sources is None:
        find = functools.partial(_bundled, spec)
    else:
        find = functools.partial(
            _in_cache,
            spec,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
    try:
        return find(precision)
    except MissingPrecisionError as missing:
        sources = MADE_OF.get(precision, ())
        for source in sources:
            with suppress(MissingPrecisionError):
                return find(source)
        if not sources:
            raise
        raise MissingPrecisionError(
            f"{missing} It has no file that one could be made of: {' or '.join(sources)}."
        ) from None


def find_spec(model_name: str | Path) -> ModelSpec | None:
    """Find what a name means: a registered model, else a hub repository; None for a path.

    The spec of a repository that is not registered has no ``files``.

    Raises:
        UnknownModelError: no such name or path, and the name cannot be a repository.
        InvalidInputError: the name is empty, or not a str or path.
    """
    path = path_of("model_name", model_name)
    try:
        return find_model(str(model_name))
    except UnknownModelError:
        if os.path.lexists(path):
            return None
        name = str(model_name)
        if isinstance(model_name, str) and "/" in name and is_repository(name):
            return ModelSpec(model=name, sources=ModelSource(hf=name), files=())
        raise


def wanted_of(
    spec: ModelSpec,
    *,
    precision: Precision = "auto",
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> Wanted:
    """Name the files to have of the hub, for a model that is not bundled.

    Raises:
        MissingPrecisionError: the model has no file of that precision.
        InvalidInputError: the revision cannot be one, or there is no home directory for the cache.
    """
    if revision is not None and not stays_inside(revision):
        raise InvalidInputError(
            f"revision is {shown(revision)}; expected a branch, a tag or a commit."
        )
    options = {
        "--precision": precision if precision != "auto" else None,
        "--revision": revision,
        "--cache-dir": cache_dir,
    }
    given = [text for name, value in options.items() if value for text in (name, str(value))]
    pull = shlex.join(["qdrant-rerank", "models", "pull", spec.model, *given])
    file = spec.file(precision) if spec.files else None
    source = (file and file.source) or spec.sources or ModelSource()
    repository = cached_repository(source.hf or spec.model, cache_dir)
    if file is None:
        return Wanted(
            repository, pull, revision, precision=precision, optional=snapshots.HEAD_FILES
        )
    return Wanted(
        repository,
        pull,
        revision=revision or source.revision,
        path=file.path,
        precision=file.precision,
        optional=snapshots.HEAD_FILES,
        additional=file.additional_files,
        sha256=file.sha256,
    )


def locate_embedder(
    model_name: str | Path,
    *,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    task: str = "feature-extraction",
    optional: tuple[str, ...] = (),
) -> ModelFiles:
    """Find the files of an ONNX embedding model, and download the files that are not cached.

    Args:
        model_name: a hub repository ("sentence-transformers/" may be left out), a directory, or
            an ``.onnx`` file.
        cache_dir: as in :func:`locate`.
        local_files_only: never use the network.
        task: of the export that makes such an ONNX file; errors name it.
        optional: further files to have of a repository, if it has them.

    Raises:
        ModelFileError: a file is missing, damaged or could not be fetched.
    """
    path = path_of("model_name", model_name)
    if os.path.lexists(path):
        return _in_directory(path.name, path, "auto", task) if path.is_dir() else _beside(path)
    return _in_cache(
        _embedder_spec(str(model_name)),
        "auto",
        revision=None,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        task=task,
        optional=optional,
    )


def locate_file(
    model_name: str,
    path: str,
    *,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    optional: tuple[str, ...] = (),
) -> Path:
    """Find a file of an embedding model that is no ONNX file, and download it if need be.

    Args:
        model_name: as of :func:`locate_embedder`, but no path.
        path: place of the file in the repository.
        cache_dir: as of :func:`locate`.
        local_files_only: never use the network.
        optional: further files to have, if the repository has them.

    Returns:
        The file; the tokenizer's files lie beside it or at the top of the repository.

    Raises:
        MissingPrecisionError: the repository has no such file.
        ModelFileError: a file is damaged or could not be fetched, or there is no tokenizer.
    """
    spec = _embedder_spec(model_name)
    wanted = replace(wanted_of(spec, cache_dir=cache_dir), path=path, optional=optional)
    found = snapshots.obtain(wanted, local_files_only=local_files_only)
    _warn_of_license(spec.model, found.listing.license)
    return found.model


def _embedder_spec(name: str) -> ModelSpec:
    repository = name if "/" in name else f"sentence-transformers/{name}"
    return ModelSpec(model=repository, sources=ModelSource(hf=repository))


def _bundled(spec: ModelSpec, precision: Precision) -> ModelFiles:
    root = spec.directory
    return ModelFiles(spec.model, root / spec.file(precision).path, root, spec)


def _in_cache(
    spec: ModelSpec,
    precision: Precision,
    *,
    revision: str | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    task: str = "text-classification",
    optional: tuple[str, ...] | None = None,
) -> ModelFiles:
    wanted = wanted_of(spec, precision=precision, revision=revision, cache_dir=cache_dir)
    wanted = replace(wanted, task=task, optional=wanted.optional if optional is None else optional)
    try:
        found = snapshots.obtain(wanted, local_files_only=local_files_only)
    except ModelFileError as error:
        # Not reached or not asked, but so near to a known name that it is one with a slip.
        # False for a name that is too long for a file, where pathlib raises.
        is_new = not os.path.isdir(wanted.repository.folder)  # noqa: PTH112
        slip = is_new and near_names(spec.model, cutoff=NEARLY_THE_SAME)
        if spec.files or isinstance(error, MissingPrecisionError):
            raise
        if not slip and not is_not_found(error):
            raise
        raise no_such_model(spec.model, cause=f"As a hub repository: {error}") from error
    _warn_of_license(spec.model, spec.license or found.listing.license)
    return ModelFiles(
        spec.model,
        found.model,
        found.tokenizer,
        spec if spec.files else None,
        wanted.repository.blob_folders,
    )


def path_of(name: str, value: str | Path) -> Path:
    """Return what a model's name or place means as a path, whether it is there or not.

    Raises:
        InvalidInputError: it is not a str or path, or blank, or there is no home directory for "~".
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise InvalidInputError(f"{name} is {a_type(value)}; expected a str or a path.")
    if isinstance(value, str) and not value.strip():
        raise InvalidInputError(
            f"{name} is empty; expected the name of a model, a hub repository as 'owner/name', or "
            "a path."
        )
    return expanded(Path(value))


def _in_directory(
    name: str, directory: Path, precision: Precision, task: str = "text-classification"
) -> ModelFiles:
    if not directory.is_dir():
        raise ModelFileError(f"No directory {directory}. Pass the one with the ONNX file.")
    there = [*directory.glob("*.onnx"), *directory.glob("onnx/*.onnx")]
    present = sorted(path.relative_to(directory).as_posix() for path in there)
    file = choose_file(present, precision)
    if file is None:
        names = usual_names("fp32" if precision == "auto" else precision)
        raise MissingPrecisionError(
            f"{directory} has no {' or '.join(names)}, neither directly nor under onnx/; ONNX "
            f"files there: {listed(present)}. "
            + (
                "Pass the path of the file itself to load it."
                if present
                else how_to_export(directory, [path.name for path in directory.glob("*.*")], task)
            )
        )
    return _beside(directory / file, name)


def _beside(model: Path, name: str | None = None) -> ModelFiles:
    """Find the tokenizer of an ONNX file: beside it, or beside its ``onnx/`` folder."""
    in_folder = model.absolute().parent.name == "onnx"
    roots = [model.parent, model.absolute().parent.parent] if in_folder else [model.parent]
    others = [root / name for root in roots for name in snapshots.TOKENIZER_FILES]
    for path in (model, *others):
        if not path.is_file() and (path == model or os.path.lexists(path)):
            fault = f"leads to {path.readlink()}, where" if path.is_symlink() else "is a directory:"
            raise ModelFileError(f"{path} {fault} there is no file. Put the file itself there.")
    tokenizer = next((root for root in roots if (root / "tokenizer.json").is_file()), roots[-1])
    return ModelFiles(name or model.stem, model, tokenizer)


def _warn_of_license(name: str, license: str) -> None:
    """Warn once per process and model."""
    if not forbids_commercial_use(license):
        return
    with _warned_lock:
        if name in _warned:
            return
        _warned.add(name)
    warn_caller(f"The licence of {name}, {license}, forbids commercial use.", LicenseWarning)
