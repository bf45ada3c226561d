"""Put the head of an exported cross-encoder on another trunk of the same kind.

    python training/transplant.py EXPORTED_DIR E5_DIR TRUNK_DIR DATA_DIR OUT_DIR [--refit]

The head is read from the ONNX file as it lies there, its matrices in seven bits, since no
checkpoint of it need be left; what the token ids say is read from it, too. E5_DIR is the trunk that
it was trained on, TRUNK_DIR what ``student.py`` wrote. With ``--refit``, what the head makes of the
scalars is fitted to the whole model's logits, on questions of the training sets with passages that
BM25 finds and with echoes of the question. DATA_DIR gives these, and the pairs that show the
outliers of activations.
"""

import argparse
import copy
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from arguments import existing_path
from corpus import as_query, token_ids
from data import Pool, load_pool
from e5_pipeline import CONFIG, read_config
from encoders import Encoder, Kind, load_encoder
from export import export, move_weights, smooth, template_agrees, write_companions
from exported import lexical_of, load_head
from mine import NONE, bm25_best
from reader import Branches, CrossEncoder, Lexical, Trunk, texts_of
from states import padded
from tokenizers import Tokenizer
from torch import Tensor

BATCHES, ROWS = 12, 16  # of pairs that show the outliers
MOST, MOST_QUERY = 200, 64  # tokens of a pair, and of its query
QUERIES, NEAR, PADDING = 500, 8, 40  # questions, passages and words of an echo's padding
BOILERPLATE = (
    "Click here to read more.",
    "Log in or register to continue.",
    "Share this page.",
    "Ask a new question.",
)
ECHOES = 3  # of a question, at the end of its group
EPOCHS, FIT_RATE, SQUARES = 30, 3e-3, 0.02


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs, (pairs, tokens), int64."""

    ids: Tensor
    mask: Tensor
    types: Tensor


class Scores(CrossEncoder):
    """Without the trunk's vector: a taught trunk is offered as no embedder."""

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (N, 1)."""
        return super().forward(ids, mask, types)[0]


def main() -> None:
    """Read the head, write the model in float32 and in int8."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("exported", "e5", "trunk", "data"):
        parser.add_argument(name, type=existing_path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--refit", action="store_true")
    parser.add_argument("--queries", type=int, default=QUERIES, help="to fit on")
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = read_config([CONFIG], [])
    stored = onnx.load(given.exported / "onnx" / "model.onnx")
    tokenizer = Tokenizer.from_file(str(given.trunk / "tokenizer.json"))
    lexical, lower = lexical_of(stored, tokenizer), config["model"]["lower"]
    kind = Kind(given.trunk, "query: ", "passage: ")
    pool = load_pool(given.data, config["data"])
    whole, halved = (load_encoder(folder) for folder in (given.e5, given.trunk))
    # They were not trained but rounded; as they were, they can be stored once for both trunks.
    for part in ("words", "positions", "types", "norm"):
        getattr(halved, part).load_state_dict(getattr(whole, part).state_dict())
    branches = Branches(whole, config["model"])
    load_head(branches, stored)
    if given.refit:
        groups = groups_of(pool, given.queries, config["seed"])
        batches = [batch_of(group, tokenizer, kind) for group in groups]
        trunk = Trunk(whole.to(torch.bfloat16), lexical, lower)
        wanted = [logits_of(branches, z).detach() for z in read(trunk, branches, batches)]
        trunk = Trunk(copy.deepcopy(halved).to(torch.bfloat16), lexical, lower)
        refit(branches, read(trunk, branches, batches), wanted)
    drawn = random.Random(config["seed"]).sample(pool.queries, BATCHES * ROWS)
    pairs = [(query.text, pool.passages[query.answers[0]]) for query in drawn]
    seen = [
        batch_of(pairs[start : start + ROWS], tokenizer, kind)
        for start in range(0, len(pairs), ROWS)
    ]
    write(halved, branches, lexical, kind, seen, given.out)


def groups_of(pool: Pool, count: int, seed: int) -> list[list[tuple[str, str]]]:
    """Of so many questions, pairs: an answer first, passages that BM25 finds, echoes last."""
    rng = random.Random(seed)
    drawn = rng.sample(pool.queries, count)
    found = bm25_best([query.text for query in drawn], pool.passages, NEAR)
    groups = []
    for query, near in zip(drawn, found.tolist(), strict=True):
        rows = dict.fromkeys([query.answers[0], *(row for row in near if row != NONE)])
        others = rng.choice(pool.passages).split()[:PADDING]
        texts = [pool.passages[row] for row in rows]
        texts += [query.text, f"{query.text} {' '.join(others)}"]
        texts.append(f"{query.text} {rng.choice(BOILERPLATE)}")
        groups.append([(query.text, text) for text in texts])
    return groups


@torch.no_grad()
def read(trunk: Trunk, branches: Branches, batches: list[Batch]) -> list[Tensor]:
    """Scalars of each batch, (pairs, scalars)."""
    found = []
    for batch in batches:
        _, top = trunk(batch.ids, batch.mask, batch.types)
        front = torch.arange((batch.mask * (1 - batch.types)).sum(1).amax())
        texts = texts_of(batch.mask, batch.types)
        features, new = trunk.lexical(batch.ids, *texts, front)
        found.append(branches.scalars(top, features, new, batch.mask, batch.types, front))
    return found


def refit(branches: Branches, scalars: list[Tensor], wanted: list[Tensor]) -> None:
    """Fit what is made of the scalars; print how far it is on every fifth question, kept out.

    The cosine's place in the logit stays; the linear function and the small network are fitted.
    """
    parts = (branches.scalars_in, branches.scalars_out)
    fitted = [branches.linear, *(p for part in parts for p in part.parameters())]
    optimizer = torch.optim.Adam(fitted, FIT_RATE)
    rows = range(len(scalars))
    for epoch in range(EPOCHS + 1):
        if epoch in (0, EPOCHS):
            print(epoch, apart(branches, scalars, wanted, [row for row in rows if row % 5 == 0]))
        if epoch == EPOCHS:
            break
        for group in optimizer.param_groups:
            group["lr"] = FIT_RATE * (1 - epoch / EPOCHS)
        order = random.Random(epoch).sample(rows, len(rows))
        order = [row for row in order if row % 5]
        for start in range(0, len(order), ROWS):
            optimizer.zero_grad()
            own = order[start : start + ROWS]
            losses = [missed(branches, scalars[row], wanted[row]) for row in own]
            torch.stack(losses).mean().backward()
            optimizer.step()


def logits_of(branches: Branches, z: Tensor) -> Tensor:
    """Logits of pairs from their scalars."""
    return branches.prior(z) + branches.corrected(z)


def missed(branches: Branches, z: Tensor, wanted: Tensor) -> Tensor:
    """How far the logits of a question are from those wanted, and their distribution."""
    logits = logits_of(branches, z)
    own, right = torch.log_softmax(logits, 0), torch.log_softmax(wanted, 0)
    return (right.exp() * (right - own)).sum() + SQUARES * (logits - wanted).square().mean()


@torch.inference_mode()
def apart(
    branches: Branches, scalars: list[Tensor], wanted: list[Tensor], rows: list[int]
) -> dict[str, float]:
    """Loss, reciprocal ranks of the answers, and shares of echoes that are first."""
    ranks: dict[str, list[float]] = {"ours": [], "wanted": []}
    echoes: dict[str, list[bool]] = {"ours": [], "wanted": []}
    losses = [missed(branches, scalars[row], wanted[row]).item() for row in rows]
    for row in rows:
        z = scalars[row]
        both = {"ours": logits_of(branches, z), "wanted": wanted[row]}
        for name, logits in both.items():
            ordinary = logits[:-ECHOES]
            ranks[name].append(1 / (1 + (ordinary[1:] >= ordinary[0]).sum().item()))
            echoes[name].append(bool(logits[-ECHOES:].amax() > ordinary.amax()))
    found = {"loss": float(np.mean(losses))}
    found |= {f"rank, {name}": float(np.mean(values)) for name, values in ranks.items()}
    found |= {f"echo, {name}": float(np.mean(values)) for name, values in echoes.items()}
    return found


def write(
    encoder: Encoder, branches: Branches, lexical: Lexical, kind: Kind, seen: list[Batch], out: Path
) -> None:
    """The model in int8 and in float32."""
    config = read_config([CONFIG], [])
    trunk = Trunk(encoder, lexical, config["model"]["lower"])
    model = Scores(trunk, branches, read=False).float().eval()
    export(copy.deepcopy(model), out / "fp32" / "model.onnx", int8=False)
    with torch.inference_mode():
        smooth(model, seen, config["export"]["smoothing"])
    target = out / "int8" / "onnx" / "model.onnx"
    export(model, target, int8=True)
    move_weights(target, target.with_name("weights.bin"))
    for folder in (out / "fp32", out / "int8"):
        write_companions(folder, kind, len(encoder.layers))
        assert template_agrees(folder, kind)
    print(f"wrote {out}")


def batch_of(pairs: list[tuple[str, str]], tokenizer: Tokenizer, kind: Kind) -> Batch:
    """Pairs of query and passage as the model reads them."""
    asked = token_ids(tokenizer, [as_query(kind, query) for query, _ in pairs], MOST_QUERY)
    read = token_ids(tokenizer, [kind.passage + text for _, text in pairs], MOST - MOST_QUERY)
    rows = [np.concatenate(both) for both in zip(asked, read, strict=True)]
    width = max(len(row) for row in rows)
    ids, mask = padded(rows, width)
    lengths = torch.tensor([len(ids) for ids in asked]).unsqueeze(1)
    types = (torch.arange(width).unsqueeze(0) >= lengths).long() * mask
    return Batch(ids, mask, types)


if __name__ == "__main__":
    main()
