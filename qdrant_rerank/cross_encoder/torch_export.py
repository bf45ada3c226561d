"""A program: a PyTorch cross-encoder -> its ONNX file, and PyTorch's own scores of some pairs.

:mod:`~qdrant_rerank.cross_encoder.export` runs it in a process of its own: nothing else of the
package imports PyTorch. Code of a repository is not executed.
"""

import inspect
import json
import os
import re
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

from qdrant_rerank.cross_encoder.modular import MODULES, ModularHead, modules_of
from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.hub import client
from qdrant_rerank.hub.cache import cached_repository
from qdrant_rerank.utils.fork import temporary_directory

__all__ = ["LARGE", "OUTCOME", "PAIRS", "run"]

OUTCOME = "outcome.json"
OPSET = 17
LARGE = 1 << 31  # bytes: protobuf ends at 2 GiB, and weights are then written beside the ONNX file
MOST_TOKENS = 512  # of a pair; none of those below has so many
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
COPIED = ("config.json", "config_sentence_transformers.json", MODULES)
# Of a hub repository: the ends of the names of files, and the folders, which are the top and those
# of modules.
TEXTS = (".json", ".txt", ".model")
FOLDERS = re.compile(r"([0-9]+_\w+)?")


def run(source: str, target: str) -> None:
    """Export, and write beside the target, in ``outcome.json``, the scores or the reason."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        outcome: dict[str, Any] = {"scores": export(source, Path(target))}
    except Exception as error:  # whatever PyTorch or the hub's client raises is a reason
        kind = "" if isinstance(error, ModelFileError) else f"{type(error).__name__}: "
        outcome = {"reason": kind + " ".join(str(error).split())}
    Path(target).with_name(OUTCOME).write_text(json.dumps(outcome), encoding="utf-8")


def _end_with_parent() -> None:
    while os.read(0, 1):  # the other end is the parent's, and is closed when that is killed
        pass
    os._exit(1)


def export(source: str, into: Path) -> list[list[float]]:
    """Write ``onnx/model.onnx``, the tokenizer and the configuration.

    Returns:
        PyTorch's logits of the pairs, shape (pairs, labels).

    Raises:
        ModelFileError: the model is not one that can be exported.
    """
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    root = local_copy(source)
    transformer, modular = root, (root / MODULES).is_file()
    if modular:
        transformer = modules_of(root / MODULES)[0][0]
        modular = len(modules_of(root / MODULES)) > 1
    names = json.loads((transformer / "config.json").read_text("utf-8")).get("architectures")
    architecture = " ".join(names or ["a model without architectures in config.json"])
    if modular:
        ModularHead.read(root)
        kind, output = transformers.AutoModel, "last_hidden_state"
    elif architecture.endswith("ForSequenceClassification"):
        kind, output = transformers.AutoModelForSequenceClassification, "logits"
    else:
        raise ModelFileError(
            f"it is {architecture}; expected a sequence classifier, or a modular cross-encoder of "
            "sentence-transformers"
        )
    own = {"trust_remote_code": False}
    model = kind.from_pretrained(transformer, attn_implementation="eager", **own).float().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(transformer, **own)
    if not tokenizer.is_fast:
        raise ModelFileError("it has no fast tokenizer, which tokenizer.json is made of")
    taken = inspect.signature(model.forward).parameters
    inputs = [name for name in tokenizer.model_input_names if name in taken]
    into.mkdir()
    tokenizer.save_pretrained(into)
    for name in COPIED:
        if (root / name).is_file():
            shutil.copy(root / name, into)
    if not (into / "config.json").is_file():
        shutil.copy(transformer / "config.json", into)
    for folder in root.glob("[1-9]*_*/"):
        shutil.copytree(folder, into / folder.name)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = [reference(model, batch(tokenizer, [p], inputs), output, into) for p in PAIRS]
        some = batch(tokenizer, PAIRS[:3], inputs)
        write_onnx(model, some, output, into / "onnx" / "model.onnx")
    return scores


def local_copy(source: str) -> Path:
    """Return the directory of a model, fetched from the hub if it is no path."""
    if Path(source).is_dir():
        return Path(source)
    repository = cached_repository(source)
    commit, listing = client.describe(repository, None)
    files = [name for name in listing.files if FOLDERS.fullmatch(name.rpartition("/")[0])]
    weights = [name for name in files if name.endswith(".safetensors")]
    weights = weights or [name for name in files if name.endswith(".bin")]
    wanted = [*weights, *(name for name in files if name.endswith(TEXTS))]
    with client.lock(repository):
        client.download(repository, commit, {name: listing.files[name] for name in wanted})
    return repository.snapshot(commit)


def batch(tokenizer: Any, pairs: Any, names: list[str]) -> dict[str, Any]:
    """Tokenise pairs as a model's own documentation says."""
    queries, documents = zip(*pairs, strict=True)
    made = tokenizer(
        list(queries),
        list(documents),
        padding=True,
        truncation=True,
        max_length=min(tokenizer.model_max_length, MOST_TOKENS),
        return_tensors="pt",
    )
    return {name: made[name] for name in names}


def write_onnx(model: Any, inputs: dict[str, Any], output: str, path: Path) -> None:
    """Trace the model, with any number of rows and tokens."""
    import onnx
    import torch

    class Named(torch.nn.Module):  # type: ignore[misc]  # PyTorch's types are not read
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
    with temporary_directory(path.parent.parent.parent) as room:
        traced = room / "model.onnx"
        torch.onnx.export(
            Named().eval(),
            tuple(inputs.values()),
            str(traced),
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
        size = sum(file.stat().st_size for file in room.iterdir())
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
    made = ModularHead.read(root)(found.numpy(), inputs["attention_mask"].numpy())
    return [float(value) for value in made[0]]
