"""The made passages of a corpus, and which rows of passages belong to which query."""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import Corpus, Made
from data import Query, load_pool, share, shingles
from encoders import Encoder
from mine import NONE, bm25_best, filtered, fused, nearest
from minimal import Minimal, minimal_pairs
from numpy.typing import NDArray
from pools import SENTENCES, heads, make_pools
from rules import (
    STOP,
    Sources,
    answering_part,
    change,
    diluted,
    echo,
    flipped,
    names_by_set,
    names_in,
    relations,
    removed,
    words,
)
from rules import _stem as stem
from states import States
from tokenizers import Tokenizer

NEAR = 8  # questions that are near a question
NO_FLIP = ("removed", "untyped")  # changes that no other question is answered by
LONGEST_PART = 32  # words of a sentence from which the answer is removed
MOST_NAMED = 20  # passages that a name of the templates occurs in
SIBLINGS = (4, 16)  # places of the words that are used like a word, among its nearest
RELATIONS, FLIPS, MINIMAL = "relations", "flips", "minimal"  # names of their sets
PAIRED = (RELATIONS, FLIPS, MINIMAL)  # sets whose answer always stands beside its change


@dataclass(slots=True)
class Plan:
    """All that groups are drawn from.

    Attributes:
        queries: those of the corpus, then the relations.
        texts: of the made passages, whose rows follow those of the corpus.
        made: one a query.
        dense: near by the trunk, filtered: (queries, keep), rows or NONE.
        lexical: near by BM25, filtered: (queries, keep).
        candidates: unfiltered and fused, for validation: (queries, depth).
        same: rows of the answer's own document that do not answer, one list a query.
    """

    queries: list[Query]
    texts: list[str]
    made: list[Made]
    dense: NDArray[np.int32]
    lexical: NDArray[np.int32]
    candidates: NDArray[np.int32]
    same: list[list[int]]


def siblings_of(
    encoder: Encoder, tokenizer: Tokenizer, vocabulary: set[str]
) -> dict[str, list[str]]:
    """For words of the vocabulary those with like vectors, without other forms of the same."""
    table = torch.nn.functional.normalize(encoder.words.weight.float(), dim=1)
    known = {
        word: number
        for word, number in tokenizer.get_vocab().items()
        if word.isalpha() and word.isascii() and len(word) >= 4
    }
    names = sorted(known)
    rows = table[[known[name] for name in names]]
    asked = sorted(vocabulary & set(names))
    similar = rows[[names.index(word) for word in asked]] @ rows.T
    found: dict[str, list[str]] = {}
    for word, near in zip(asked, similar.topk(SIBLINGS[1], dim=1).indices.tolist(), strict=True):
        listed = [names[row] for row in near[SIBLINGS[0] - 1 :]]
        fits = [
            w for w in listed if w[:4] != word[:4] and w[-4:] != word[-4:] and stem(w) != stem(word)
        ]
        if len(fits) >= 2:
            found[word] = fits
    return found


def make_plan(
    data: Path,
    corpus: Corpus,
    queries: States,
    passages: States,
    tokenizer: Tokenizer,
    encoder: Encoder,
    config: dict[str, Any],
) -> tuple[Plan, int]:
    """Mine negatives, make passages and draw the pools.

    Returns:
        The plan, without negatives of the pools' queries, and the place of the first of these.
    """
    vocabulary = {w for query in corpus.queries for w in words(query.text) if w not in STOP}
    siblings = siblings_of(encoder, tokenizer, vocabulary)
    rng = random.Random(config["seed"])
    settings = config["rules"]
    made, texts = _made(corpus, queries.vectors, siblings, settings, rng)
    dense, lexical, candidates = _mined(corpus, queries, passages, config["mining"])
    print(f"{len(texts):,} passages made, negatives mined", flush=True)
    pool = load_pool(data, config["data"])
    extra: list[Query] = []
    first = len(corpus.passages)
    sources = Sources(corpus.passages, {}, {})
    for relation in relations(pool.passages, random.Random(config["seed"]), settings["relations"]):
        pair = Minimal(relation.query, relation.answer, relation.reverse, RELATIONS)
        asked = relation.query if rng.random() < 0.5 else relation.query + "?"
        extra.append(Query(relation.query, RELATIONS, held_out=_held_out(pair, config)))
        made.append(_paired(pair, RELATIONS, texts, first))
        made[-1].echoes.append(first + len(texts))
        texts.append(echo(asked, [], sources, rng)[0])
    origins = list(range(len(corpus.queries))) + [NONE] * len(extra)
    for row, query in enumerate(corpus.queries):
        kind, part, changed = made[row].kind, made[row].part, made[row].changed
        if part == NONE or kind in NO_FLIP:
            continue
        text = flipped(query.text, texts[part - first], texts[changed - first], kind)
        if text is not None:
            extra.append(Query(text, FLIPS, held_out=query.held_out))
            made.append(Made([], changed, part, kind=f"flip {kind}"))
            origins.append(row)
    none = np.full((1, 1), NONE, dtype=np.int32)
    dense, lexical = (
        np.where(np.array(origins)[:, None] == NONE, none, rows[origins])
        for rows in (dense, lexical)
    )
    pools = make_pools(data, corpus, first + len(texts), tokenizer, config)
    texts += pools.texts
    same = pools.same[: len(corpus.queries)] + [[] for _ in extra]
    begin = len(corpus.queries) + len(extra)
    extra += pools.queries
    made += pools.made
    same += pools.same[len(corpus.queries) :]

    def text_of(row: int) -> str:
        return corpus.passages[row] if row < first else texts[row - first]

    texts += heads(pools.queries, text_of, config["pools"]["headed"], first + len(texts))
    _templates(corpus, extra, made, same, texts, config, rng)
    for query, one in zip(corpus.queries + extra, made, strict=True):
        often = rng.random() < config["pools"]["diluted"]
        if (
            one.diluted == NONE
            and query.answers
            and query.source not in settings["no_change"]
            and often
        ):
            one.diluted = first + len(texts)
            texts.append(diluted(query.text, text_of(query.answers[0]), sources, rng)[0])
    found = Plan(corpus.queries + extra, texts, made, dense, lexical, candidates, same)
    return found, begin


def _held_out(pair: Minimal, config: dict[str, Any]) -> bool:
    return share("held out " + pair.better) < config["data"]["held_out"]


def _paired(pair: Minimal, kind: str, texts: list[str], first: int) -> Made:
    """Add both passages of a pair to the texts."""
    row = first + len(texts)
    texts += [pair.better, pair.worse]
    return Made([], row, row + 1, kind=kind)


def _templates(
    corpus: Corpus,
    queries: list[Query],
    made: list[Made],
    same: list[list[int]],
    texts: list[str],
    config: dict[str, Any],
    rng: random.Random,
) -> None:
    """Add the pairs from templates; passages of another pair of the kind are its negatives."""
    first, sources = len(corpus.passages), Sources(corpus.passages, {}, {})
    counts = Counter(name for text in corpus.passages for name in set(names_in(text)))
    names = [
        name
        for name, count in counts.items()
        if count <= MOST_NAMED and name.isascii() and 4 <= len(name) <= 22
    ]
    pairs = minimal_pairs(names, config["pools"]["minimal"], rng)
    by_kind: dict[str, list[Made]] = defaultdict(list)
    for pair in pairs:
        queries.append(Query(pair.query, MINIMAL, held_out=_held_out(pair, config)))
        made.append(_paired(pair, f"minimal {pair.kind}", texts, first))
        by_kind[pair.kind].append(made[-1])
        if rng.random() < config["pools"]["echoed"]:
            near = [rng.choice(pairs).query for _ in range(3)]
            made[-1].echoes.append(first + len(texts))
            texts.append(echo(pair.query, near, sources, rng)[0])
    for pair in pairs:
        others = rng.sample(by_kind[pair.kind], 3)
        same.append([rng.choice((other.part, other.changed)) for other in others])


def add_mined(
    plan: Plan,
    begin: int,
    asked: NDArray[np.float32],
    read: NDArray[np.float32],
    passages: list[str],
    settings: dict[str, Any],
) -> None:
    """Negatives and candidates of the pools' queries, from the corpus and the pools' passages.

    Args:
        plan: gets them.
        begin: place of the first of these queries.
        asked: vectors of the queries from there on.
        read: vectors of all passages.
        passages: of the corpus.
        settings: ``[mining]`` of the configuration.
    """
    first, depth, keep = len(passages), settings["depth"], settings["keep"]
    queries = plan.queries[begin:]
    topical = [row for row, q in enumerate(queries) if q.source not in (SENTENCES, MINIMAL)]
    more = {r for row in topical for r in (*queries[row].answers, *plan.same[begin + row])}
    rows = np.array([*range(first), *sorted(row for row in more if row >= first)])
    texts = [passages[row] if row < first else plan.texts[row - first] for row in rows]
    dense = rows[nearest(torch.from_numpy(asked), torch.from_numpy(read[rows]), depth)]
    lexical = bm25_best([query.text for query in queries], texts, depth)
    lexical = np.where(lexical == NONE, NONE, rows[lexical])
    runs = {
        int(row): shingles(text, settings["shared_words"])
        for row, text in zip(rows, texts, strict=True)
    }
    vectors = torch.from_numpy(asked).bfloat16(), torch.from_numpy(read).bfloat16()
    kept = np.full((2, len(queries), keep), NONE, dtype=np.int32)
    candidates = np.full((len(queries), depth), NONE, dtype=np.int32)
    for row, query in enumerate(queries):
        if query.source == MINIMAL:
            continue
        for answer in query.answers:
            if answer not in runs:
                text = passages[answer] if answer < first else plan.texts[answer - first]
                runs[answer] = shingles(text, settings["shared_words"])
        for place, listed in enumerate((dense, lexical)):
            found = [int(at) for at in listed[row]]
            fits = filtered(query, row, found, runs, *vectors, settings)
            kept[place, row, : len(fits)] = fits
        both = fused(list(dense[row]), list(lexical[row]))[:depth]
        candidates[row, : len(both)] = both
    between = np.full((begin - len(plan.candidates), depth), NONE, dtype=np.int32)
    plan.dense = np.concatenate([plan.dense, kept[0]])
    plan.lexical = np.concatenate([plan.lexical, kept[1]])
    plan.candidates = np.concatenate([plan.candidates, between, candidates])


def _made(
    corpus: Corpus,
    vectors: NDArray[np.float32],
    siblings: dict[str, list[str]],
    settings: dict[str, Any],
    rng: random.Random,
) -> tuple[list[Made], list[str]]:
    answers = [(q.source, corpus.passages[q.answers[0]]) for q in corpus.queries]
    sources = Sources(corpus.passages, names_by_set(answers), siblings)
    near = near_questions(corpus.queries, vectors[: len(corpus.queries)])
    texts: list[str] = []
    first = len(corpus.passages)

    def row_of(text: str) -> int:
        texts.append(text)
        return first + len(texts) - 1

    all_made = []
    for query, listed in zip(corpus.queries, near, strict=True):
        made = Made()
        answer = corpus.passages[rng.choice(query.answers)]
        if rng.random() < settings["echoed"] and query.source not in settings["no_echo"]:
            text, made.echo_kind = echo(query.text, listed, sources, rng)
            made.echoes.append(row_of(text))
        if rng.random() < settings["changed"] and query.source not in settings["no_change"]:
            found = change(query.text, answer, sources, query.source, rng)
            if found is not None:
                made.part, made.changed = row_of(found[0]), row_of(found[1])
                made.kind = found[2]
        if made.part == NONE and rng.random() < settings["removed"]:
            part = answering_part(query.text, answer, 0)
            less = removed(query.text, part, sources, query.source, rng)
            if less is not None and len(part.split()) <= LONGEST_PART:
                made.part, made.changed, made.kind = row_of(part), row_of(less), "removed"
        if rng.random() < settings["diluted"]:
            made.diluted = row_of(diluted(query.text, answer, sources, rng)[0])
        all_made.append(made)
    return all_made, texts


def near_questions(queries: list[Query], vectors: NDArray[np.float32]) -> list[list[str]]:
    """For each query others of its set, near by cosine, with other answers."""
    found: list[list[str]] = [[] for _ in queries]
    by_set: dict[str, list[int]] = {}
    for row, query in enumerate(queries):
        by_set.setdefault(query.source, []).append(row)
    for rows in by_set.values():
        own = torch.from_numpy(vectors[rows])
        depth = min(len(rows), 4 * NEAR)
        for start in range(0, len(rows), 1024):
            near = (own[start : start + 1024] @ own.T).topk(depth, dim=1).indices.tolist()
            for row, listed in zip(rows[start : start + 1024], near, strict=True):
                answers = set(queries[row].answers)
                others = [queries[rows[at]] for at in listed if rows[at] != row]
                fits = [other.text for other in others if answers.isdisjoint(other.answers)]
                found[row] = fits[:NEAR]
    return found


def _mined(
    corpus: Corpus,
    queries: States,
    passages: States,
    settings: dict[str, Any],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    depth, keep = settings["depth"], settings["keep"]
    count = len(corpus.queries)
    asked = torch.from_numpy(queries.vectors[:count])
    read = torch.from_numpy(np.ascontiguousarray(passages.vectors))
    dense = nearest(asked, read, depth)
    lexical = bm25_best([query.text for query in corpus.queries], corpus.passages, depth)
    runs = [shingles(text, settings["shared_words"]) for text in corpus.passages]
    vectors = asked.to(torch.bfloat16), read.to(torch.bfloat16)
    rows = []
    for listed in (dense, lexical):
        kept = np.full((count, keep), NONE, dtype=np.int32)
        for row, query in enumerate(corpus.queries):
            fits = filtered(query, row, list(listed[row]), runs, *vectors, settings)
            kept[row, : len(fits)] = fits
        rows.append(kept)
    candidates = np.full((count, depth), NONE, dtype=np.int32)
    for row in range(count):
        both = fused(list(dense[row]), list(lexical[row]))[:depth]
        candidates[row, : len(both)] = both
    return rows[0], rows[1], candidates
