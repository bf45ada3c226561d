"""How a SPLADE model is put together, by the files that sentence-transformers and OpenSearch write.

A model has one way for queries and one for documents. Usually both are the same network with a
masked-language-model head, whose logits are pooled over the tokens. An asymmetric model has only a
table of weights for queries (``Router`` and ``SparseStaticEmbedding``, or an ``idf.json``).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from qdrant_rerank.errors import InvalidInputError, ModelFileError
from qdrant_rerank.utils.json_object import JsonObject, parse_json

__all__ = ["FILES", "Activation", "Pooling", "Side", "SpladeLayout", "read_layout"]

#: How the weights of a text's tokens become one.
Pooling = Literal["max", "sum"]
#: What is done to a logit before the logarithm, in the words of sentence-transformers.
Activation = Literal["relu", "log1p_relu"]

IDF = "idf.json"
#: Files that a repository may have besides the ONNX file and its tokenizer.
FILES = (
    "modules.json",
    "router_config.json",
    "sentence_bert_config.json",
    IDF,
    *(f"{folder}/config.json" for folder in ("1_SpladePooling", "document_1_SpladePooling")),
    *(
        f"query_0_SparseStaticEmbedding/{name}"
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    ),
)


@dataclass(frozen=True, slots=True)
class Side:
    """How queries, or documents, are encoded.

    Attributes:
        folder: of the network, or of the table.
        table: whether there is only a table of weights: in ``model.safetensors``, or in the file
            ``idf.json``.
        pooling: of the network's logits.
        activation: of the network's logits; None if no file tells.
        prompt: is put before each text.
    """

    folder: Path
    table: bool = False
    pooling: Pooling = "max"
    activation: Activation | None = None
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class SpladeLayout:
    """The two sides of a model; they are equal if it is symmetric."""

    query: Side
    document: Side


def read_layout(root: Path) -> SpladeLayout:
    """Read how the model in a directory is put together.

    Raises:
        ModelFileError: a configuration cannot be read, or holds a module that is not known.
    """
    modules = _modules(root)
    router = JsonObject.read(root / "router_config.json")
    if router.fields:
        types, structure = router.object("types"), router.object("structure")
        parts = {
            name: [(folder, _kind(types, folder)) for folder in structure.list_of(name, str)]
            for name in ("query", "document")
        }
        found = SpladeLayout(*(_side(root, parts[name], router) for name in ("query", "document")))
    elif modules:
        side = _side(root, modules, JsonObject(str(root / "modules.json")))
        found = SpladeLayout(side, side)
    else:
        document = Side(root)
        has_table = (root / IDF).is_file()
        found = SpladeLayout(replace(document, table=True) if has_table else document, document)
    prompts = JsonObject.read(root / "config_sentence_transformers.json").object("prompts")
    return SpladeLayout(
        replace(found.query, prompt=prompts.text("query") or ""),
        replace(
            found.document,
            prompt=next(filter(None, map(prompts.text, ("document", "passage", "corpus"))), ""),
        ),
    )


def _modules(root: Path) -> list[tuple[str, str]]:
    """Return folder and kind of each module that ``modules.json`` lists."""
    path = root / "modules.json"
    try:
        listed: Any = parse_json(path.read_text("utf-8"))
        return [(str(each["path"]), str(each["type"]).rpartition(".")[2]) for each in listed]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelFileError(
            f"{path} is not a list of modules ({error!r}). Fetch it again."
        ) from error


def _kind(types: JsonObject, folder: str) -> str:
    return (types.text(folder) or "").rpartition(".")[2]


def _side(root: Path, parts: list[tuple[str, str]], source: JsonObject) -> Side:
    match [kind for _, kind in parts]:
        case ["SparseStaticEmbedding"]:
            return Side(root / parts[0][0], table=True)
        case ["Transformer" | "MLMTransformer", "SpladePooling"]:
            config = JsonObject.read(root / parts[1][0] / "config.json")
            pooling = config.text("pooling_strategy") or "max"
            activation = config.text("activation_function") or "relu"
            if pooling not in {"max", "sum"}:
                raise config.wrong("pooling_strategy", "'max' or 'sum'")
            if activation not in {"relu", "log1p_relu"}:
                raise config.wrong("activation_function", "'relu' or 'log1p_relu'")
            return Side(root / parts[0][0], False, pooling, activation)  # type: ignore[arg-type]
        case kinds:
            raise ModelFileError(
                f"{source.source} lists the modules {', '.join(kinds) or 'none'}; a sparse encoder "
                "has a Transformer and a SpladePooling, or a SparseStaticEmbedding. Is it another "
                "kind of model?"
            )


def settled(side: Side, pooling: Pooling | None, activation: Activation | None) -> Side:
    """Return a side with the caller's choices in the place of the files'.

    Raises:
        InvalidInputError: neither tells the activation, and it decides the weights.
    """
    if pooling is not None:
        side = replace(side, pooling=pooling)
    if activation is not None:
        side = replace(side, activation=activation)
    if side.activation is None:
        if (side.folder / IDF).is_file():
            raise InvalidInputError(
                f"{side.folder} has {IDF} and no SpladePooling that tells its activation. Pass "
                "activation='log1p_relu' for OpenSearch's models of version 3, else 'relu'."
            )
        side = replace(side, activation="relu")
    return side
