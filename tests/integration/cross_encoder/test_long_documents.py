"""Long documents: passages against truncation, snippets, and the trace."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client.models import ScoredPoint

from qdrant_rerank import (
    DEFAULT_RERANKER,
    Calibrator,
    HybridSearcher,
    TextCrossEncoder,
    Windows,
    rerank_points,
)
from qdrant_rerank.errors import InvalidInputError
from tests.conftest import MODELS
from tests.models.build import WORDS

QUERY = "At what temperature does iron melt?"
FILLER = (
    "The old harbour has a stone wall, three cranes and a row of wooden sheds painted green. "
    "On market days the fishermen sell mussels — naïve tourists pay 5 € a kilo 🙂. "
)
ANSWER = "Iron melts at a temperature of 1538 degrees Celsius."
HIDDEN = FILLER * 25 + ANSWER + " " + FILLER * 4
DECOYS = ["The harbour wall was built of iron and stone.", "Bread is baked at 230 degrees."]
TEXTS = st.lists(
    st.lists(st.sampled_from(WORDS), max_size=260).map(" ".join), min_size=1, max_size=5
)


@pytest.fixture(scope="module")
def windowed():
    """The bundled model, reading long documents in passages."""
    return TextCrossEncoder(DEFAULT_RERANKER, long_documents="windows")


@pytest.fixture(scope="module", params=["tiny-bert", "tiny-xlmr", "tiny-qwen3"])
def tiny(request):
    """A tiny model, reading long documents in passages."""
    return TextCrossEncoder(MODELS / request.param, long_documents=Windows(overlap=8))


def points(*texts, field="text"):
    """Hits in this order."""
    return [
        ScoredPoint(id=i, version=0, score=1 - i / 10, payload={field: text})
        for i, text in enumerate(texts)
    ]


def test_passages_find_an_answer_that_truncation_hides(bundled, windowed):
    """It lies beyond 512 tokens; the snippet shows it."""
    assert bundled.token_count([(QUERY, FILLER * 25)]) == 512
    cut = rerank_points(QUERY, points(HIDDEN, *DECOYS), reranker=bundled)
    read = rerank_points(QUERY, points(HIDDEN, *DECOYS), reranker=windowed)
    assert cut[0].id != 0
    assert read[0].id == 0
    assert ANSWER in read[0].snippet.text
    assert read[0].rerank_score > next(hit for hit in cut if hit.id == 0).rerank_score + 1
    assert (cut.trace.truncated, cut.trace.windows, cut[0].snippet) == (1, 3, None)
    assert read.trace.truncated == 0
    assert read.trace.windows > 3
    assert read.trace.tokens > cut.trace.tokens


def test_a_snippet_scored_alone_gives_its_documents_score(bundled, windowed):
    """A passage is a text like any other; a short document is its own snippet."""
    best, *rest = rerank_points(QUERY, points(HIDDEN, *DECOYS), reranker=windowed)
    assert bundled.rerank(QUERY, [best.snippet.text]) == [best.rerank_score]
    for hit in rest:
        text = hit.payload["text"]
        assert (hit.snippet.text, hit.snippet.start, hit.snippet.end) == (text, 0, len(text))


@pytest.mark.parametrize(
    ("source", "payload", "field"),
    [
        ("body", {"body": HIDDEN}, "body"),
        ("a.b", {"a": {"b": HIDDEN}}, "a.b"),
        (["title", "body"], {"title": "Harbour guide", "body": HIDDEN}, "body"),
        (["body", "notes"], {"body": HIDDEN, "notes": FILLER * 3}, "body"),
        (["none", "body"], {"body": HIDDEN, "none": 3}, "body"),
        ("{title}: {body}", {"title": "Harbour", "body": HIDDEN}, None),
        (lambda payload: payload["body"].upper(), {"body": HIDDEN}, None),
    ],
)
def test_a_snippet_says_where_in_the_payload_it_is(windowed, source, payload, field):
    """Offsets count characters of the field; of a made-up text, of that text."""
    hit = ScoredPoint(id=1, version=0, score=1.0, payload=payload)
    [found] = rerank_points(QUERY, [hit], reranker=windowed, text=source)
    snippet = found.snippet
    assert snippet.field == field
    assert ANSWER.lower() in snippet.text.lower()
    assert len(snippet.text) == snippet.end - snippet.start
    if field is not None:
        text = payload["a"]["b"] if field == "a.b" else payload[field]
        assert text[snippet.start : snippet.end] == snippet.text
        assert snippet.start > 0
    json.dumps(rerank_points(QUERY, [hit], reranker=windowed, text=source).to_dicts())


def test_a_search_returns_snippets_and_counts_for_each_query(client, windowed, bundled):
    """In one pool, with as little payload as is asked for."""
    searcher = HybridSearcher("docs", client=client, reranker=windowed)
    searcher.add([HIDDEN, *DECOYS], progress=False)
    iron, bread = searcher.search_batch([QUERY, "How hot is an oven?"], with_payload=False)
    assert ANSWER in iron[0].snippet.text
    assert iron[0].payload is None
    assert bread[0].snippet.text == DECOYS[1]
    assert (iron.trace.truncated, iron.trace.pairs, iron.trace.activation) == (0, 3, "identity")
    assert iron.trace.windows > 3
    assert "<mark>" in iron._repr_html_()
    assert iron.to_dicts()[0]["snippet"]["field"] == "text"
    cut = HybridSearcher("docs", client=client, reranker=bundled).search(QUERY)
    assert (cut.trace.truncated, cut.trace.windows) == (1, 3)
    assert "snippet" not in cut.to_dicts()[0]
    plain = HybridSearcher("docs", client=client, reranker=None).search(QUERY)
    assert (plain.trace.truncated, plain.trace.activation) == (None, None)


@settings(max_examples=10, deadline=None)
@given(texts=TEXTS, data=st.data())
def test_companions_never_change_a_score_or_a_part(tiny, texts, data):
    """Alone, in any order, in batches of any size."""
    alone = [tiny.score_pairs([("bread", text)]) for text in texts]
    order = data.draw(st.permutations(range(len(texts))))
    size = data.draw(st.none() | st.integers(1, 5))
    together = tiny.score_pairs([("bread", texts[i]) for i in order], batch_size=size)
    assert together.scores == pytest.approx([alone[i].scores[0] for i in order], abs=2e-5)
    assert together.windows.tolist() == [alone[i].windows[0] for i in order]
    for i, span in zip(order, together.spans, strict=True):
        if span != alone[i].spans[0]:  # two parts of one score, to the last bits
            ours = tiny.rerank("bread", [texts[i][slice(*s)] for s in (span, alone[i].spans[0])])
            assert ours[0] == pytest.approx(ours[1], abs=2e-5)


@settings(max_examples=4, deadline=None)
@given(texts=TEXTS)
def test_int8_scores_of_passages_are_the_same_to_the_bit(windowed, texts):
    """Batches hold one passage."""
    texts = [text[:1200] for text in texts]
    alone = [windowed.rerank("bread", [text])[0] for text in texts]
    assert windowed.rerank("bread", texts) == alone


def test_every_way_of_calling_reads_in_passages(tiny):
    """Eager, lazy, counted, in another process."""
    texts = ["bread " * 500, "short", ""]
    scores = tiny.rerank("rises", texts)
    pairs = [("rises", text) for text in texts]
    assert list(tiny.rerank_pairs(iter(pairs), parallel=2)) == pytest.approx(scores, abs=2e-5)
    assert tiny.token_count(pairs) == tiny.score_pairs(pairs).tokens > 500
    assert pickle.loads(pickle.dumps(tiny)).rerank("rises", texts) == pytest.approx(
        scores, abs=2e-5
    )
    empty = tiny.score_pairs([])
    assert (len(empty.scores), empty.spans) == (0, [])


def test_aggregates_of_the_passages(tiny_bert):
    """From the scores of the same passages."""
    document = " ".join(WORDS[:300])
    parts = TextCrossEncoder(tiny_bert, long_documents="windows", activation="sigmoid")
    spans = parts._model.reader()([("bread", document)]).spans
    scores = np.array(parts.rerank("bread", [document[start:end] for start, end in spans]))
    assert len(scores) > 2
    for windows, expected in (
        (Windows(), scores.max()),
        (Windows(aggregate="mean"), scores.mean()),
        (Windows(aggregate="first"), scores[0]),
        (Windows(aggregate="sum", best=2), np.sort(scores)[-2:].sum()),
    ):
        made = TextCrossEncoder(tiny_bert, long_documents=windows, activation="sigmoid")
        assert made.rerank("bread", [document]) == pytest.approx([expected], abs=1e-5)
    with pytest.raises(InvalidInputError, match="raw logits, which may be negative"):
        TextCrossEncoder(tiny_bert, long_documents=Windows(aggregate="sum"))
    with pytest.raises(InvalidInputError, match="at most"):
        TextCrossEncoder(tiny_bert, long_documents=Windows(overlap=60))


def test_a_threshold_means_something_with_a_calibration(client, bundled, tmp_path):
    """0.5 keeps documents that are more likely relevant than not; the trace names the curve."""
    judged = [
        (QUERY, ANSWER, 1),
        (QUERY, "The melting point of iron is 1538 °C, its boiling point 2862 °C.", 1),
        (QUERY, DECOYS[0], 0),
        (QUERY, DECOYS[1], 0),
        ("How is bread baked?", "Bread is baked in a hot oven for forty minutes.", 1),
        ("How is bread baked?", "Mussels are sold by the kilo.", 0),
        ("Who sells mussels?", "Fishermen sell mussels on market days.", 1),
        ("Who sells mussels?", ANSWER, 0),
    ]
    logits = bundled.score_pairs([(query, text) for query, text, _ in judged]).scores
    path = tmp_path / "calibration.json"
    Calibrator.fit(logits, [label for *_, label in judged]).save(path)
    reranker = TextCrossEncoder(DEFAULT_RERANKER, activation=Calibrator.load(path))
    searcher = HybridSearcher("docs", client=client, reranker=reranker)
    searcher.add([ANSWER, *DECOYS], progress=False)
    found = searcher.search(QUERY, score_threshold=0.5)
    assert [hit.payload["text"] for hit in found] == [ANSWER]
    assert 0.5 <= found[0].score <= 1
    assert found.trace.activation == "calibrated (platt)"
