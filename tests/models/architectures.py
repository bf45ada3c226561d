"""Tiny DeBERTa-v2, ModernBERT and Qwen3 rerankers; made by build.py, which says how and why."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.models.build import (
    LOGIT_SPREAD,
    USABLE_TOKENS,
    WORDS,
    described,
    exported,
    randomise,
    record_scores,
    recorded_pairs,
    shared_settings,
    versions,
    write_json,
    write_model,
    xlmr_tokenizer,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

QWEN_TOKENS = 256  # the prompt alone takes half of it
BPE_WORDS = WORDS[:320]
# As the model card of Qwen3-Reranker gives it; written out so that the tests compare two texts.
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
OTHER_INSTRUCTION = "Find the recipe"


def build_deberta(directory: Path) -> None:
    """Write a DeBERTa-v2 classifier: relative positions, no token types, pad id 0."""
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    settings = {
        **shared_settings(),
        "max_position_embeddings": USABLE_TOKENS,
        "max_relative_positions": -1,
        "norm_rel_ebd": "layer_norm",
        "pad_token_id": 0,
        "pooler_dropout": 0,
        "pooler_hidden_act": "gelu",
        "pooler_hidden_size": 32,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "position_buckets": 32,
        "relative_attention": True,
        "share_att_key": True,
        "type_vocab_size": 0,
    }
    model = DebertaV2ForSequenceClassification(DebertaV2Config(**settings, num_labels=1))
    tokenizer = deberta_tokenizer()
    write_model(
        directory,
        model=model,
        head=model.classifier,
        tokenizer=tokenizer,
        input_names=["input_ids", "attention_mask"],
    )
    write_json(directory / "config.json", described("deberta-v2", model, settings))
    write_json(directory / "tokenizer_config.json", bracket_names("DebertaV2Tokenizer"))
    record_scores(directory, model)


def build_modernbert(directory: Path) -> None:
    """Write a ModernBERT classifier: rotary positions, local attention in its second layer."""
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    tokenizer = modernbert_tokenizer()
    ids = tokenizer.get_vocab()
    settings = {
        "attention_dropout": 0.0,
        "bos_token_id": ids["[CLS]"],
        "classifier_pooling": "mean",
        "cls_token_id": ids["[CLS]"],
        "embedding_dropout": 0.0,
        "eos_token_id": ids["[SEP]"],
        "global_attn_every_n_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "local_attention": 16,
        "max_position_embeddings": USABLE_TOKENS,
        "mlp_dropout": 0.0,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "pad_token_id": ids["[PAD]"],
        "sep_token_id": ids["[SEP]"],
        "vocab_size": len(ids),
    }
    config = ModernBertConfig(**settings, num_labels=1, attn_implementation="eager")
    model = ModernBertForSequenceClassification(config)
    write_model(
        directory,
        model=model,
        head=model.classifier,
        tokenizer=tokenizer,
        input_names=["input_ids", "attention_mask"],
    )
    identity = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.1.0"}
    write_json(
        directory / "config.json",
        described("modernbert", model, settings) | {"sentence_transformers": identity},
    )
    write_json(directory / "tokenizer_config.json", bracket_names("PreTrainedTokenizerFast"))
    record_scores(directory, model)


def build_qwen3(directory: Path) -> None:
    """Write a Qwen3 decoder that answers yes or no: three inputs, a vocabulary of logits."""
    import onnx
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = qwen_tokenizer()
    ids = tokenizer.get_vocab()
    settings = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "eos_token_id": ids["<|im_end|>"],
        "head_dim": 16,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 64,
        "max_position_embeddings": QWEN_TOKENS,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "pad_token_id": ids["<|endoftext|>"],
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "use_cache": False,
        "vocab_size": len(ids),
    }
    model = Qwen3ForCausalLM(Qwen3Config(**settings, attn_implementation="eager")).eval()
    randomise(model)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(tokenizer.to_str() + "\n", encoding="utf-8")
    write_json(
        directory / "tokenizer_config.json",
        {
            "eos_token": "<|im_end|>",
            "model_max_length": 131072,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    spread_answers(directory, model, ids["no"], ids["yes"])

    mask = torch.ones((2, 12), dtype=torch.int64)
    mask[1, :5] = 0
    inputs = {
        "input_ids": torch.arange(24).reshape(2, 12) + 300,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }
    (directory / "onnx").mkdir(exist_ok=True)
    axes = ("batch_size", "sequence_length")
    onnx.save_model(exported(traceable(model), inputs, axes), directory / "onnx" / "model.onnx")
    config = described("qwen3", model, settings)
    write_json(
        directory / "config.json",
        {key: value for key, value in config.items() if key not in {"id2label", "label2id"}},
    )
    record_answers(directory, model)


def traceable(model: Any) -> Any:
    """The decoder with a causal mask of its own: transformers' is not traced into a graph."""
    import torch

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self,
            input_ids: Any,
            attention_mask: Any,
            position_ids: Any,
            return_dict: bool = False,
        ) -> Any:
            columns = torch.arange(input_ids.shape[1])
            allowed = (columns[None, :] <= columns[:, None])[None, None]
            allowed = allowed & attention_mask[:, None, None, :].bool()
            bias = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
            return self.model(
                input_ids=input_ids,
                attention_mask=bias,
                position_ids=position_ids,
                use_cache=False,
                return_dict=return_dict,
            )[0]

    return Decoder().eval()


def spread_answers(directory: Path, model: Any, no: int, yes: int) -> None:
    """Turn the token yes so that the recorded pairs' log-odds spread around zero."""
    import torch

    inputs = prompted(directory, INSTRUCTION)
    with torch.no_grad():
        states = model.model(**inputs).last_hidden_state[:, -1]
        mean = states.mean(0)
        weight = model.lm_head.weight  # and the embedding
        apart = weight[yes] - weight[no]
        apart -= (apart @ mean) / (mean @ mean) * mean
        apart *= LOGIT_SPREAD / (states @ apart).std()
        weight[yes] = weight[no] + torch.round(apart, decimals=3)  # as in scale_logits


def record_answers(directory: Path, model: Any) -> None:
    """Write what the steps of the model card give: left padding, all pairs at once.

    The answers' logits at the last position, and the probability of yes among the two.
    """
    import torch

    recorded: dict[str, Any] = {**versions(), "other_instruction": OTHER_INSTRUCTION}
    for prefix, instruction in (("", INSTRUCTION), ("other_", OTHER_INSTRUCTION)):
        # The positions count the padding in; rotary positions do not notice.
        with torch.no_grad():
            logits = model(**prompted(directory, instruction)).logits[:, -1]
        answers = logits[:, loaded_tokenizer(directory).convert_tokens_to_ids(["no", "yes"])]
        scores = torch.log_softmax(answers, dim=1)[:, 1].exp()
        recorded[f"{prefix}no_yes"] = [[round(x, 6) for x in row] for row in answers.tolist()]
        recorded[f"{prefix}scores"] = [round(x, 6) for x in scores.tolist()]
    write_json(directory / "transformers.json", recorded)


def loaded_tokenizer(directory: Path) -> Any:
    """The tokenizer as transformers reads it."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(directory, padding_side="left")


def prompted(directory: Path, instruction: str) -> Any:
    """The recorded pairs in their prompt: the pair is cut, the prompt never."""
    tokenizer = loaded_tokenizer(directory)
    prefix = tokenizer.encode(PREFIX, add_special_tokens=False)
    suffix = tokenizer.encode(SUFFIX, add_special_tokens=False)
    encoded = tokenizer(
        [
            f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
            for query, document in recorded_pairs()
        ],
        padding=False,
        truncation="longest_first",
        return_attention_mask=False,
        return_token_type_ids=False,
        max_length=QWEN_TOKENS - len(prefix) - len(suffix),
    )
    rows = [prefix + row + suffix for row in encoded["input_ids"]]
    return tokenizer.pad({"input_ids": rows}, padding=True, return_tensors="pt")


MAKERS = {
    "tiny-deberta": build_deberta,
    "tiny-modernbert": build_modernbert,
    "tiny-qwen3": build_qwen3,
}


# Tokenizers


def bracket_names(tokenizer_class: str) -> dict[str, Any]:
    """A tokenizer_config.json with special tokens in brackets."""
    return {
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "model_max_length": USABLE_TOKENS,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "tokenizer_class": tokenizer_class,
        "unk_token": "[UNK]",
    }


def deberta_tokenizer() -> Tokenizer:
    """XLM-R's Unigram pieces under DeBERTa's special tokens and pair template."""
    import json

    from tokenizers import Tokenizer, processors

    content = json.loads(xlmr_tokenizer().to_str())
    names = {
        "<s>": "[CLS]",
        "<pad>": "[PAD]",
        "</s>": "[SEP]",
        "<unk>": "[UNK]",
        "<mask>": "[MASK]",
    }
    # [PAD] 0, [CLS] 1, [SEP] 2, [UNK] 3
    order = ["<pad>", "<s>", "</s>", "<unk>"]
    pieces = content["model"]["vocab"]
    content["model"]["vocab"] = [[names[name], 0.0] for name in order] + [
        [names.get(piece, piece), score] for piece, score in pieces[4:]
    ]
    content["added_tokens"] = []
    content["post_processor"] = None
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return tokenizer


def modernbert_tokenizer() -> Tokenizer:
    """Byte-level BPE with BERT's special tokens; the template has no token types."""
    from tokenizers import processors

    tokenizer = byte_level_bpe(BPE_WORDS)
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    ids = tokenizer.get_vocab()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0",
        special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def qwen_tokenizer() -> Tokenizer:
    """Byte-level BPE without a template; yes and no are tokens of their own."""
    from tokenizers import AddedToken, normalizers

    prompt = f"{PREFIX} {INSTRUCTION} {SUFFIX}".replace("\n", " ").split()
    tokenizer = byte_level_bpe(
        [*BPE_WORDS, *(word for word in prompt if word.isalpha())], first=["yes", "no", "Judge"]
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(
        [AddedToken(name, normalized=False, special=False) for name in ("<think>", "</think>")]
    )
    return tokenizer


def byte_level_bpe(words: Iterable[str], first: Iterable[str] = ()) -> Tokenizer:
    """BPE whose merges spell each word letter by letter behind a blank, and some without one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(alphabet)}
    merges: dict[tuple[str, str], None] = {}
    for word in [*(f"Ġ{word}" for word in words), *first]:
        for end in range(2, len(word) + 1):
            merges[word[: end - 1], word[end - 1]] = None
            vocabulary.setdefault(word[:end], len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
