"""A hub repository -> the files of one commit on this disk, whole and checked.

A file in the cache is used without a request. Missing files are listed once, fetched under a lock,
and checked against the listing's digests before anything reads them.
"""

import logging
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from qdrant_rerank.errors import DamagedFileError, MissingPrecisionError, ModelFileError
from qdrant_rerank.hub import client as hub_client
from qdrant_rerank.hub.cache import CachedRepository, Listing, is_commit, is_offline
from qdrant_rerank.hub.integrity import Digest
from qdrant_rerank.hub.onnx_files import external_data, external_files, how_to_export, listed
from qdrant_rerank.hub.precision import Precision, choose_file, usual_names

__all__ = ["Snapshot", "Wanted", "find", "obtain", "with_data"]

ONNX = ".onnx"
TOKENIZER_FILES = (
    "tokenizer.json",
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "config_sentence_transformers.json",
)

#: Files of the head of a modular cross-encoder, in folders as sentence-transformers calls them.
HEAD_FILES = (
    "modules.json",
    *(
        f"{number}_{kind}/{name}"
        for number in range(1, 8)
        for kind in ("Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
        for name in ("config.json", "model.safetensors")
    ),
)

# With these, a snapshot of another tool has all that decides how a model reads and scores.
ENOUGH = {"tokenizer.json", "config.json", "tokenizer_config.json"}

logger = logging.getLogger(__name__)
_warned: set[str] = set()
_warned_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for files of a repository.

    Attributes:
        repository: the repository, with its place in the cache.
        pull: the command that fetches it; errors name it.
        revision: branch, tag or commit; None for the default branch as first fetched.
        path: the ONNX file, or another file that is wanted instead; None for any of the usual
            names of the precision.
        precision: precision of the ONNX file.
        additional: further files, by their place in the repository.
        sha256: digest of the ONNX file, in addition to the one that the hub reports.
        task: of the export that makes such an ONNX file; errors name it.
        optional: further files, if the repository has them.
    """

    repository: CachedRepository
    pull: str
    revision: str | None = None
    path: str | None = None
    precision: Precision = "auto"
    additional: tuple[str, ...] = ()
    sha256: str | None = None
    task: str = "text-classification"
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of a model at one commit.

    Attributes:
        commit: full hash.
        model: the ONNX file, its external data beside it.
        tokenizer: the directory of ``tokenizer.json``.
        root: the directory of the commit.
        files: file -> digest to check it by.
        listing: the hub's listing of the commit; empty if another tool fetched it.
    """

    commit: str
    model: Path
    tokenizer: Path
    root: Path
    files: Mapping[Path, Digest]
    listing: Listing

    def published(self, path: Path) -> Digest:
        """Return a file's digest by the hub's listing, else by the name of its blob."""
        known = self.listing.files.get(path.relative_to(self.root).as_posix())
        return known or Digest.of_blob(path)


def obtain(
    wanted: Wanted,
    *,
    local_files_only: bool = False,
    force: bool = False,
    update: bool = False,
) -> Snapshot:
    """Return the snapshot, after fetching what is missing and checking all of it.

    Args:
        wanted: which files.
        local_files_only: make no request; ``HF_HUB_OFFLINE`` does the same.
        force: fetch also the files that are in the cache.
        update: move on to the commit that the default branch stands for now.

    Raises:
        ModelFileError: a file is missing, could not be fetched, or is damaged.
    """
    offline = local_files_only or is_offline()
    commit = None if update and not offline else _commit_of(wanted, offline)
    verified = wanted.repository.verified()
    try:
        kept = None if commit is None or force else find(wanted, commit)
        if kept is not None:
            verified.check(kept.files)  # before the ONNX file is read for the names of its data
            kept = with_data(kept)
        if kept is not None and (offline or _is_complete(kept)):
            found = kept
        elif offline:
            raise ModelFileError(_absence(wanted, commit, local_files_only))
        else:
            found = _fetch(wanted, commit, kept, force=force)
        verified.check(found.files)
    except DamagedFileError as error:
        raise DamagedFileError(f"{error} Fetch it again: {wanted.pull} --force") from error
    return replace(found, model=_with_its_data(wanted.repository, found))


def find(wanted: Wanted, commit: str | None = None) -> Snapshot | None:
    """Return what the cache has, unchecked and without external data; makes no request.

    A snapshot that another tool fetched may lack files that the repository has.

    Args:
        wanted: which files.
        commit: full hash; None for the one remembered.

    Returns:
        The snapshot, or None if a file is missing.
    """
    repository = wanted.repository
    commit = commit or _commit_of(wanted, offline=True)
    if commit is None:
        return None
    listing = repository.listing(commit)
    names = listing.files if listing else repository.names(commit)
    if listing is None and (_pick(wanted, names) is None or "tokenizer.json" not in names):
        return None
    plan = _plan(wanted, names)
    if _missing(repository.snapshot(commit), plan.files):
        return None
    return _snapshot(wanted, commit, plan, listing or Listing())


def with_data(found: Snapshot) -> Snapshot | None:
    """Add the external data that the ONNX file names; None if some of it is missing."""
    data = [found.model.parent / name for name in _data_names(found.model)]
    if not all(path.is_file() for path in data):
        return None
    digests = {path: found.published(path) for path in data}
    return replace(found, files={**found.files, **digests})


@dataclass(frozen=True, slots=True)
class _Plan:
    model: str
    tokenizer: str  # folder
    files: tuple[str, ...]


def _commit_of(wanted: Wanted, offline: bool) -> str | None:
    """Return the commit to load, or None; one request at most, and only for a branch or tag."""
    revision = wanted.revision
    if is_commit(revision):
        return revision
    known = wanted.repository.remembered(revision)
    if offline or known is None or revision is None:
        return known
    here = find(wanted, known)
    if here is None:
        return None
    file = here.model.relative_to(wanted.repository.snapshot(known)).as_posix()
    try:
        return hub_client.current_commit(wanted.repository, revision, file)
    except ModelFileError as error:
        _warn_of_outage(wanted.repository, error, known)
        return known


def _warn_of_outage(repository: CachedRepository, error: ModelFileError, commit: str) -> None:
    """Warn once per process and repository."""
    with _warned_lock:
        if repository.name in _warned:
            return
        _warned.add(repository.name)
    logger.warning("%s The copy in the cache is used: commit %s.", error, commit)


def _pick(wanted: Wanted, names: Collection[str]) -> str | None:
    if wanted.path is None:
        return choose_file(names, wanted.precision)
    if wanted.path in names:
        return wanted.path
    # Repositories rename model_quantized.onnx to model_int8.onnx and back.
    usual = PurePosixPath(wanted.path).name in usual_names(wanted.precision)
    return choose_file(names, wanted.precision) if usual and wanted.precision != "auto" else None


def _plan(wanted: Wanted, names: Collection[str]) -> _Plan:
    """Choose the files to have among those of the repository."""
    name = wanted.repository.name
    model = _pick(wanted, names)
    onnx = sorted(each for each in names if each.endswith(".onnx"))
    if model is None:
        sought = wanted.path or f"ONNX file of precision {wanted.precision}"
        raise MissingPrecisionError(
            f"{name} has no {sought}; its ONNX files: {listed(onnx)}. "
            + (
                "Pass precision=, or specific_model_path= with a file that you fetched yourself."
                if onnx
                else how_to_export(name, names, wanted.task)
            )
        )
    beside = PurePosixPath(model).parent.as_posix()
    folder = next((at for at in (".", beside) if _in(at, "tokenizer.json") in names), None)
    if folder is None:
        raise ModelFileError(
            f"{name} has no tokenizer.json, neither at the top nor in {beside}. Save the model's "
            "fast tokenizer beside a copy of the ONNX file and pass that directory."
        )
    tokenizer = [_in(folder, file) for file in TOKENIZER_FILES]
    optional = (file for file in (*tokenizer, *wanted.optional) if file in names)
    return _Plan(model, folder, tuple(dict.fromkeys([model, *wanted.additional, *optional])))


def _in(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def _is_complete(found: Snapshot) -> bool:
    """Return whether the hub need not be asked which further files there are."""
    return bool(found.listing.files) or {path.name for path in found.files} >= ENOUGH


def _missing(root: Path, files: Collection[str]) -> list[str]:
    return [name for name in files if not (root / name).is_file()]


def _fetch(wanted: Wanted, commit: str | None, kept: Snapshot | None, *, force: bool) -> Snapshot:
    """Fetch what is missing; return what is kept if the hub does not say what there is."""
    repository = wanted.repository
    listing = repository.listing(commit) if commit and not force else None
    if commit is None or listing is None:
        try:
            commit, listing = hub_client.describe(repository, commit or wanted.revision)
        except ModelFileError as error:
            if kept is None:
                raise
            _warn_of_outage(repository, error, kept.commit)
            return kept
    plan = _plan(wanted, listing.files)
    with hub_client.lock(repository):
        _complete(wanted, commit, listing, plan.files, force=force)
        found = _snapshot(wanted, commit, plan, listing)
        folder = PurePosixPath(plan.model).parent.as_posix()
        data = [_in(folder, name) for name in _data_names(found.model)]
        data = [name for name in data if name not in plan.files]
        _complete(wanted, commit, listing, data, force=force)
        # Last, so that what another process finds is complete.
        repository.keep_listing(commit, listing)
        if not is_commit(wanted.revision):
            repository.remember(wanted.revision, commit)
    return with_data(found) or found


def _complete(
    wanted: Wanted, commit: str, listing: Listing, names: Collection[str], *, force: bool
) -> None:
    repository = wanted.repository
    root = repository.snapshot(commit)
    if unknown := [name for name in names if name not in listing.files]:
        raise ModelFileError(
            f"{repository.name} has no {', '.join(unknown)}, which the model needs. Use another "
            "revision or repository."
        )
    todo = {name: listing.files[name] for name in (names if force else _missing(root, names))}
    if todo:
        hub_client.download(repository, commit, todo, force=force)


def _snapshot(wanted: Wanted, commit: str, plan: _Plan, listing: Listing) -> Snapshot:
    root = wanted.repository.snapshot(commit)
    model = root / plan.model
    found = Snapshot(commit, model, root / plan.tokenizer, root, {}, listing)
    files = {root / name: found.published(root / name) for name in plan.files}
    if wanted.sha256:
        files[model] = replace(files[model], sha256=wanted.sha256.lower())
    return replace(found, files=files)


def _data_names(model: Path) -> list[str]:
    return external_data(model) if model.suffix == ONNX else []


def _with_its_data(repository: CachedRepository, found: Snapshot) -> Path:
    """Return the ONNX file with its external data beside it in a way that onnxruntime accepts."""
    if found.model.suffix != ONNX:
        return found.model
    data = external_files(found.model, trusted=repository.blob_folders)
    if not any(path.is_symlink() for path in data):
        return found.model
    return repository.hard_linked(found.commit, found.model, data)


def _absence(wanted: Wanted, commit: str | None, local_files_only: bool) -> str:
    repository = wanted.repository
    listing = repository.listing(commit) if commit else None
    if commit is None:
        what = f"{repository.name} is not in the cache {repository.cache}"
    else:
        root = repository.snapshot(commit)
        if listing is not None:
            lacking = _missing(root, _plan(wanted, listing.files).files)
        else:
            lacking = _missing(root, [wanted.path or "model.onnx", "tokenizer.json"])
        what = (
            f"{repository.name} is not complete in the cache {repository.cache}: "
            f"{', '.join(lacking) or 'external data'} of commit {commit[:12]} is missing"
        )
    forbidden = "local_files_only" if local_files_only else "HF_HUB_OFFLINE"
    return f"{what}, and {forbidden} forbids fetching it. Run once with a network: {wanted.pull}"
