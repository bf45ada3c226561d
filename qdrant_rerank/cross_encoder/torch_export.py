"""A program: a PyTorch cross-encoder -> its ONNX file, and PyTorch's own scores of some pairs.

    python -m qdrant_rerank.cross_encoder.torch_export SOURCE TARGET

:mod:`~qdrant_rerank.cross_encoder.export` runs it in a process of its own: nothing else of the
package imports PyTorch. Code of a repository is not executed. The reason of a failure is the last
line on stderr.
"""

import inspect
import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

__all__ = ["PAIRS", "REFERENCE"]

REFERENCE = "reference.json"
OPSET = 17
LARGE = 1 << 31  # bytes: protobuf ends at 2 GiB, and weights are then written beside the ONNX file
QUERIES = (
    "melting point of iron",
    "how is bread baked",
    "capital of France",
    "what does a vaccine do",
    "Wie hoch ist der Eiffelturm?",
)
DOCUMENTS = (
    "Iron melts at 1538 degrees Celsius, and boils at 2862.",
    "Bread is baked in an oven, after the dough has risen for an hour or two. " * 3,
    "Paris est la capitale de la France; la tour Eiffel mesure 330 mètres.",
    "Doses.",
)
#: What is scored by both: each query with each document, short, long, and in other languages.
PAIRS = tuple((query, document) for query in QUERIES for document in DOCUMENTS)
COPIED = ("config.json", "config_sentence_transformers.json", "modules.json")
WEIGHTS = ("*.safetensors", "*.bin")
TEXTS = ("*.json", "*.txt", "*.model")


def main(source: str, target: str) -> None:
    """Write ``onnx/model.onnx``, the tokenizer, the configuration and ``reference.json``."""
    import torch
    import transformers

    root = local_copy(source)
    transformer, parts = modules_of(root)
    architecture = " ".join(
        json.loads((transformer / "config.json").read_text("utf-8")).get("architectures") or []
    )
    if parts and not {"LogitScore", "SpladePooling"}.intersection(parts):
        kind, output = transformers.AutoModel, "last_hidden_state"
    elif architecture.endswith("ForSequenceClassification") and not parts:
        kind, output = transformers.AutoModelForSequenceClassification, "logits"
    else:
        raise SystemExit(
            f"{source} is {architecture or 'a model without architectures in config.json'}"
            f"{' with ' + ', '.join(parts) if parts else ''}; expected a sequence classifier or a "
            "modular cross-encoder of sentence-transformers"
        )
    model = kind.from_pretrained(transformer, attn_implementation="eager").float().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(transformer)
    if not tokenizer.is_fast:
        raise SystemExit(f"{source} has no fast tokenizer, which tokenizer.json is made of")
    taken = inspect.signature(model.forward).parameters
    names = [name for name in tokenizer.model_input_names if name in taken]
    into = Path(target)
    into.mkdir()
    tokenizer.save_pretrained(into)
    for name in COPIED:
        if (root / name).is_file():
            shutil.copy(root / name, into)
    if not (into / "config.json").is_file():
        shutil.copy(transformer / "config.json", into)
    for folder in root.glob("[1-9]_*/"):
        shutil.copytree(folder, into / folder.name)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_onnx(model, batch(tokenizer, PAIRS[:3], names), output, into / "onnx" / "model.onnx")
        scores = [reference(model, batch(tokenizer, [p], names), output, into) for p in PAIRS]
    (into / REFERENCE).write_text(json.dumps(scores))


def local_copy(source: str) -> Path:
    """Return the directory of a model, fetched from the hub if it is no path."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    root = Path(snapshot_download(source, allow_patterns=[*TEXTS, WEIGHTS[0]]))
    if not any(root.glob(WEIGHTS[0])):
        snapshot_download(source, allow_patterns=[*TEXTS, WEIGHTS[1]])
    return root


def modules_of(root: Path) -> tuple[Path, list[str]]:
    """Return the transformer's directory, and the kinds of the modules after it."""
    path = root / "modules.json"
    if not path.is_file():
        return root, []
    listed = json.loads(path.read_text("utf-8"))
    kinds = [str(each["type"]).rpartition(".")[2] for each in listed]
    return root / listed[0]["path"], kinds[1:]


def batch(tokenizer: Any, pairs: Any, names: list[str]) -> dict[str, Any]:
    """Tokenise pairs as a model's own documentation says."""
    queries, documents = zip(*pairs, strict=True)
    made = tokenizer(
        list(queries),
        list(documents),
        padding=True,
        truncation=True,
        max_length=min(tokenizer.model_max_length, 128),
        return_tensors="pt",
    )
    return {name: made[name] for name in names}


def write_onnx(model: Any, inputs: dict[str, Any], output: str, path: Path) -> None:
    """Trace the model, with any number of rows and tokens."""
    import onnx
    import torch

    class Named(torch.nn.Module):
        """Takes the inputs in their order, and returns one output."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            """Return the output."""
            return self.model(**dict(zip(inputs, tensors, strict=True)))[output]

    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in inputs}
    axes[output] = {0: "batch_size"} if output == "logits" else axes["input_ids"]
    path.parent.mkdir()
    with tempfile.TemporaryDirectory(dir=path.parent.parent.parent) as room:
        traced = Path(room, "model.onnx")
        torch.onnx.export(
            Named(),
            tuple(inputs.values()),
            str(traced),
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
        size = sum(file.stat().st_size for file in Path(room).iterdir())
        onnx.save(
            onnx.load(str(traced)),
            str(path),
            save_as_external_data=size >= LARGE,
            location="model.onnx_data",
        )


def reference(model: Any, inputs: dict[str, Any], output: str, root: Path) -> list[float]:
    """Return the logits of one pair, computed by PyTorch."""
    found = model(**inputs)[output]
    if output == "logits":
        return [float(value) for value in found[0]]
    from qdrant_rerank.cross_encoder.modular import ModularHead

    head = ModularHead.read(root)
    made = head(found.numpy(), inputs["attention_mask"].numpy())
    return [float(value) for value in made[0]]


if __name__ == "__main__":
    main(*sys.argv[1:])
