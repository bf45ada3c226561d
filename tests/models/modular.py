"""The tiny modular cross-encoder beside this file, as sentence-transformers 5.4 and later save one.

Made by ``tests/models/build.py``, with the dependency group ``adapters``: a transformer, a pooling,
a Dense, a LayerNorm and a last Dense, as the ettin-rerankers have them. The ONNX file holds the
transformer alone. ``scores.json`` has what sentence-transformers' own ``CrossEncoder`` predicts,
and what it predicts with other poolings.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

SIZE = 32
POOLINGS: tuple[Any, ...] = (
    *("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"),
    ["cls", "mean"],
)


def build_modular(directory: Path) -> None:
    """Write what sentence-transformers saves but the backbone's weights, the ONNX file, scores."""
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Normalize, Pooling
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from tests.models import build

    settings = {
        **build.shared_settings(),
        "max_position_embeddings": build.USABLE_TOKENS,
        "pad_token_id": 0,
        "type_vocab_size": 2,
    }
    config = BertConfig(**settings, attn_implementation="eager")
    backbone = BertModel(config, add_pooling_layer=False).eval()
    build.randomise(backbone)
    names = {
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build.bert_tokenizer(),
        model_max_length=build.USABLE_TOKENS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    )

    def head(pooling: Any) -> list[torch.nn.Module]:
        size = SIZE * (1 if isinstance(pooling, str) else len(pooling))
        made = [
            Pooling(SIZE, pooling_mode=pooling),
            Dense(size, SIZE, bias=False, activation_function=torch.nn.GELU()),
            LayerNorm(SIZE),
            Dense(
                SIZE,
                1,
                activation_function=torch.nn.Identity(),
                module_output_name="scores",
            ),
        ]
        for part in made:
            build.randomise(part)
        return made

    with tempfile.TemporaryDirectory() as parts:
        backbone.save_pretrained(parts)
        tokenizer.save_pretrained(parts)
        transformer = Transformer(parts, transformer_task="feature-extraction")

        def scores(head: list[torch.nn.Module]) -> list[float]:
            encoder = CrossEncoder(modules=[transformer, *head], device="cpu")
            # One pair at a time: some poolings of sentence-transformers read padding.
            found = [encoder.predict([list(pair)]) for pair in pairs]
            return [round(float(value[0]), 6) for value in found]

        pairs = [pair for pair in build.recorded_pairs() if all("[SEP]" not in x for x in pair)]
        made = Path(parts, "made")
        encoder = CrossEncoder(modules=[transformer, *head("cls")], device="cpu")
        encoder.save(str(made), create_model_card=False)
        deep = [
            Pooling(SIZE, pooling_mode="mean"),
            Normalize(),
            Dense(SIZE, 16, use_residual=True),
            Dense(16, 16, use_residual=True, activation_function=None),
            Dense(16, 1, activation_function=torch.nn.SiLU(), module_output_name="scores"),
        ]
        for part in deep[2:]:
            build.randomise(part)
        other = CrossEncoder(modules=[transformer, *deep], device="cpu")
        other.save(str(Path(parts, "deep")), create_model_card=False)
        if directory.exists():
            shutil.rmtree(directory)
        keep = shutil.ignore_patterns("model.safetensors")
        shutil.copytree(made, directory, ignore=keep)
        for path in made.glob("*_*/model.safetensors"):
            shutil.copy(path, directory / path.parent.name)
        recorded = {
            **{k: v for k, v in build.versions().items() if k != "pairs"},
            "pairs": pairs,
            "scores": scores(head("cls")),
            "poolings": {
                "+".join([p] if isinstance(p, str) else p): scores(head(p)) for p in POOLINGS
            },
            "deep": scores(deep),
        }
        for path in Path(parts, "deep").glob("[1-9]_*"):
            shutil.copytree(path, directory / "deep" / path.name)
        shutil.copy(Path(parts, "deep", "modules.json"), directory / "deep")
        build.write_json(directory / "scores.json", recorded)
    (directory / "onnx").mkdir(exist_ok=True)
    queries, documents = zip(*pairs[:2], strict=True)
    made = tokenizer(list(queries), list(documents), padding=True, return_tensors="pt")
    inputs = {name: made[name] for name in ("input_ids", "attention_mask", "token_type_ids")}

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            token_type_ids: torch.Tensor,
            return_dict: bool = False,
        ) -> torch.Tensor:
            return self.backbone(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state

    exported = build.exported(
        States(), inputs, axes=("batch_size", "sequence_length"), output="last_hidden_state"
    )
    (directory / "onnx" / "model.onnx").write_bytes(exported.SerializeToString())
