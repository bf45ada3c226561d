"""The tokenizer and the configuration beside the ONNX file of a model that is grown on e5."""

import json
from pathlib import Path
from typing import Any

from encoders import POSITIONS, VOCABULARY, WIDTH, Kind
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing


def write_companions(folder: Path, kind: Kind, layers: int) -> None:
    """The tokenizer, whose pair template is part of the model, and the configuration."""
    tokenizer = Tokenizer.from_file(str(kind.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def special(name: str, *tokens: str) -> dict[str, Any]:
        ids = [tokenizer.token_to_id(token) for token in tokens]
        return {"id": name, "ids": ids, "tokens": list(tokens)}

    # What e5 puts before a text is part of the template.
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
    ours = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs = Tokenizer.from_file(str(kind.folder / "tokenizer.json"))
    theirs.no_padding()
    theirs.no_truncation()
    query, passage = "who wrote it?", "She wrote it."
    both = [theirs.encode(text).ids for text in (kind.query + query, kind.passage + passage)]
    found: bool = ours.encode(query, passage).ids == both[0] + both[1]
    return found
