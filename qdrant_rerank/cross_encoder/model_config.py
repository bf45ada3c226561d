"""A model's own configuration: what its output means.

A dotted path in a configuration is only a name to look up. Nothing is imported.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdrant_rerank.inference.tokenizer_files import first_position, read_json

__all__ = ["ModelConfig"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The entries of a model's configuration that scoring needs; all may be absent.

    Attributes:
        source: ``config.json``, named in errors.
        model_type: family of the architecture, such as "bert"; empty if not given.
        labels: names of the output's columns, in order; empty if not given.
        activation: dotted path of the activation that the model was trained with, or None.
        causal: whether the model is a decoder, which predicts the next token.
        first_position: position of the first token, for models that take positions as an input.
    """

    source: Path
    model_type: str = ""
    labels: tuple[str, ...] = ()
    activation: str | None = None
    causal: bool = False
    first_position: int = 0

    @classmethod
    def read(cls, directory: Path) -> "ModelConfig":
        """Read the files of a directory; without any, everything is unknown.

        Raises:
            ModelFileError: a file exists and is not a JSON object.
        """
        source = directory / "config.json"
        config = read_json(source)
        sentence_transformers = read_json(directory / "config_sentence_transformers.json")
        architectures = config.get("architectures")
        names = architectures if isinstance(architectures, list) else []
        return cls(
            source=source,
            model_type=str(config.get("model_type") or ""),
            labels=_labels(config),
            activation=_activation(sentence_transformers, config),
            causal=any(str(name).endswith("ForCausalLM") for name in names),
            first_position=first_position(config),
        )


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    names = config.get("id2label")
    if not isinstance(names, dict):
        by_name = config.get("label2id")
        names = {v: k for k, v in by_name.items()} if isinstance(by_name, dict) else {}
    try:
        columns = {int(column): str(name) for column, name in names.items()}
    except (TypeError, ValueError):
        return ()
    if sorted(columns) != list(range(len(columns))):
        return ()
    return tuple(columns[column] for column in range(len(columns)))


def _activation(sentence_transformers: dict[str, Any], config: dict[str, Any]) -> str | None:
    """Return the first activation found, in the order in which sentence-transformers looks."""
    nested = config.get("sentence_transformers")
    for place, key in (
        (sentence_transformers, "activation_fn"),
        (nested if isinstance(nested, dict) else {}, "activation_fn"),
        (config, "sbert_ce_default_activation_function"),  # before its version 4
    ):
        if isinstance(place.get(key), str):
            return str(place[key])
    return None
