"""Teach a cross-encoder what BM25 knows: exact matches, inside its own graph.

    python training/lexical_match.py SOURCE_MODEL DATA_DIR WORK_DIR OUT_MODEL

SOURCE_MODEL may be the bundled model: the branch that it has is taken off first.

A bi-encoder's score, and what is grown from it, blurs names and rare words; the first stage's
lexical half is then lost in reranking. Here the ONNX graph gets a second branch that compares
the token ids of the query with those of the document and adds

    residual = linear(features) + MLP(features),   features = (logit, term match, coverage,
    bigram match, log document length)

to the logit. Terms are token ids brought to one id a Snowball stem, weighted by IDF over the
training passages; term match is the saturated frequency of BM25 (k1 1.2, b 0.75). The other
weights stay as they are, so a few thousand groups suffice: for queries sampled evenly from the
training sets, the passage that answers and 11 others of the first stage's best 50 (BM25 and
the static embedder, fused), so that training sees what a reranker sees. Cross-entropy in the
group. Needs the dependency group ``training``; 10 minutes on two CPU cores; seeded.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from py_rust_stemmers import SnowballStemmer
from static_embedder import opening, records
from tokenizers import Tokenizer

from qdrant_rerank import Bm25Encoder, StaticEmbedder, TextCrossEncoder
from qdrant_rerank.tokenization import PairTokenizer

SEED = 11
QUERIES_PER_SET = 160
DEPTH = 50  # of the first stage that negatives come from
NEGATIVES = 11
HELD_OUT = 0.2  # share of the groups
TOKENS = 320  # read of a pair while scoring the training groups
K1, B, AVERAGE_LENGTH = 1.2, 0.75, 128.0
HIDDEN = 8
STEPS = 1500
FEATURES = ("logit", "match", "coverage", "bigrams", "length")
Group = tuple[str, list[str]]


def main() -> None:
    """Mine groups, score them, fit the residual, write the graph."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("source", "data", "work", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    stored = given.work / "lexical_features.npz"
    source = without_branch(given.source, given.work / "deep")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    classes = stem_classes(tokenizer)
    passages, sampled = sample(given.data)
    weights = inverse_frequency(tokenizer, classes, passages)
    if not stored.is_file():
        groups = mine(passages, sampled)
        features = group_features(source, groups, classes, weights)
        np.savez(stored, features=features)
    features = np.load(stored)["features"]
    print(f"{len(features):,} groups of {features.shape[1]}")
    parameters = fit(torch.from_numpy(features))
    write(source, given.out, classes, weights, parameters)
    check(source, given.out, classes, weights, parameters)


def without_branch(source: Path, target: Path) -> Path:
    """A copy of the model without the branch that an earlier run added, if one did."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    model = onnx.load(source / "onnx" / "model.onnx")
    graph = model.graph
    if any("deep_logits" in node.output for node in graph.node):
        kept = [node for node in graph.node if not set(node.output) & {"logits"}]
        kept = [node for node in kept if not node.output[0].startswith("lex_")]
        for node in kept:
            node.output[:] = ["logits" if name == "deep_logits" else name for name in node.output]
        constants = [item for item in graph.initializer if not item.name.startswith("lex_")]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(kept)
        graph.initializer.extend(constants)
        onnx.save(model, target / "onnx" / "model.onnx")
    return target


def stem_classes(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """For each token id the id that stands for its stem: shape (vocabulary,)."""
    stem = SnowballStemmer("english").stem_word
    first: dict[str, int] = {}
    classes = np.arange(tokenizer.get_vocab_size(), dtype=np.int64)
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if token.isalpha() and token.isascii():
            classes[number] = first.setdefault(stem(token), number)
    return classes


def sample(data: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """All passages, and (query, index of its passage) sampled evenly from the sets."""
    rng = np.random.default_rng(SEED)
    held = {
        opening(document["text"])
        for path in sorted(data.glob("eval/*/corpus.jsonl.gz"))
        if path.parent.name != "scifact"
        for document in records(path)
    }
    index: dict[str, int] = {}
    sampled: list[tuple[str, int]] = []
    for path in sorted(data.glob("train/*.jsonl.gz")):
        pairs = []
        for record in records(path):
            if opening(record["positive"]) in held:
                continue
            passage = f"{record.get('title') or ''}\n{record['positive']}".strip()
            pairs.append((record["query"], index.setdefault(passage, len(index))))
        chosen = rng.permutation(len(pairs))[:QUERIES_PER_SET]
        sampled.extend(pairs[i] for i in chosen)
    return list(index), sampled


def inverse_frequency(
    tokenizer: Tokenizer, classes: NDArray[np.int64], passages: list[str]
) -> NDArray[np.float32]:
    """IDF of each token id's class over the passages, 0 for special tokens: (vocabulary,)."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    counts = np.zeros(len(classes))
    for start in range(0, len(passages), 4096):
        window = passages[start : start + 4096]
        for encoding in tokenizer.encode_batch_fast(window, add_special_tokens=False):
            counts[np.unique(classes[encoding.ids])] += 1
    idf = np.log1p((len(passages) - counts + 0.5) / (counts + 0.5))[classes]
    for token in ("[PAD]", "[CLS]", "[SEP]", "[MASK]"):
        idf[tokenizer.token_to_id(token)] = 0.0
    return idf.astype(np.float32)


def mine(passages: list[str], sampled: list[tuple[str, int]]) -> list[Group]:
    """(query, documents) with the right one first, the others of the first stage's best."""
    rng = np.random.default_rng(SEED)
    encoder, embedder = Bm25Encoder(), StaticEmbedder.bundled()
    rows: dict[int, list[int]] = {}
    values: dict[int, list[float]] = {}
    for row, vector in enumerate(encoder.embed_documents(passages)):
        for term, value in zip(vector.indices, vector.values, strict=True):
            rows.setdefault(term, []).append(row)
            values.setdefault(term, []).append(value)
    postings = {t: (np.array(r), np.array(values[t])) for t, r in rows.items()}
    dense = embedder.embed_documents(passages)
    groups: list[Group] = []
    for query, positive in sampled:
        sparse = np.zeros(len(passages))
        for term in encoder.embed_query(query).indices:
            if term in postings:
                found, weight = postings[term]
                idf = np.log1p((len(passages) - len(found) + 0.5) / (len(found) + 0.5))
                sparse[found] += idf * weight
        fused: dict[int, float] = {}
        for scores in (sparse, dense @ embedder.embed_query(query)):
            best = np.argpartition(-scores, 100)[:100]
            for rank, row in enumerate(best[np.argsort(-scores[best])]):
                fused[int(row)] = fused.get(int(row), 0.0) + 1 / (2 + rank)
        ranked = sorted(fused, key=lambda row: -fused[row])
        if positive not in ranked:
            continue
        others = [row for row in ranked[:DEPTH] if row != positive]
        chosen = rng.permutation(others)[:NEGATIVES]
        groups.append((query, [passages[row] for row in (positive, *chosen)]))
    print(f"{len(groups):,} of {len(sampled):,} queries have their passage among the candidates")
    return groups


def group_features(
    source: Path, groups: list[Group], classes: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Shape (groups, 1 + NEGATIVES, features)."""
    encoder = TextCrossEncoder(source, max_length=TOKENS)
    tokenize = PairTokenizer.from_directory(source, max_length=TOKENS)
    made = []
    for number, (query, documents) in enumerate(groups):
        pairs = [(query, document) for document in documents]
        logits = encoder.score_pairs(pairs).scores
        made.append(
            [
                pair_features(float(logit), pair.ids, pair.type_ids, classes, weights)
                for logit, pair in zip(logits, tokenize(pairs), strict=True)
            ]
        )
        if number % 200 == 0:
            print(f"  {number:,} of {len(groups):,}", flush=True)
    return np.array(made, dtype=np.float32)


def pair_features(
    logit: float,
    ids: NDArray[np.int64],
    types: NDArray[np.int64],
    classes: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> list[float]:
    """What the graph computes, in numpy: the features of one pair."""
    query, document = classes[ids[types == 0]], classes[ids[types == 1]]
    weight = weights[ids[types == 0]]
    equal = query[:, None] == document[None, :]
    frequency = equal.sum(axis=1)
    norm = K1 * (1 - B + B * len(document) / AVERAGE_LENGTH)
    pairs = (equal[:-1, :-1] & equal[1:, 1:]).any(axis=1)
    both = np.minimum(weight[:-1], weight[1:])
    total = weight.sum() + 1e-6
    return [
        logit,
        float((weight * frequency / (frequency + norm)).sum() / total),
        float((weight * (frequency > 0)).sum() / total),
        float((both * pairs).sum() / (both.sum() + 1e-6)),
        float(np.log(len(document) / AVERAGE_LENGTH)),
    ]


def fit(features: torch.Tensor) -> dict[str, NDArray[np.float32]]:
    """Weights of the residual: linear (F,), scale and shift (F,), MLP (F, H), (H,), (H,)."""
    torch.manual_seed(SEED)
    features = features[torch.randperm(len(features))]
    held = int(len(features) * HELD_OUT)
    train, test = features[held:], features[:held]
    shift, scale = train.mean((0, 1)), train.std((0, 1))
    linear = torch.zeros(len(FEATURES), requires_grad=True)
    inner = (0.3 * torch.randn(len(FEATURES), HIDDEN)).requires_grad_()
    bias = torch.zeros(HIDDEN, requires_grad=True)
    outer = torch.zeros(HIDDEN, requires_grad=True)

    def score(x: torch.Tensor) -> torch.Tensor:
        z = (x - shift) / scale
        return x[..., 0] + z @ linear + torch.tanh(z @ inner + bias) @ outer

    def report(name: str) -> None:
        with torch.no_grad():
            for label, x in (("logit alone", test[..., 0]), ("with residual", score(test))):
                rank = (x >= x[:, :1]).sum(1).float()
                print(f"{name}, {label}: held-out MRR {(1 / rank).mean():.4f}")

    report("start")
    optimizer = torch.optim.AdamW([linear, inner, bias, outer], lr=0.02, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    target = torch.zeros(len(train), dtype=torch.long)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(score(train), target).backward()
        optimizer.step()
        schedule.step()
    report("end")
    print("linear", dict(zip(FEATURES, (linear / scale).tolist(), strict=True)))
    return {
        "shift": shift.numpy(),
        "scale": scale.numpy(),
        "linear": linear.detach().numpy()[:, None],
        "inner": inner.detach().numpy(),
        "bias": bias.detach().numpy(),
        "outer": outer.detach().numpy()[:, None],
    }


def write(
    source: Path,
    out: Path,
    classes: NDArray[np.int64],
    weights: NDArray[np.float32],
    parameters: dict[str, NDArray[np.float32]],
) -> None:
    """Copy the model and add the branch to its graph."""
    if out.resolve() != source.resolve():
        shutil.copytree(source, out, dirs_exist_ok=True)
    model = onnx.load(source / "onnx" / "model.onnx")
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["deep_logits" if name == "logits" else name for name in node.output]
    constants = {
        "lex_classes": classes,
        "lex_weights": weights,
        "lex_one": np.array(1, dtype=np.int64),
        "lex_axis_0": np.array([0], dtype=np.int64),
        "lex_axis_1": np.array([1], dtype=np.int64),
        "lex_axis_2": np.array([2], dtype=np.int64),
        "lex_end": np.array([-1], dtype=np.int64),
        "lex_last": np.array([2**31 - 1], dtype=np.int64),
        "lex_tiny": np.array(1e-6, dtype=np.float32),
        "lex_unit": np.array(1.0, dtype=np.float32),
        "lex_base": np.array(K1 * (1 - B), dtype=np.float32),
        "lex_slope": np.array(K1 * B / AVERAGE_LENGTH, dtype=np.float32),
        "lex_average": np.array(AVERAGE_LENGTH, dtype=np.float32),
        **{f"lex_{name}": value.astype(np.float32) for name, value in parameters.items()},
    }
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())

    def add(kind: str, inputs: str, output: str, **attributes: int) -> None:
        names = [name if name in ARGUMENTS else f"lex_{name}" for name in inputs.split()]
        target = output if output == "logits" else f"lex_{output}"
        graph.node.append(helper.make_node(kind, names, [target], **attributes))

    add("Gather", "classes input_ids", "class")
    add("Gather", "weights input_ids", "weight")
    add("Mul", "attention_mask token_type_ids", "document_mask")
    add("Sub", "one token_type_ids", "first")
    add("Mul", "attention_mask first", "query_mask")
    add("Cast", "document_mask", "in_document", to=onnx.TensorProto.FLOAT)
    add("Cast", "query_mask", "in_query", to=onnx.TensorProto.FLOAT)
    add("Mul", "weight in_query", "query_weight")
    add("Unsqueeze", "class axis_2", "class_column")
    add("Unsqueeze", "class axis_1", "class_row")
    add("Equal", "class_column class_row", "same")
    add("Cast", "same", "same_float", to=onnx.TensorProto.FLOAT)
    add("Unsqueeze", "in_document axis_1", "document_row")
    add("Mul", "same_float document_row", "equal")
    add("ReduceSum", "equal axis_2", "frequency", keepdims=0)
    add("ReduceSum", "in_document axis_1", "length", keepdims=1)
    add("Mul", "length slope", "sloped")
    add("Add", "sloped base", "norm")
    add("Add", "frequency norm", "denominator")
    add("Div", "frequency denominator", "saturated")
    add("Min", "frequency unit", "present")
    add("ReduceSum", "query_weight axis_1", "weight_sum", keepdims=1)
    add("Add", "weight_sum tiny", "total")
    for name, part in (("match", "saturated"), ("coverage", "present")):
        add("Mul", f"query_weight {part}", f"{name}_terms")
        add("ReduceSum", f"{name}_terms axis_1", f"{name}_sum", keepdims=1)
        add("Div", f"{name}_sum total", name)
    add("Slice", "equal axis_0 end axis_1", "equal_rows")
    add("Slice", "equal_rows axis_0 end axis_2", "equal_first")
    add("Slice", "equal axis_1 last axis_1", "equal_tail")
    add("Slice", "equal_tail axis_1 last axis_2", "equal_second")
    add("Mul", "equal_first equal_second", "equal_pairs")
    add("ReduceSum", "equal_pairs axis_2", "pair_count", keepdims=0)
    add("Min", "pair_count unit", "pair_present")
    add("Slice", "query_weight axis_0 end axis_1", "weight_first")
    add("Slice", "query_weight axis_1 last axis_1", "weight_second")
    add("Min", "weight_first weight_second", "both")
    add("Mul", "both pair_present", "pair_terms")
    add("ReduceSum", "pair_terms axis_1", "pair_sum", keepdims=1)
    add("ReduceSum", "both axis_1", "both_sum", keepdims=1)
    add("Add", "both_sum tiny", "both_total")
    add("Div", "pair_sum both_total", "bigrams")
    add("Div", "length average", "relative")
    add("Log", "relative", "log_length")
    add("Concat", "deep_logits match coverage bigrams log_length", "features", axis=1)
    add("Sub", "features shift", "centred")
    add("Div", "centred scale", "scaled")
    add("MatMul", "scaled linear", "straight")
    add("MatMul", "scaled inner", "projected")
    add("Add", "projected bias", "biased")
    add("Tanh", "biased", "hidden")
    add("MatMul", "hidden outer", "bent")
    add("Add", "straight bent", "residual")
    add("Add", "deep_logits residual", "logits")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, out / "onnx" / "model.onnx")
    print(f"wrote {out}")


ARGUMENTS = {"input_ids", "attention_mask", "token_type_ids", "deep_logits"}


def check(
    source: Path,
    out: Path,
    classes: NDArray[np.int64],
    weights: NDArray[np.float32],
    parameters: dict[str, NDArray[np.float32]],
) -> None:
    """The graph computes what was trained."""
    pairs = [
        ("How do I delete a folder?", "Delete the named folder, which must be empty."),
        ("a", "b"),
        ("iron melts", "Iron melts at 1538 C. " * 40),
    ]
    tokenize = PairTokenizer.from_directory(source)
    expected = []
    logits = TextCrossEncoder(source).score_pairs(pairs).scores
    for logit, pair in zip(logits, tokenize(pairs), strict=True):
        x = np.array(pair_features(float(logit), pair.ids, pair.type_ids, classes, weights))
        z = (x - parameters["shift"]) / parameters["scale"]
        bent = np.tanh(z @ parameters["inner"] + parameters["bias"]) @ parameters["outer"]
        expected.append(x[0] + (z @ parameters["linear"] + bent).item())
    seen = TextCrossEncoder(out).score_pairs(pairs).scores
    print(f"graph against numpy: largest difference {np.abs(seen - expected).max():.2e}")


if __name__ == "__main__":
    main()
