"""What is read beside the drawn passages: long passages, and other parts of an answer's document.

Candidates of a search are often parts of one document, of which one answers. So a query has, where
its set allows, negatives of the answer's own document: the sentences around the one that answers
(SelQA), or the passage without the sentence that shares most with the question.
"""

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus import Corpus, Made
from data import Query, evaluation_shingles, load_pool, records, share, shingles, words
from rules import Sources, answering_part, echo, sentences
from tokenizers import Tokenizer

SENTENCES = "selqa_sentence"  # its negatives are sentences of the answer's own section
LEAST_REST = 12  # words that a passage without its answer has left
LEAST_HEAD, MOST_HEAD = 5, 30  # words of a first sentence
AROUND = 9  # questions before and after, whose sentences are taken for the same text's
MOST_SENTENCES = 9  # of a section, beside the one that answers


@dataclass(frozen=True, slots=True)
class Pools:
    """Further queries and texts; rows of texts follow all others'.

    Attributes:
        queries: further ones.
        made: of these queries.
        texts: further passages.
        same: for the corpus's queries, then for the further ones, rows of the same document that
            do not answer.
    """

    queries: list[Query]
    made: list[Made]
    texts: list[str]
    same: list[list[int]]


def make_pools(
    data: Path, corpus: Corpus, first: int, tokenizer: Tokenizer, config: dict[str, Any]
) -> Pools:
    """Draw them; ``first`` is the row of the first further text."""
    settings, rng = config["pools"], random.Random(config["seed"])
    texts: list[str] = []
    rows: dict[str, int] = {}

    def row_of(text: str) -> int:
        if text not in rows:
            rows[text] = first + len(texts)
            texts.append(text)
        return rows[text]

    same: list[list[int]] = []
    for query in corpus.queries:
        found: list[int] = list(query.rivals)
        if query.source in settings["without_answer"] and rng.random() < settings["share"]:
            rest = without_answer(query.text, corpus.passages[query.answers[0]])
            if rest:
                found.append(row_of(rest))
        same.append(found)
    queries = _sentence_queries(data, row_of, same, config)
    queries += _long_queries(data, corpus, row_of, same, tokenizer, config, rng)
    sources = Sources(corpus.passages, {}, {})
    by_set = {q.source: [o.text for o in queries if o.source == q.source] for q in queries}
    made = []
    for query in queries:
        one = Made()
        if query.source not in config["rules"]["no_echo"] and rng.random() < settings["echoed"]:
            near = rng.sample(by_set[query.source], min(4, len(by_set[query.source])))
            near = [text for text in near if text != query.text]
            text, one.echo_kind = echo(query.text, near, sources, rng)
            one.echoes.append(row_of(text))
        made.append(one)
    print(len(queries), "further queries", Counter(q.source for q in queries), len(texts), "texts")
    return Pools(queries, made, texts, same)


def without_answer(query: str, passage: str) -> str:
    """The passage without the sentence that shares most with the query; empty if little is left."""
    title, _, body = passage.rpartition("\n")
    part = answering_part(query, passage, 0)
    rest = " ".join(sentence for sentence in sentences(body) if sentence != part)
    if len(rest.split()) < LEAST_REST:
        return ""
    return f"{title}\n{rest}" if title else rest


def heads(queries: list[Query], text_of: Any, sources: list[str], first: int) -> list[str]:
    """First sentences of the answers of topical sets, as a catalogue of titles would have them.

    Each becomes a further answer; so that short and long passages are weighed against each other,
    negatives are drawn from both.
    """
    rows: dict[str, int] = {}
    for query in queries:
        if query.source not in sources:
            continue
        for row in list(query.answers):
            parts = sentences(text_of(row))
            if len(parts) > 1 and LEAST_HEAD <= len(parts[0].split()) <= MOST_HEAD:
                query.answers.append(rows.setdefault(parts[0], first + len(rows)))
    return list(rows)


def _sentence_queries(
    data: Path, row_of: Any, same: list[list[int]], config: dict[str, Any]
) -> list[Query]:
    """SelQA's questions with the sentence that answers, and others of its section."""
    merged: dict[str, Query] = {}
    others: dict[str, list[int]] = {}
    for record in records(data / "train" / f"{SENTENCES}.jsonl.gz"):
        key = " ".join(words(record["query"]))
        titled = share("titled " + key) < config["data"]["title_share"]
        title = f"{record['title']}\n" if titled else ""
        query = merged.setdefault(key, Query(record["query"], SENTENCES))
        query.held_out = share("held out " + query.text) < config["pools"]["held_out"]
        query.answers.append(row_of(title + record["positive"]))
        found = others.setdefault(key, [])
        found += [row_of(title + text) for text in record["negatives"][:MOST_SENTENCES]]
    for key, query in merged.items():
        same.append([row for row in dict.fromkeys(others[key]) if row not in query.answers])
    return list(merged.values())


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Questions with the sentence that answers, and other sentences of its paragraph.

    Attributes:
        queries: texts.
        texts: of sentences.
        answers: row of each query's sentence.
        others: rows of sentences near it, of the same text.
    """

    queries: list[str]
    texts: list[str]
    answers: list[int]
    others: list[list[int]]


def neighbours(data: Path, config: dict[str, Any]) -> Neighbours:
    """SQuAD's, whose questions stand in the order of their paragraphs."""
    settings = config["data"]
    seen = evaluation_shingles(data, settings["overlap_words"])
    rows: dict[str, int] = {}
    listed: dict[str, int] = {}
    for record in records(data / "train" / "squad_sentences_nqg.jsonl.gz"):
        if seen.isdisjoint(shingles(record["positive"], settings["overlap_words"])):
            row = rows.setdefault(record["positive"], len(rows))
            listed.setdefault(record["query"], row)
    answers = list(listed.values())
    others = []
    for at, answer in enumerate(answers):
        near = answers[max(0, at - AROUND) : at + AROUND + 1]
        others.append([row for row in dict.fromkeys(near) if row != answer])
    return Neighbours(list(listed), list(rows), answers, others)


def _long_queries(
    data: Path,
    corpus: Corpus,
    row_of: Any,
    same: list[list[int]],
    tokenizer: Tokenizer,
    config: dict[str, Any],
    rng: random.Random,
) -> list[Query]:
    """Queries of passages that are too long for the corpus; a long one is cut."""
    pool = load_pool(data, config["data"])
    known = {" ".join(words(query.text)) for query in corpus.queries}
    wanted = config["pools"]["long"]
    fresh = [q for q in pool.queries if q.source in wanted and " ".join(words(q.text)) not in known]
    fresh.sort(key=lambda query: share("long " + query.text))
    drawn: Counter[str] = Counter()
    found = []
    for query in fresh:
        if drawn[query.source] >= wanted[query.source]:
            continue
        drawn[query.source] += 1
        chosen = Query(query.text, query.source, held_out=query.held_out)
        chosen.answers = [row_of(pool.passages[row]) for row in query.answers[:3]]
        rivals = query.rivals if len(query.rivals) < 3 else rng.sample(query.rivals, 2)
        rivals = [row for row in rivals if len(pool.passages[row].split()) >= LEAST_REST]
        others = [row_of(pool.passages[row]) for row in rivals]
        if query.source in config["pools"]["without_answer"]:
            rest = without_answer(query.text, pool.passages[query.answers[0]])
            others += [row_of(rest)] if rest else []
        same.append(others)
        found.append(chosen)
    return found
