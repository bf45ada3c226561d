"""Modular cross-encoders of sentence-transformers: the head after the transformer, in numpy.

From version 5.4 of sentence-transformers, ``modules.json`` lists the parts of a cross-encoder: a
transformer, a pooling, and small layers whose last output is called "scores". An ONNX file often
holds the transformer alone. Then the other parts are run here, from their safetensors files.

Formulas: ``sentence_transformers/base/modules`` and ``sentence_transformers/sentence_transformer/
modules`` (https://github.com/huggingface/sentence-transformers). No code of a model is imported.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.torch_activations import TORCH_ACTIVATIONS
from qdrant_rerank.embedders.safetensors import read_safetensors
from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.hub.integrity import stays_inside
from qdrant_rerank.utils.json_object import JsonObject, parse_json

__all__ = ["MODULES", "TOKEN_OUTPUTS", "ModularHead", "modules_of"]

MODULES = "modules.json"
#: Outputs of an ONNX file that holds the transformer alone, best known first.
TOKEN_OUTPUTS = ("last_hidden_state", "token_embeddings")
WEIGHTS = "model.safetensors"
TOKENS, SENTENCE, SCORES = "token_embeddings", "sentence_embedding", "scores"
# The old names of the ways to pool, each with a value of true or false, in the order of the vector.
LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
NORM_EPSILON = 1e-5  # the default of torch.nn.LayerNorm
NORMALIZE_EPSILON = 1e-12  # the default of torch.nn.functional.normalize
LEAST_DIVISOR = 1e-9  # of a mean, as in sentence-transformers

Array = NDArray[np.float32]
Mask = NDArray[np.int64]
Features = dict[str, Array]
Step = Callable[[Features, Mask], None]


@dataclass(frozen=True, slots=True)
class ModularHead:
    """The parts of a model that come after its transformer.

    Attributes:
        source: ``modules.json``, named in errors.
        steps: the parts, in order; each one reads and writes named vectors.
        files: all files that decide the scores.
    """

    source: Path
    steps: tuple[Step, ...]
    files: tuple[Path, ...]

    @classmethod
    def read(cls, directory: Path) -> "ModularHead":
        """Read the head of a model whose directory has a ``modules.json``.

        Raises:
            ModelFileError: a file is missing or damaged, or there is a part that is not known.
        """
        source = directory / MODULES
        steps: list[Step] = []
        files = [source]
        for folder, kind in modules_of(source)[1:]:
            make = _KINDS.get(kind)
            if make is None:
                raise ModelFileError(
                    f"{source} lists a module {kind}, which cannot be run without PyTorch. Modules "
                    f"that can: {', '.join(_KINDS)}. Pass an ONNX file of the whole model, which "
                    "returns 'logits'."
                )
            config = JsonObject.read(folder / "config.json")
            steps.append(make(folder, config))
            there = (folder / name for name in ("config.json", WEIGHTS))
            files += [path for path in there if path.is_file()]
        return cls(source, tuple(steps), tuple(files))

    def __call__(self, tokens: Array, mask: Mask) -> Array:
        """Compute logits from the states of the tokens.

        Args:
            tokens: shape (n, width, size), float32; the transformer's last states.
            mask: shape (n, width), int64; 1 on tokens and 0 on padding, on either side.

        Returns:
            Shape (n, labels), float32, before the activation.

        Raises:
            ModelFileError: the parts do not fit each other or the transformer.
        """
        features = {TOKENS: tokens}
        try:
            for step in self.steps:
                step(features, mask)
            return features[SCORES]
        except (KeyError, ValueError) as error:
            raise ModelFileError(
                f"The modules of {self.source} do not fit the ONNX file or each other: {error!r}. "
                f"A cross-encoder ends with a Dense whose module_output_name is {SCORES!r}. Is it "
                "an embedding model?"
            ) from error


def modules_of(source: Path) -> list[tuple[Path, str]]:
    """Return folder and kind of each module that a ``modules.json`` lists.

    Raises:
        ModelFileError: it is not a list of modules whose first one is a Transformer.
    """
    try:
        listed: Any = parse_json(source.read_text("utf-8"))
        found = [(str(each["path"]), str(each["type"]).rpartition(".")[2]) for each in listed]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelFileError(
            f"{source} is not a list of modules ({error!r}). Fetch it again."
        ) from error
    if not found or found[0][1] != "Transformer":
        raise ModelFileError(
            f"{source} lists the modules {', '.join(kind for _, kind in found) or 'none'}; "
            "expected a Transformer and a head."
        )
    for path, _ in found:
        if path and not stays_inside(path):
            raise ModelFileError(f"{source} names the folder {path!r}, outside its own directory.")
    return [(source.parent / path, kind) for path, kind in found]


def _pooling(folder: Path, config: JsonObject) -> Step:
    named = config.fields.get("pooling_mode")
    if named is None:
        named = [mode for key, mode in LEGACY_POOLING.items() if config.fields.get(key)] or "mean"
    modes = [named] if isinstance(named, str) else named
    if not isinstance(modes, list) or not modes or any(mode not in [*_POOLINGS] for mode in modes):
        raise config.wrong("pooling_mode", f"one or more of {', '.join(_POOLINGS)}")
    poolings = [_POOLINGS[mode] for mode in modes]

    def pool(features: Features, mask: Mask) -> None:
        tokens = features[TOKENS]
        if tokens.ndim != 3 or tokens.shape[:2] != mask.shape:
            raise ValueError(f"states of shape {tokens.shape} for tokens of shape {mask.shape}")
        features[SENTENCE] = np.concatenate([each(tokens, mask) for each in poolings], axis=1)

    return pool


def _dense(folder: Path, config: JsonObject) -> Step:
    arrays = _floats(folder)
    weight = _array(folder, arrays, "linear.weight", 2)
    bias = _array(folder, arrays, "linear.bias", 1) if config.fields.get("bias", True) else None
    residual = None
    if config.fields.get("use_residual"):
        residual = arrays.get("residual.weight", np.empty((0, 0), np.float32))
    path = "Tanh" if "activation_function" not in config.fields else None
    path = path or config.text("activation_function") or "Identity"
    name = path.rpartition(".")[2]
    if name not in TORCH_ACTIVATIONS or not (path == name or path.startswith("torch.nn.")):
        raise config.wrong("activation_function", "an activation of torch.nn without arguments")
    activation = TORCH_ACTIVATIONS[name]
    read = config.text("module_input_name") or SENTENCE
    written = config.text("module_output_name") or read

    def apply(features: Features, mask: Mask) -> None:
        inputs = features[read]
        made = inputs @ weight.T
        if bias is not None:
            made = made + bias
        made = activation(made).astype(np.float32)
        if residual is not None:
            made = made + (inputs @ residual.T if residual.size else inputs)
        features[written] = made

    return apply


def _layer_norm(folder: Path, config: JsonObject) -> Step:
    arrays = _floats(folder)
    weight = _array(folder, arrays, "norm.weight", 1)
    bias = _array(folder, arrays, "norm.bias", 1)

    def apply(features: Features, mask: Mask) -> None:
        values = features[SENTENCE]
        centred = values - values.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        features[SENTENCE] = centred / np.sqrt(variance + np.float32(NORM_EPSILON)) * weight + bias

    return apply


def _normalize(folder: Path, config: JsonObject) -> Step:
    def apply(features: Features, mask: Mask) -> None:
        values = features[SENTENCE]
        lengths = np.linalg.norm(values, axis=-1, keepdims=True)
        features[SENTENCE] = values / np.maximum(lengths, np.float32(NORMALIZE_EPSILON))

    return apply


def _dropout(folder: Path, config: JsonObject) -> Step:
    return lambda features, mask: None  # it does nothing outside of training


_KINDS: Mapping[str, Callable[[Path, JsonObject], Step]] = {
    "Pooling": _pooling,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
    "Dropout": _dropout,
}


def _first(tokens: Array, mask: Mask) -> Array:
    found: Array = tokens[np.arange(len(tokens)), mask.argmax(axis=1)]
    return found


def _last(tokens: Array, mask: Mask) -> Array:
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    found: Array = tokens[np.arange(len(tokens)), last]
    return found


def _highest(tokens: Array, mask: Mask) -> Array:
    found: Array = np.where(mask[:, :, None] == 1, tokens, np.float32(-np.inf)).max(axis=1)
    return found


def _weighted(tokens: Array, weights: NDArray[np.integer[Any]], power: float = 1.0) -> Array:
    total = np.einsum("nwd,nw->nd", tokens, weights.astype(np.float32))
    count = np.maximum(weights.sum(axis=1, keepdims=True), LEAST_DIVISOR) ** power
    found: Array = (total / count).astype(np.float32)
    return found


_POOLINGS: Mapping[str, Callable[[Array, Mask], Array]] = {
    "cls": _first,
    "max": _highest,
    "mean": _weighted,
    "mean_sqrt_len_tokens": lambda tokens, mask: _weighted(tokens, mask, 0.5),
    "weightedmean": lambda tokens, mask: _weighted(tokens, mask.cumsum(axis=1) * mask),
    "lasttoken": _last,
}


def _floats(folder: Path) -> Mapping[str, Array]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelFileError(
            f"{path} is not there, and modules.json lists {folder.name}. Save the model with "
            "safetensors, and put its folder beside the ONNX file."
        )
    return {name: array.astype(np.float32) for name, array in read_safetensors(path).items()}


def _array(folder: Path, arrays: Mapping[str, Array], name: str, dimensions: int) -> Array:
    if name not in arrays or arrays[name].ndim != dimensions:
        raise ModelFileError(
            f"{folder / WEIGHTS} has {', '.join(sorted(arrays)) or 'no arrays'}; expected "
            f"{name!r} with {dimensions} dimension(s). Fetch it again."
        )
    return arrays[name]
