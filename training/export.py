"""The trained cross-encoder as an ONNX graph: float32 to compare with, int8 to ship."""

import copy
import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from encoders import POSITIONS, VOCABULARY, WIDTH, Kind
from onnx.external_data_helper import set_external_data
from onnxruntime.quantization import QuantType, quantize_dynamic
from simplify import simplify
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

OPSET = 17
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LEAST_MOVED = 1024  # bytes of a weight that is kept outside the graph
ALIGNMENT = 64  # bytes


class Int8Embedding(nn.Module):
    """A table in int8 with one scale a row, which loses less than one scale for the whole."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        scales = table.abs().amax(1, keepdim=True) / 127
        self.register_buffer("scales", scales)
        self.register_buffer("rows", torch.round(table / scales.clamp(min=1e-12)).to(torch.int8))

    def forward(self, ids: Tensor) -> Tensor:
        """(..., width)."""
        rows: Tensor = self.rows[ids].float() * self.scales[ids]
        return rows


class Smoothed(nn.Module):
    """A linear layer of inputs that are scaled first, so that no channel stands out."""

    def __init__(self, linear: nn.Linear, scale: Tensor, shrink: Tensor) -> None:
        super().__init__()
        self.register_buffer("shrink", shrink)
        self.linear = copy.deepcopy(linear)
        self.linear.weight.data *= scale

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives without scaling."""
        result: Tensor = self.linear(x * self.shrink)
        return result


@torch.no_grad()
def smooth(model: Any, batches: list[Any], strength: dict[str, float]) -> None:
    """Move what stands out in activations into the weights (SmoothQuant, Xiao et al. 2023).

    Dynamic quantisation takes one scale for all activations of a layer, weights have one a channel.
    The feed-forward blocks and the inputs of attention lose most by that. They are smoothed by
    ``max |x|^strength / max |w|^(1 - strength)`` of each input channel; query, key and value, which
    read the same, by one scale.

    Args:
        model: float32, changed in place; its scores stay.
        batches: pairs to see the activations of.
        strength: 0 leaves the outliers in the activations, 1 moves them into the weights; of "up",
            "down" and "attention".
    """
    parts = {("up",): "up", ("down",): "down", ("query", "key", "value"): "attention"}
    blocks = [
        (block, names, strength[kind])
        for block in model.modules()
        for names, kind in parts.items()
        if all(isinstance(getattr(block, name, None), nn.Linear) for name in names)
    ]
    largest: list[Tensor | None] = [None] * len(blocks)

    def watch(at: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def seen(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            most, before = inputs[0].abs().amax((0, 1)), largest[at]
            largest[at] = most if before is None else torch.maximum(before, most)

        return seen

    hooks = [
        getattr(block, name).register_forward_pre_hook(watch(at))
        for at, (block, names, _) in enumerate(blocks)
        for name in names
    ]
    for batch in batches:
        model(batch.ids, batch.mask, batch.types)
    for hook in hooks:
        hook.remove()
    for (block, names, power), most in zip(blocks, largest, strict=True):
        assert most is not None
        linears = [getattr(block, name) for name in names]
        weights = torch.stack([linear.weight.abs().amax(0) for linear in linears]).amax(0)
        scale = most.clamp(min=1e-4) ** power / weights.clamp(min=1e-4) ** (1 - power)
        shrink = 1 / scale
        for name, linear in zip(names, linears, strict=True):
            setattr(block, name, Smoothed(linear, scale, shrink))


def export(
    model: Any,
    target: Path,
    *,
    int8: bool,
    outputs: tuple[str, ...] = ("logits",),
) -> None:
    """Write ``target``: inputs (batch, sequence) int64, output logits (batch, 1) float32.

    Further ``outputs`` that the model returns are of shape (batch, width).

    The model is converted in place. An int8 graph is simplified (``simplify.py``).

    In int8, weights take seven bits of the eight: on x86 without VNNI, onnxruntime
    adds two products of a byte with a signed weight in 16 bits, where weights of eight bits may
    overflow. Of seven bits they cannot, so that the products are the same on every CPU, and they
    are as fast where there is VNNI or AMX. Unsigned weights would be exact as well, but have no AMX
    kernel.
    """
    model = model.float().eval()
    if int8:
        encoder = model.trunk.encoder
        for name in ("words", "positions"):
            if isinstance(table := getattr(encoder, name), nn.Embedding):
                setattr(encoder, name, Int8Embedding(table.weight))
    places = torch.arange(16).unsqueeze(0)
    example = (places + 1000, torch.ones_like(places), (places > 5).long())
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        plain, made = Path(folder) / "plain.onnx", Path(folder) / "made.onnx"
        with warnings.catch_warnings():
            # TorchScript's exporter needs no further package; torch is pinned.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                example,
                str(plain),
                input_names=list(INPUTS),
                output_names=list(outputs),
                dynamic_axes={name: {0: "batch", 1: "sequence"} for name in INPUTS}
                | {name: {0: "batch"} for name in outputs},
                opset_version=OPSET,
                dynamo=False,
            )
        if int8:
            quantize_dynamic(
                plain,
                made,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["MatMul"],
                reduce_range=True,
            )
            simplify(made)
        finished = made if int8 else plain
        onnx.checker.check_model(onnx.load(finished), full_check=True)
        finished.rename(target)


def move_weights(path: Path, data: Path) -> None:
    """Move the weights of an ONNX file into a file beside it, equal ones once."""
    offsets: dict[bytes, int] = {}
    model = onnx.load(path)
    with data.open("wb") as out:
        for tensor in model.graph.initializer:
            raw = tensor.raw_data
            if len(raw) < LEAST_MOVED:
                continue
            digest = hashlib.sha256(raw).digest()
            if digest not in offsets:
                out.write(b"\0" * (-out.tell() % ALIGNMENT))
                offsets[digest] = out.tell()
                out.write(raw)
            set_external_data(tensor, data.name, offsets[digest], len(raw))
            tensor.ClearField("raw_data")
    onnx.save(model, path)


def write_companions(folder: Path, kind: Kind, layers: int) -> None:
    """The tokenizer, whose pair template is part of the model, and the configuration."""
    tokenizer = _own_tokenizer(kind)

    def special(name: str, *tokens: str) -> dict[str, Any]:
        ids = [tokenizer.token_to_id(token) for token in tokens]
        return {"id": name, "ids": ids, "tokens": list(tokens)}

    # What the bi-encoder puts before a text is part of the template.
    tokenizer.post_processor = TemplateProcessing(
        single="[ASKED] $A [SEP]",
        pair="[ASKED] $A [SEP] [READ]:1 $B:1 [SEP]:1",
        special_tokens=[
            special("[ASKED]", "[CLS]", *kind.query.replace(":", " :").split()),
            special("[READ]", "[CLS]", *kind.passage.replace(":", " :").split()),
            special("[SEP]", "[SEP]"),
        ],
    )
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "unk", "mask")}
    files = {
        "config.json": {
            "model_type": "bert",
            "architectures": ["GrownCrossEncoder"],
            "num_labels": 1,
            "id2label": {"0": "relevance"},
            "hidden_size": WIDTH,
            "num_hidden_layers": layers,
            "max_position_embeddings": POSITIONS,
            "vocab_size": VOCABULARY,
            "pad_token_id": 0,
        },
        "special_tokens_map.json": names,
        "tokenizer_config.json": {
            "model_max_length": POSITIONS,
            **names,
            "do_lower_case": True,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")


def template_agrees(folder: Path, kind: Kind) -> bool:
    """Whether the written template gives the tokens that the trunk was trained on."""
    ours, theirs = Tokenizer.from_file(str(folder / "tokenizer.json")), _own_tokenizer(kind)
    query, passage = "who wrote it?", "She wrote it."
    both = [theirs.encode(text).ids for text in (kind.query + query, kind.passage + passage)]
    found: bool = ours.encode(query, passage).ids == both[0] + both[1]
    return found


def _own_tokenizer(kind: Kind) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(kind.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
