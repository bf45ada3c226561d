"""Names -> models: the built-in ones, and those that this process has added."""

import difflib
import threading
from dataclasses import asdict
from typing import Any

from qdrant_rerank.errors import InvalidInputError, UnknownModelError
from qdrant_rerank.hub.catalog import BUILT_IN, REPLACED
from qdrant_rerank.hub.integrity import is_hex, stays_inside
from qdrant_rerank.hub.specs import ModelFile, ModelSource, ModelSpec

__all__ = [
    "find_model",
    "forbids_commercial_use",
    "listing",
    "near_names",
    "no_such_model",
    "register_model",
    "supported_models",
]

_custom: dict[str, ModelSpec] = {}
_custom_lock = threading.Lock()


def supported_models() -> list[ModelSpec]:
    """Return every model known by name: the built-in ones, then those added in this process."""
    with _custom_lock:
        return [*BUILT_IN.values(), *_custom.values()]


def register_model(spec: ModelSpec) -> None:
    """Add a model for the life of this process.

    Raises:
        InvalidInputError: the name is taken, there is no hub repository, the path of a file leads
            out of it, or a digest is not one.
    """
    if spec.sources is None or not spec.sources.hf:
        raise InvalidInputError(
            f"Model {spec.model!r} has no hub repository. Pass sources=ModelSource(hf="
            '"owner/name"), or load local files with TextCrossEncoder("/path/to/directory").'
        )
    if not spec.files:
        raise InvalidInputError(
            f"Model {spec.model!r} has no files; expected one ModelFile or more."
        )
    for path in (path for file in spec.files for path in (file.path, *file.additional_files)):
        if "\\" in path or not stays_inside(path):
            raise InvalidInputError(
                f"Model {spec.model!r} names the file {path!r}; expected a path relative to the "
                "repository, with forward slashes and without '..'."
            )
    for digest in (file.sha256 for file in spec.files if file.sha256 is not None):
        if not is_hex(digest.lower(), 64):
            raise InvalidInputError(
                f"Model {spec.model!r} names the sha256 {digest!r}; expected 64 hex digits."
            )
    key = spec.model.lower()
    with _custom_lock:
        if key in BUILT_IN or key in _custom:
            raise InvalidInputError(
                f"Model {spec.model!r} is already registered. Choose another name."
            )
        _custom[key] = spec


def find_model(name: str) -> ModelSpec:
    """Find the model of a name, in any case of letters, with or without its owner.

    A full name wins over a short one, and a built-in model over a custom one. So a name that worked
    before means the same after a model was added.

    Raises:
        UnknownModelError: there is no such model; the message lists the nearest names, or says what
            replaced a model that was bundled once.
    """
    specs = supported_models()
    wanted = name.lower()
    short = [spec for spec in specs if spec.model.lower().partition("/")[2] == wanted]
    for matches in (
        [spec for spec in specs if spec.model.lower() == wanted],
        [spec for spec in short if spec.model.lower() in BUILT_IN],
        short,
    ):
        if len(matches) == 1:
            return matches[0]
    if wanted in REPLACED:
        raise UnknownModelError(
            f"{name!r} is no longer bundled. {REPLACED[wanted]!r} replaces it: pass that name, and "
            "choose thresholds such as score_threshold again, because its scores are other ones."
        )
    raise no_such_model(
        name,
        advice="Pass a supported name, a hub repository as 'owner/name', or the path of a "
        "directory with an ONNX file and tokenizer.json.",
    )


def no_such_model(name: str, *, cause: str = "", advice: str = "") -> UnknownModelError:
    """Return the error for a name that no model has; its message lists the nearest names.

    Args:
        name: the name.
        cause: sentences to put before these names.
        advice: sentences to put after them.
    """
    near = near_names(name)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    seen = f"No model named {name!r}, and no such file or directory.{cause and f' {cause}'}{meant}"
    lists = f"lists the names. {advice}".rstrip()
    return UnknownModelError(
        f"{seen} TextCrossEncoder.list_supported_models() {lists}",
        command=f"{seen} 'qdrant-rerank models' {lists}",
    )


def near_names(name: str, *, cutoff: float = 0.5) -> list[str]:
    """Return at most three supported names near an unknown one, nearest first.

    Args:
        name: any name.
        cutoff: similarity, 0 to 1, that a name has at least.
    """
    names = [spec.model for spec in supported_models()]
    by_key = {name.lower(): name for name in names}
    by_key |= {name.lower().rpartition("/")[2]: name for name in names}
    found = difflib.get_close_matches(name.lower(), by_key, n=3, cutoff=cutoff)
    return list(dict.fromkeys(by_key[key] for key in found))


def forbids_commercial_use(license: str) -> bool:
    """Return whether a license such as "cc-by-nc-4.0" has a non-commercial clause."""
    return "nc" in license.lower().split("-") or "noncommercial" in license.lower()


def listing(spec: ModelSpec) -> dict[str, Any]:
    """Return an entry of ``list_supported_models()``: fastembed's keys, then further ones."""
    first = spec.files[0] if spec.files else ModelFile("")
    return {
        "model": spec.model,
        "sources": None if spec.sources is None else asdict(spec.sources),
        "model_file": first.path,
        "description": spec.description,
        "license": spec.license,
        "size_in_GB": first.size_in_gb,
        "additional_files": list(first.additional_files),
        "languages": list(spec.languages),
        "max_length": spec.max_length,
        "labels": spec.labels,
        "activation": spec.activation,
        "template": spec.template,
        "commercial_use": not forbids_commercial_use(spec.license),
        "precisions": {
            file.precision: {
                "file": file.path,
                "size_in_GB": file.size_in_gb,
                "repository": (file.source or spec.sources or ModelSource()).hf,
            }
            for file in spec.files
        },
    }
