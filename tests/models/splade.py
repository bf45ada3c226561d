"""The tiny SPLADE model beside this file: a BERT with a masked-language-model head.

Made by ``tests/models/build.py``, with the dependency group ``adapters``. ``weights.json`` has what
sentence-transformers' own ``SparseEncoder`` makes of some texts.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

SHIFT = 3.0  # taken from each logit, so that most entries of the vocabulary are zero
MODULES = "modules.json", "1_SpladePooling", "sentence_bert_config.json"


def build_splade(directory: Path) -> None:
    """Write the ONNX file, the tokenizer, sentence-transformers' configuration, and the weights."""
    import torch
    from sentence_transformers import SparseEncoder
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    from tests.models import build

    settings = {
        **build.shared_settings(),
        "max_position_embeddings": build.USABLE_TOKENS,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "tie_word_embeddings": False,
    }
    model = BertForMaskedLM(BertConfig(**settings, attn_implementation="eager")).eval()
    build.randomise(model)
    with torch.no_grad():
        model.cls.predictions.decoder.bias.sub_(SHIFT)
    names = {
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build.bert_tokenizer(), model_max_length=build.USABLE_TOKENS, **names
    )
    with tempfile.TemporaryDirectory() as parts:
        made = Path(parts, "made")
        model.save_pretrained(parts)
        tokenizer.save_pretrained(parts)
        encoder = SparseEncoder(parts, device="cpu")
        encoder.save(str(made))
        for name in ("tokenizer.json", "tokenizer_config.json", "config.json", *MODULES):
            copy = shutil.copytree if (made / name).is_dir() else shutil.copy
            if (directory / name).is_dir():
                shutil.rmtree(directory / name)
            directory.mkdir(exist_ok=True)
            copy(made / name, directory / name)
    (directory / "onnx").mkdir(exist_ok=True)
    inputs = dict(tokenizer(["iron melts", "bread"], padding=True, return_tensors="pt"))
    exported = build.exported(model, inputs, axes=("batch_size", "sequence_length"))
    (directory / "onnx" / "model.onnx").write_bytes(exported.SerializeToString())
    texts = [text for pair in build.recorded_pairs()[6:] for text in pair if "[SEP]" not in text]
    rows = encoder.encode_document(texts).to_dense().numpy()
    recorded = [
        {str(place): round(float(row[place]), 6) for place in row.nonzero()[0]} for row in rows
    ]
    build.write_json(directory / "weights.json", {"texts": texts, "weights": recorded})
