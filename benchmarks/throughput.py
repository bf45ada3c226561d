"""Pairs per second of the bundled rerankers and of models of the shape of known ones.

    python benchmarks/throughput.py [--only NAME] [--also FOLDER] [--out FILE]

Needs the dependency group ``architectures`` and an idle machine. A known model is stood for by one
of its architecture, depth and width with random weights, since no hub is asked. All have the
bundled tokenizer: a look-up in a larger vocabulary takes the same time. Documents are of mixed
lengths, 40 to 470 tokens a pair, mean 182. Each model takes turns with the bundled default one.
``--also`` measures the model in a folder, such as a bundled one of another commit. The figures are
recorded in ``results/throughput.json``, those of ``--only`` in FILE alone: put among what it has.
"""

import argparse
import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.arguments import destination, existing_path
from benchmarks.peers.machine import machine
from benchmarks.peers.workloads import Workload, read_words, write_requests
from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.hub.precision import RunPrecision
from qdrant_rerank.hub.specs import BUNDLED_DIRECTORY, DEFAULT_RERANKER
from qdrant_rerank.inference.cpu import available_cores

RESULTS = Path(__file__).parent / "results" / "throughput.json"
BUNDLED = (DEFAULT_RERANKER, "grown-e5-small-cross-v1", "grown-e5-small-l6-v1")
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Shape:
    """An architecture of transformers and the numbers that make its cost."""

    architecture: str
    layers: int
    width: int
    heads: int
    documents: int = 100


SHAPES = {
    "ms-marco-TinyBERT-L-2-v2": Shape("bert", 2, 128, 2),
    "ms-marco-MiniLM-L-6-v2": Shape("bert", 6, 384, 12),
    "ms-marco-MiniLM-L-12-v2": Shape("bert", 12, 384, 12, 50),
    "jina-reranker-v2-base-multilingual": Shape("xlm-roberta", 12, 768, 12, 25),
    "mxbai-rerank-base-v1": Shape("deberta-v2", 12, 768, 12, 25),
    "mxbai-rerank-large-v1": Shape("deberta-v2", 24, 1024, 16, 10),
    "bge-reranker-v2-m3": Shape("xlm-roberta", 24, 1024, 16, 10),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One model in one precision; pairs per second, and the same divided by the default model's."""

    model: str
    precision: str
    pairs_per_second: float
    of_default: float


def write_shape(shape: Shape, folder: Path) -> None:
    """Write a folder that ``TextCrossEncoder`` loads, with random weights in fp32."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    source = BUNDLED_DIRECTORY / DEFAULT_RERANKER
    # The bundled template reads the two texts apart; its vocabulary alone is taken.
    content = json.loads((source / "tokenizer.json").read_text())
    content["post_processor"] = template(content)
    settings: dict[str, Any] = {
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "max_position_embeddings": 514,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_labels": 1,
        "pad_token_id": 0,
        "vocab_size": len(content["model"]["vocab"]),
    }
    if shape.architecture == "deberta-v2":
        settings |= {
            "max_relative_positions": -1,
            "norm_rel_ebd": "layer_norm",
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "position_buckets": 256,
            "relative_attention": True,
            "share_att_key": True,
            "type_vocab_size": 0,
        }
    torch.manual_seed(0)
    config = AutoConfig.for_model(shape.architecture, **settings)
    model = AutoModelForSequenceClassification.from_config(
        config, attn_implementation="eager"
    ).eval()
    (folder / "onnx").mkdir(parents=True)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    config.save_pretrained(folder)
    names = ["input_ids", "attention_mask"]
    ids = torch.arange(1000, 1016).unsqueeze(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids), "return_dict": False},
            f=str(folder / "onnx" / "model.onnx"),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in names}
            | {"logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


def template(content: dict[str, Any]) -> dict[str, Any]:
    """[CLS] query [SEP] document [SEP], as a tokenizer's file has it."""
    ids = content["model"]["vocab"]

    def special(token: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": kind}}

    def text(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    first = [special("[CLS]", 0), text("A", 0), special("[SEP]", 0)]
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [*first, text("B", 1), special("[SEP]", 1)],
        "special_tokens": {
            token: {"id": token, "ids": [ids[token]], "tokens": [token]}
            for token in ("[CLS]", "[SEP]")
        },
    }


def measure(
    name: str, folder: str, documents: int, precisions: list[RunPrecision]
) -> Iterator[Measured]:
    """Take turns with the default model, each on as many documents."""
    words = read_words(BUNDLED_DIRECTORY / DEFAULT_RERANKER / "tokenizer.json")
    default = TextCrossEncoder(DEFAULT_RERANKER, engine="onnxruntime")
    for precision in precisions:
        encoder = TextCrossEncoder(folder, precision=precision, engine="onnxruntime")
        seconds: dict[str, list[float]] = {"default": [], "this": []}
        for round_ in range(ROUNDS + 1):
            query, texts = request(words, documents, round_)
            for kind, model in (("default", default), ("this", encoder)):
                start = time.perf_counter()
                model.rerank(query, texts)
                seconds[kind].append(time.perf_counter() - start)
        ratios = [a / b for a, b in zip(seconds["default"][1:], seconds["this"][1:], strict=True)]
        yield Measured(
            model=name,
            precision=encoder.precision,
            pairs_per_second=round(documents / median(seconds["this"][1:]), 1),
            of_default=round(median(ratios), 3),
        )


def request(words: list[str], documents: int, seed: int) -> tuple[str, list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "request.json"
        write_requests(Workload("mixed", documents), words, seed, file)
        [(query, texts)] = json.loads(file.read_text())["requests"]
    return query, texts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="models whose name matches this expression")
    parser.add_argument(
        "--also", type=existing_path, action="append", default=[], help="may be repeated"
    )
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    given = parser.parse_args()
    out = destination(given.out, RESULTS, part=given.only)
    found: list[Measured] = []
    if out is not None and out.exists():
        recorded = json.loads(out.read_text())["models"]
        found = [Measured(**row) for row in recorded if not re.search(given.only, row["model"])]
    chosen = [name for name in (*BUNDLED, *SHAPES) if re.search(given.only, name)]
    for name in (*chosen, *map(str, given.also)):
        if name not in SHAPES:
            rows = list(measure(name, name, 100, ["auto"]))
        else:
            with tempfile.TemporaryDirectory() as folder:
                write_shape(SHAPES[name], Path(folder) / name)
                rows = list(
                    measure(name, f"{folder}/{name}", SHAPES[name].documents, ["fp32", "int8"])
                )
        found += rows
        for row in rows:
            print(
                f"{row.model:36}{row.precision:6}{row.pairs_per_second:8.1f}{row.of_default:8.2f}",
                flush=True,
            )
        if out is not None:
            about = machine(available_cores())
            content = {"machine": about, "models": [asdict(row) for row in found]}
            out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
