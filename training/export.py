"""The trained cross-encoder as one int8 ONNX graph that one-pair runs score reproducibly."""

import shutil
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from minilm import model_folder
from model import Branches, CrossEncoder, Trunk
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

OPSET = 17
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Int8Embedding(nn.Module):
    """A table in int8 with one scale a row: a quarter of the size, no runtime quantiser needed."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        scales = table.abs().amax(1, keepdim=True) / 127
        self.register_buffer("scales", scales)
        self.register_buffer("rows", torch.round(table / scales).to(torch.int8))

    def forward(self, ids: Tensor) -> Tensor:
        """(..., width)."""
        rows: Tensor = self.rows[ids].float() * self.scales[ids]
        return rows


def export(trunk: Trunk, branches: Branches, target: Path, *, int8: bool) -> None:
    """Write ``target``, an ONNX file with inputs (batch, sequence) int64 and logits (batch, 1).

    The trunk and the branches are converted to float32 in place.
    """
    model = CrossEncoder(trunk.float(), branches.float()).eval()
    if int8:
        model.trunk.encoder.words = Int8Embedding(trunk.encoder.words.weight)
        model.trunk.encoder.positions = Int8Embedding(trunk.encoder.positions.weight)
    length = torch.arange(16).unsqueeze(0)
    example = (length + 1000, torch.ones_like(length), (length > 5).long())
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        plain = Path(folder) / "plain.onnx"
        with warnings.catch_warnings():
            # The exporter of TorchScript needs no further package, and torch is pinned.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                example,
                str(plain),
                input_names=list(INPUTS),
                output_names=["logits"],
                dynamic_axes={name: {0: "batch", 1: "sequence"} for name in INPUTS}
                | {"logits": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
        made = Path(folder) / "made.onnx"
        if int8:
            quantize_dynamic(
                plain,
                made,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["MatMul"],
            )
        else:
            made = plain
        onnx.checker.check_model(onnx.load(made), full_check=True)
        made.rename(target)


def copy_tokenizer(target: Path) -> None:
    """The tokenizer with the pair template that is part of the model."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] [CLS]:1 $B:1 [SEP]:1",
        special_tokens=[
            (token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")
        ],
    )
    tokenizer.save(str(target / "tokenizer.json"), pretty=False)
