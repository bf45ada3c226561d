"""A model's own configuration: what its output means.

A dotted path in a configuration is only a name to look up. Nothing is imported.
"""

from dataclasses import dataclass
from pathlib import Path

from qdrant_rerank.inference.tokenizer_files import first_position
from qdrant_rerank.utils.json_object import JsonObject

__all__ = ["ModelConfig"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The entries of a model's configuration that scoring needs; all may be absent.

    Attributes:
        source: ``config.json``, named in errors.
        model_type: family of the architecture, such as "bert"; empty if not given.
        labels: names of the output's columns, in order; empty if not given.
        activation: dotted path of the activation that the model was trained with, or None.
        activation_source: the file that names it.
        causal: whether the model is a decoder, which predicts the next token.
        first_position: position of the first token, for models that take positions as an input.
    """

    source: Path
    model_type: str = ""
    labels: tuple[str, ...] = ()
    activation: str | None = None
    activation_source: Path = Path()
    causal: bool = False
    first_position: int = 0

    @classmethod
    def read(cls, directory: Path) -> "ModelConfig":
        """Read the files of a directory; without any, everything is unknown.

        Raises:
            ModelFileError: a file exists and is not a JSON object, or a field has a wrong type.
        """
        source = directory / "config.json"
        config = JsonObject.read(source)
        activation, activation_source = _activation(config, directory)
        names = config.fields.get("architectures")
        names = [names] if isinstance(names, str) else config.list_of("architectures", str)
        return cls(
            source=source,
            model_type=config.text("model_type") or "",
            labels=_labels(config),
            activation=activation,
            activation_source=activation_source,
            causal=any(name.endswith("ForCausalLM") for name in names),
            first_position=first_position(config),
        )


def _labels(config: JsonObject) -> tuple[str, ...]:
    names = config.object("id2label").fields
    if any(not isinstance(name, str) for name in names.values()):
        raise config.wrong("id2label", "a name for each column")
    if not names:
        columns = config.object("label2id")
        names = {str(columns.whole(name)): name for name in columns.fields}
    if sorted(names) != sorted(map(str, range(len(names)))):
        return ()
    return tuple(names[str(column)] for column in range(len(names)))


def _activation(config: JsonObject, directory: Path) -> tuple[str | None, Path]:
    """Return the activation and its file; looks where sentence-transformers looks, in its order."""
    own = JsonObject.read(directory / "config_sentence_transformers.json")
    if (path := own.text("activation_fn")) is not None:
        return path, Path(own.source)
    nested = config.object("sentence_transformers")
    if "activation_fn" in nested.fields:
        return nested.text("activation_fn"), Path(config.source)
    # Before version 4 of sentence-transformers.
    return config.text("sbert_ce_default_activation_function"), Path(config.source)
