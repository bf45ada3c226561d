"""Make the tiny random-weight cross-encoders beside this file.

    pip install --group architectures && python -m tests.models.build [NAME ...]

Rewrites `tiny-bert/`, `tiny-bert-eager/` and `tiny-xlmr/` (here), `tiny-deberta/`, `tiny-modernbert/` and
`tiny-qwen3/` (architectures.py), and, with the group `adapters`, the sparse encoder `tiny-splade/` (splade.py)
and the modular cross-encoder `tiny-modular/` (modular.py): the shapes, tokenizers and file layout of real hub models
(MiniLM, bge-reranker, mxbai-rerank, gte-reranker-modernbert and Qwen3-Reranker exports), with
weights that mean nothing. A given pair always gets the same logit, other pairs get visibly other
ones, and a wrong template, position or token type moves a score by far more than rounding does.
Beside each, `transformers.json` has the scores that transformers itself computes with the same
weights, for the tests to compare with.

Needs, only to rebuild, the dependency group `architectures`. The first two `tokenizer.json` files cut and pad every pair to 64 tokens although the
models read 128, as stock MiniLM files do: who loads one must reset both.

Vocabularies are composed here rather than trained, since the trainers in `tokenizers` break
ties by hash order and so differ from run to run.
"""

from __future__ import annotations

import io
import json
import math
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto
    from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
SEED = 20_240_229
VOCABULARY_SIZE = 2000
USABLE_TOKENS = 128  # what the models read
STOCK_TOKENS = 64  # what the tokenizer files cut and pad to
LOGIT_SPREAD = 2.0  # standard deviation of the logits over `sample_pairs`
QUERY_OR_KEY = re.compile(r"\.(query|key|query_proj|key_proj|q_proj|k_proj)\.")
OPSET = 14
IR_VERSION = 8

WORDS = """
the a an of and or not to in on at by for from with without over under into out up down off as is
are was were be been being has have had do does did can could will would should may might must this
that these those it its he she they we you i his her their our your my who what when where why how
which there here then than so if but because while after before during between about against all any
each every few many more most some such no nor only own same too very just also now once again
best good better new old first last long short high low large small fast slow early late hot cold
warm cool dry wet light dark heavy clean open closed right left true false free full empty simple
search query document passage answer question text word sentence page title index vector score rank
result list point collection payload model token batch length order limit filter server client cache
file folder path name type value number data table row column key field error warning test code
python rust library package version install update build run start stop read write send receive load
save copy move delete add remove change create find keep make take give get put set use work help
show tell ask call come go see look think know learn teach need want like love hate feel hear speak
eat drink sleep walk ride drive fly swim grow cut cook bake boil fry mix pour serve wash paint sing
play win lose buy sell pay cost price money bank market shop trade tax loan rent house home room door
window wall roof floor kitchen garden tree flower leaf root seed grass river lake sea ocean water
rain snow wind storm cloud sun moon star sky earth fire stone sand metal iron gold silver copper wood
glass paper cotton wool bread butter cheese milk egg meat fish rice bean soup salt sugar pepper apple
pear plum lemon orange grape berry tomato potato onion garlic coffee tea wine beer oil honey cake dog
cat horse cow sheep goat bird owl crow duck bee ant wolf bear fox mouse rabbit snake frog whale shark
man woman child baby boy girl mother father brother sister friend doctor nurse teacher student farmer
sailor soldier king queen city town village street road bridge station train bus car bicycle boat
ship plane engine wheel battery screen phone camera radio clock lamp machine tool hammer knife spoon
cup plate bottle box bag coat shirt shoe hat ring book letter story poem song music dance picture film
game ball team race school class lesson law court judge crime police army war peace vote state nation
country world land island mountain valley forest desert north south east west day night morning
evening week month year time hour minute second summer winter spring autumn january berlin paris
london rome tokyo capital history science physics chemistry biology energy heat power force mass
speed atom cell blood heart brain bone skin eye ear hand foot head body health disease fever pain
virus medicine vaccine dose treatment patient hospital vitamin diet exercise sleeping planet orbit
gravity climate weather ice glacier volcano species fossil gene protein enzyme acid carbon oxygen
one two three four five six seven eight nine ten hundred thousand million
""".split()

SUFFIXES = """
s es ed ing er est ly ness ment tion sion able ible al ial ful less ous ive ize ise ity ty ary ery
ant ent ance ence ism ist ship hood ward wise th st nd rd en age ure ish y ies ied ian an or ar ate
ation ators ology graph gram meter scope phone
""".split()

NON_ENGLISH_WORDS = """
straße über für schön größe fluß köln café élève forêt château naïve garçon où niño señor mañana
corazón São pão coração łódź żółw čaj ž život øl smørrebrød små ærlig þing öl şehir ığdır
москва вода книга поиск дом город λόγος νερό πόλη בית ספר ماء كتاب みず ほん 水 本 東京 北京 検索
""".split()

PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~°€£§«»“”‘’–—…·"
LATIN_EXTRA = "àáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿßāăąćčďđēęěğīįıķļłńňőœŕřśşšťūůűźżž"
OTHER_SCRIPTS = (
    "αβγδεζηθικλμνξοπρςστυφχψωάέήίόύώ"
    "абвгдежзийклмнопрстуфхцчшщъыьэюяё"
    "אבגדהוזחטיכךלמםנןסעפףצץקרשת"
    "ابتثجحخدذرزسشصضطظعغفقكلمنهويءة"
    "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをん"
    "一二三人大小中国日本北京東水火山川木土天上下左右語文字書学検索車家"
)
DIGITS = "0123456789"
LOWERCASE = "abcdefghijklmnopqrstuvwxyz"


def main() -> None:
    """Rewrite the model directories, or those that are named, and print what was made."""
    from tests.models import architectures, modular, splade

    makers = {
        "tiny-bert": build_bert,
        "tiny-bert-eager": build_bert_eager,
        "tiny-xlmr": build_xlmr,
        **architectures.MAKERS,
        "tiny-splade": splade.build_splade,
        "tiny-modular": modular.build_modular,
    }
    for name in sys.argv[1:] or makers:
        make = makers[name]
        directory = HERE / name
        make(directory)
        for path in sorted(directory.rglob("*.*")):
            print(f"{path.stat().st_size:>8} {path.relative_to(HERE)}")  # noqa: T201


def build_bert_eager(directory: Path) -> None:
    """The same with attention written out, as most files on the hub have it."""
    build_bert(directory, attention="eager")


def build_bert(directory: Path, *, attention: str | None = None) -> None:
    """Write a BERT classifier: three inputs, `[CLS] A [SEP] B [SEP]`, pad id 0."""
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = bert_tokenizer()
    settings = {
        **shared_settings(),
        "max_position_embeddings": USABLE_TOKENS,
        "pad_token_id": 0,
        "type_vocab_size": 2,
    }
    config = BertConfig(**settings, num_labels=1)
    if attention is not None:
        config._attn_implementation = attention
    model = BertForSequenceClassification(config)
    write_model(
        directory,
        model=model,
        head=model.classifier,
        tokenizer=tokenizer,
        input_names=["input_ids", "attention_mask", "token_type_ids"],
    )
    write_json(directory / "config.json", described("bert", model, settings))
    names = {
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
    }
    write_json(directory / "special_tokens_map.json", names)
    write_json(
        directory / "tokenizer_config.json",
        names
        | {
            "clean_up_tokenization_spaces": True,
            "do_lower_case": True,
            "model_max_length": USABLE_TOKENS,
            "strip_accents": None,
            "tokenize_chinese_chars": True,
            "tokenizer_class": "BertTokenizer",
        },
    )
    record_scores(directory, model)


def build_xlmr(directory: Path) -> None:
    """Write an XLM-R classifier: two inputs, `<s> A </s></s> B </s>`, pad id 1."""
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    tokenizer = xlmr_tokenizer()
    settings = {
        **shared_settings(),
        # Positions count from pad_token_id + 1, so the table is two longer than what is usable.
        "max_position_embeddings": USABLE_TOKENS + 2,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "type_vocab_size": 1,
    }
    model = XLMRobertaForSequenceClassification(XLMRobertaConfig(**settings, num_labels=1))
    write_model(
        directory,
        model=model,
        head=model.classifier.out_proj,
        tokenizer=tokenizer,
        input_names=["input_ids", "attention_mask"],
    )
    write_json(directory / "config.json", described("xlm-roberta", model, settings))
    names: dict[str, Any] = {
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "mask_token": {
            "content": "<mask>",
            "lstrip": True,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
        },
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
    }
    write_json(directory / "special_tokens_map.json", names)
    write_json(
        directory / "tokenizer_config.json",
        names
        | {
            "clean_up_tokenization_spaces": True,
            "mask_token": "<mask>",
            "model_max_length": USABLE_TOKENS,
            "tokenizer_class": "XLMRobertaTokenizer",
        },
    )
    record_scores(directory, model)


def shared_settings() -> dict[str, Any]:
    """Config entries both models have in common."""
    return {
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": 32,
        "intermediate_size": 64,
        "layer_norm_eps": 1e-5,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "vocab_size": VOCABULARY_SIZE,
    }


def described(model_type: str, model: torch.nn.Module, settings: dict[str, Any]) -> dict[str, Any]:
    """A config.json as the hub has it."""
    return {
        "architectures": [type(model).__name__],
        "model_type": model_type,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        **settings,
    }


# Tokenizers


def syllables() -> Iterator[str]:
    """Invented syllables, shortest first, without end for our purposes (some 8000)."""
    consonants, vowels = "bcdfghjklmnpqrstvwxz", "aeiou"
    for parts in ((consonants, vowels), (vowels, consonants), (consonants, vowels, consonants)):
        yield from map("".join, product(*parts))
    yield from map("".join, product(consonants, vowels, consonants, vowels))


def filled(pieces: Iterable[str], fillers: Iterable[str], size: int) -> list[str]:
    """The first `size` distinct strings of `pieces`, then of `fillers`."""
    kept = list(islice(dict.fromkeys([*pieces, *fillers]), size))
    if len(kept) != size:
        raise ValueError(f"only {len(kept)} pieces for a vocabulary of {size}")
    return kept


def bert_tokenizer() -> Tokenizer:
    """A lower-casing WordPiece tokenizer with the pair template of BERT."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    normalizer = normalizers.BertNormalizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    raw = [*LOWERCASE, *DIGITS, *PUNCTUATION, *LATIN_EXTRA, *OTHER_SCRIPTS]
    characters = [c.strip() for c in map(normalizer.normalize_str, raw) if c.strip()]
    inner = [f"##{c}" for c in characters if c.isalnum()]
    words = map(normalizer.normalize_str, [*WORDS, *NON_ENGLISH_WORDS])
    fillers = (piece for s in syllables() for piece in (f"##{s}", s))
    pieces = filled(
        [*specials, *characters, *inner, *(f"##{s}" for s in SUFFIXES), *words],
        fillers,
        VOCABULARY_SIZE,
    )
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(specials)
    return tokenizer


def xlmr_tokenizer() -> Tokenizer:
    """A case-keeping Unigram tokenizer with the pair template of XLM-R."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    upper = [c for c in LATIN_EXTRA.upper() + OTHER_SCRIPTS.upper() if c.isalpha()]
    characters = list(
        LOWERCASE + LOWERCASE.upper() + DIGITS + PUNCTUATION + LATIN_EXTRA + OTHER_SCRIPTS
    )
    words = [f"▁{word}" for word in [*WORDS, *NON_ENGLISH_WORDS]]
    pieces = filled(
        [*specials, "▁", *words, *SUFFIXES, *characters, *upper],
        syllables(),
        VOCABULARY_SIZE - 1,
    )
    # Zipf's law for the log probabilities; each piece costs, so the longest ones win.
    ranks = range(1, len(pieces) - len(specials) + 1)
    scores = [0.0] * len(specials) + [round(-math.log(10 * rank), 4) for rank in ranks]
    vocabulary = [*zip(pieces, scores, strict=True), ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(
        [*specials, AddedToken("<mask>", lstrip=True, normalized=False, special=True)]
    )
    return tokenizer


# Weights and export


def write_model(
    directory: Path,
    *,
    model: torch.nn.Module,
    head: torch.nn.Linear,
    tokenizer: Tokenizer,
    input_names: Sequence[str],
) -> None:
    """Draw the weights, then write `onnx/model.onnx` and `tokenizer.json`."""
    import onnx
    import torch

    randomise(model.eval())
    ids = tokenizer.get_vocab()
    pad = next(token for token in ("[PAD]", "<pad>") if token in ids)
    tokenizer.enable_truncation(max_length=USABLE_TOKENS)
    tokenizer.enable_padding(pad_id=ids[pad], pad_token=pad)
    encodings = tokenizer.encode_batch(sample_pairs())
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    inputs = {
        name: torch.tensor([getattr(e, columns[name]) for e in encodings]) for name in input_names
    }
    scale_logits(model, head, inputs)

    (directory / "onnx").mkdir(parents=True, exist_ok=True)
    onnx.save_model(exported(model, inputs), directory / "onnx" / "model.onnx")

    tokenizer.enable_truncation(max_length=STOCK_TOKENS)
    tokenizer.enable_padding(length=STOCK_TOKENS, pad_id=ids[pad], pad_token=pad)
    (directory / "tokenizer.json").write_text(tokenizer.to_str() + "\n", encoding="utf-8")


def randomise(model: torch.nn.Module) -> None:
    """Draw every weight from numpy's generator, whose stream does not depend on the CPU.

    Embeddings of words, positions and token types are equally large, so each of them counts.
    Projections keep the variance of what they read; queries and keys are a little larger, so
    that attention picks rather than averages.
    """
    import torch

    generator = np.random.default_rng(SEED)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            draw = generator.standard_normal(tuple(weight.shape))
            if name.endswith("bias"):
                draw = 0.1 * draw
            elif weight.ndim == 1:  # a norm's
                draw = 1 + 0.1 * draw
            elif "embed" not in name:
                gain = 1.5 if QUERY_OR_KEY.search(name) else 1.0
                draw = gain * draw / math.sqrt(weight.shape[1])
            weight.copy_(torch.from_numpy(draw.astype(np.float32)))


def scale_logits(
    model: torch.nn.Module, head: torch.nn.Linear, inputs: dict[str, torch.Tensor]
) -> None:
    """Scale and shift the head so that the sample pairs' logits spread around zero."""
    import torch

    with torch.no_grad():
        logits = model(**inputs).logits
        # Rounded: the last bits of a sum depend on the CPU, the files must not.
        head.weight.mul_(round(LOGIT_SPREAD / float(logits.std()), 2))
        head.bias.sub_(round(float(model(**inputs).logits.mean()), 1))


def sample_pairs() -> list[tuple[str, str]]:
    """Pairs of invented sentences: a query of 2 to 8 words, a document of 3 to 80."""
    generator = np.random.default_rng(SEED)

    def sentence(low: int, high: int) -> str:
        return " ".join(generator.choice(WORDS, size=generator.integers(low, high)).tolist())

    return [(sentence(2, 9), sentence(3, 81)) for _ in range(64)]


def record_scores(directory: Path, model: torch.nn.Module) -> None:
    """Write what transformers makes of some pairs, each alone, as its own documentation says."""
    import torch
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    takes_types = (
        model.config.type_vocab_size > 1 if hasattr(model.config, "type_vocab_size") else 0
    )
    logits = []
    for query, document in recorded_pairs():
        inputs = tokenizer(
            [query],  # lists: of two texts, an empty second one would be taken for none
            [document],
            truncation=True,
            max_length=USABLE_TOKENS,
            return_token_type_ids=bool(takes_types),
            return_tensors="pt",
        )
        with torch.no_grad():
            logits.append(round(float(model(**inputs).logits[0, 0]), 6))
    write_json(directory / "transformers.json", {**versions(), "logits": logits})


def versions() -> dict[str, Any]:
    """What made the scores, and the pairs that they are of."""
    import torch
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "pairs": recorded_pairs(),
    }


def recorded_pairs() -> list[tuple[str, str]]:
    """Plain pairs, other scripts, nothing, and more than the window holds."""
    return [
        *sample_pairs()[:12],
        ("", ""),
        ("bread", ""),
        ("", "bread rises in the oven"),
        ("Où est le café ?", "Straße, fluß & señor: 1,5 €…"),
        ("что такое вода", "水 とは 何 ですか 東京"),
        ("a  b\tc\nd", "  spaces   and\nlines  "),
        ("tokens [SEP] <s> </s> [MASK]", "🙂 emoji and שלום ماء"),
        ("which bread rises", " ".join(WORDS[:400])),
        (" ".join(WORDS[100:400]), "short"),
        (" ".join(WORDS[:300]), " ".join(WORDS[200:500])),
    ]


def exported(
    model: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    axes: Sequence[str] = ("batch_size",),
    output: str = "logits",
) -> ModelProto:
    """The model as ONNX: dynamic batch and sequence, one output, no traces of this machine."""
    import onnx
    import torch

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter is called old, but it alone writes opset 14 without more packages.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            kwargs={**{name: tensor[:2] for name, tensor in inputs.items()}, "return_dict": False},
            f=buffer,
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes={
                **{name: {0: "batch_size", 1: "sequence_length"} for name in inputs},
                output: dict(enumerate(axes)),
            },
            opset_version=OPSET,
            dynamo=False,
        )
    proto = onnx.load_model_from_string(buffer.getvalue())
    proto.ir_version = IR_VERSION
    proto.doc_string = ""
    del proto.metadata_props[:]
    graph = proto.graph
    graph.name = "tiny"
    graph.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.checker.check_model(proto, full_check=True)
    return proto


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` with sorted keys, as the hub's files are."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
