"""Baselines, corrections and pools: what a gain is measured against, and how sure it is."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime import InferenceSession
from qdrant_client import QdrantClient
from tokenizers import Tokenizer

from qdrant_rerank import (
    DEFAULT_RERANKER,
    Bm25Encoder,
    HybridSearcher,
    TextCrossEncoder,
    evaluate,
)
from qdrant_rerank.cli.main import main
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.evaluation import Document, evaluate_run
from qdrant_rerank.evaluation.baselines import Bm25Baseline, bi_encoder_inside
from qdrant_rerank.evaluation.compare import with_reranker
from qdrant_rerank.evaluation.metrics import holm
from qdrant_rerank.evaluation.sets import EvaluatedSets
from qdrant_rerank.evaluation.trec import is_ranked
from qdrant_rerank.hub.locate import find_spec, locate
from qdrant_rerank.hub.onnx_files import external_files
from qdrant_rerank.inference.conversion.split import split

TEXTS = {
    "iron": "Iron melts at 1538 degrees Celsius.",
    "pans": "Cast iron pans must be hot before the oil goes in.",
    "bread": "Bread is baked in a hot oven.",
    "copper": "Copper melts at 1085 degrees Celsius.",
}
CORPUS = {name: Document(name, "", text) for name, text in TEXTS.items()}
QUERIES = {"q1": "How hot must it be for iron to melt?", "q2": "What is baked?"}
QRELS = {"q1": {"iron": 1}, "q2": {"bread": 1}}
BUNDLED = (DEFAULT_RERANKER, "grown-e5-small-cross-v1", "grown-e5-small-l6-v1")
WIDTH = 384  # of the last states
RUN = {"q1": {"pans": 3.0, "copper": 2.0, "iron": 1.0}, "q2": {"pans": 2.0, "bread": 1.0}}


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holms_correction_keeps_the_order_and_only_raises(p_values):
    """The smallest is multiplied by the number of tests; one test is left as it is."""
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)
    if p_values:
        smallest = min(p_values)
        assert corrected[p_values.index(smallest)] == min(1, smallest * len(p_values))


def test_holms_correction_of_a_known_example():
    """By hand: 0.005 x 4, 0.01 x 3, 0.03 x 2, and not below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_bm25_of_a_pool_is_what_qdrant_computes():
    """The same scores as a collection of those documents gives."""
    client = QdrantClient(":memory:")
    searcher = HybridSearcher("docs", client=client, embedder=None, reranker=None)
    searcher.add(list(TEXTS.values()), progress=False)
    baseline = Bm25Baseline(TEXTS.values())
    for query in ("hot iron", "iron iron melts at degrees", "nothing of it"):
        found = {hit.payload["text"]: hit.score for hit in searcher.search(query)}
        scores = dict(zip(TEXTS.values(), baseline.rerank(query, TEXTS.values()), strict=True))
        assert {t: s for t, s in scores.items() if s} == pytest.approx(found, rel=1e-5)
    client.close()
    assert Bm25Baseline(["Häuser"], "german").rerank("Haus", ["Häuser", "Hof"])[0] > 0
    [weight] = Bm25Encoder().embed_documents(["x"])[0].values
    assert Bm25Baseline([]).rerank("x", ["x"]) == [pytest.approx(math.log(2) * weight)]


def ids_of_both(name, query, text):
    """The token ids of either text, in its part of the pair."""
    tokenizer = Tokenizer.from_file(str(find_spec(name).directory / "tokenizer.json"))
    pair = tokenizer.encode(query, text)
    ids, types = np.array([pair.ids]), np.array(pair.type_ids)
    return ids[:, types == 0], ids[:, types == 1]


def cosine_of_means(session, query, text):
    """What the bi-encoder would give: each text's states are averaged."""
    means = []
    for kind, ids in enumerate((query, text)):
        types = np.full_like(ids, kind)
        inputs = (
            ("input_ids", ids),
            ("attention_mask", np.ones_like(ids)),
            ("token_type_ids", types),
        )
        [states] = session.run(None, dict(inputs))
        means.append(states[0, :, -WIDTH:].mean(axis=0))
    return float(means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1]))


@pytest.mark.parametrize("name", BUNDLED)
def test_the_bi_encoder_inside_is_a_cosine(name, tiny_bert, tmp_path):
    """Of the means of the states that its trunk gives each text alone; other models have none."""
    reranker = TextCrossEncoder(name)
    query = "How hot must it be for iron to melt?"
    texts = [*TEXTS.values(), query]
    before = reranker.rerank(query, texts)
    inside = bi_encoder_inside(reranker)
    scores = np.array(inside.rerank(query, texts))
    assert reranker.rerank(query, texts) == before
    graph = locate(name).model
    with split(graph, external_files(graph), tmp_path) as (trunk, _):
        session = InferenceSession(str(trunk))
    cosines = [cosine_of_means(session, *ids_of_both(name, query, text)) for text in texts]
    assert scores == pytest.approx(np.array(cosines), abs=0.01)
    assert max(scores) == scores[-1]
    if name == DEFAULT_RERANKER:
        assert scores[0] > scores[2]
    assert bi_encoder_inside(TextCrossEncoder(tiny_bert)) is None
    assert bi_encoder_inside(None) is None


def test_a_run_is_measured_with_its_baselines(bundled):
    """On the same candidates, each under a name; the JSON has the corrected p-values."""
    options = {"reranker": {"ours": bundled}, "progress": False}
    found = evaluate_run(RUN, CORPUS, QUERIES, QRELS, baseline=True, **options)
    assert [c.name for c in found.configurations] == ["ours", "BM25", "bi-encoder in ours"]
    assert len({c.pairs for c in found.configurations}) == 1
    told = found.to_dict()
    assert told["ranked"] is True
    assert told["arguments"]["baseline"] is True
    assert set(told["differences"]) == {"BM25", "bi-encoder in ours"}
    for measured in told["configurations"].values():
        assert measured["measures"]["RR"]["p"] <= measured["measures"]["RR"]["p_holm"] <= 1
    family = found.corrected("RR")
    assert len(family) == 5
    assert told["differences"]["BM25"]["RR"]["p_holm"] == family["BM25", "ours"]
    plain = evaluate_run(RUN, CORPUS, QUERIES, QRELS, **options)
    assert [c.name for c in plain.configurations] == ["ours"]


def test_searchers_are_measured_with_their_baselines(client, bundled):
    """BM25 is that of the collection, without dense vectors and without a reranker."""
    searcher = HybridSearcher("docs", client=client, reranker=bundled, candidates=4)
    searcher.add([{"_id": i, "text": t} for i, t in TEXTS.items()], progress=False)
    found = evaluate({"BM25": searcher}, QUERIES, QRELS, baseline=True, progress=False)
    names = [c.name for c in found.configurations]
    assert names == ["BM25", "BM25 (baseline)", "bi-encoder in BM25"]
    lexical = HybridSearcher("docs", client=client, embedder=None, reranker=None)
    hits = [hit.payload["_id"] for hit in lexical.search(QUERIES["q1"])]
    assert list(found["BM25 (baseline)"].after["q1"]) == hits
    assert found["bi-encoder in BM25"].before == found["BM25"].before


def test_a_bi_encoder_that_two_rerankers_hold_is_measured_once(client):
    """Both models with the layers of e5-small-v2 do; with other candidates it is another."""
    both = {"one": DEFAULT_RERANKER, "two": "grown-e5-small-cross-v1"}
    found = evaluate_run(RUN, CORPUS, QUERIES, QRELS, reranker=both, baseline=True, progress=False)
    assert [c.name for c in found.configurations] == ["one", "two", "BM25", "bi-encoder in one"]
    both["two"] = "grown-e5-small-l6-v1"
    found = evaluate_run(RUN, CORPUS, QUERIES, QRELS, reranker=both, baseline=True, progress=False)
    assert [c.name for c in found.configurations][3:] == ["bi-encoder in one", "bi-encoder in two"]
    both["two"] = "grown-e5-small-cross-v1"
    first = HybridSearcher("docs", client=client, reranker=both["one"], candidates=4)
    first.add([{"_id": i, "text": t} for i, t in TEXTS.items()], progress=False)
    searchers = {"one": first, "two": with_reranker(first, both["two"])}
    searchers["fewer"] = HybridSearcher("docs", client=client, reranker=both["one"], candidates=3)
    found = evaluate(searchers, QUERIES, QRELS, baseline=True, progress=False)
    inside = [c.name for c in found.configurations if c.name.startswith("bi-encoder")]
    assert inside == ["bi-encoder in one", "bi-encoder in fewer"]


def test_a_pool_is_not_called_a_first_stage(tmp_path):
    """A file with neither ranks nor scores; its order is what it is."""
    pool = tmp_path / "pool.tsv"
    pool.write_text("query-id\tcorpus-id\nq1\tpans\nq1\tiron\nq2\tbread\n")
    ranked = tmp_path / "ranked.tsv"
    ranked.write_text("query-id\tcorpus-id\trank\nq1\tpans\t1\nq1\tiron\t2\nq2\tbread\t1\n")
    trec = tmp_path / "trec.run"
    trec.write_text("q1 Q0 pans 1 2.0 tag\n")
    assert [is_ranked(path) for path in (pool, ranked, trec)] == [False, True, True]
    beir = write_set(tmp_path / "beir")
    for path, title, note in ((pool, "Order of the pool's file", True), (ranked, "First", False)):
        done = CliRunner().invoke(
            main,
            ["eval", "--corpus", str(beir), "--run", str(path), "--reranker", "none"],
            env={"COLUMNS": "80"},
            catch_exceptions=False,
        )
        assert done.exit_code == 0, done.output
        shown = " ".join(done.output.split())
        assert title in shown
        assert ("a pool without ranks or scores" in shown) is note
        assert max(map(len, done.output.splitlines())) <= 80


def write_set(folder):
    """A BEIR folder."""
    folder.mkdir(parents=True)
    lines = [json.dumps({"_id": i, "title": "", "text": t}) for i, t in TEXTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    lines = [json.dumps({"_id": i, "text": t}) for i, t in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")
    rows = [f"{q}\t{d}\t{grade}" for q, judged in QRELS.items() for d, grade in judged.items()]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
    return folder


def test_several_sets_are_compared_and_corrected_for_their_number(tmp_path):
    """One --corpus each; the files of one set cannot go with several."""
    sets = [write_set(tmp_path / name) for name in ("one", "two")]
    given = [part for folder in sets for part in ("--corpus", str(folder))]
    options = ("--reranker", "none", "--reranker", "grown-e5-small-l6-v1", "--measure", "RR")
    run = CliRunner().invoke
    done = run(main, ["eval", *given, *options, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert list(told["sets"]) == ["one", "two"]
    across = told["across_sets"]["grown-e5-small-l6-v1"]["RR"]
    p_values = [across[name]["p"] for name in ("one", "two")]
    assert [across[name]["p_holm"] for name in ("one", "two")] == holm(p_values)
    shown = run(main, ["eval", *given, *options], env={"COLUMNS": "80"}, catch_exceptions=False)
    assert "corrected for 2 sets" in shown.output
    for wrong, seen in (
        (("--queries", "x"), "--queries is of one set"),
        (("--run", "x"), "--run is of one set"),
        (("--corpus", str(sets[0])), "is given twice"),
    ):
        refused = run(main, ["eval", *given, *wrong])
        assert refused.exit_code == 2
        assert seen in refused.stderr
    refused = run(main, ["tune", *given])
    assert (refused.exit_code, "--corpus is given 2 times" in refused.stderr) == (2, True)


def test_sets_must_have_the_same_configurations(bundled):
    """Otherwise there is nothing to compare."""
    options = {"progress": False, "measures": ["RR"]}
    one = evaluate_run(RUN, CORPUS, QUERIES, QRELS, reranker={"a": None}, **options)
    two = evaluate_run(RUN, CORPUS, QUERIES, QRELS, reranker={"b": None}, **options)
    with pytest.raises(InvalidInputError, match="the same configurations and metrics"):
        EvaluatedSets({"one": one, "two": two})
    with pytest.raises(InvalidInputError, match="There is no set"):
        EvaluatedSets({})


def test_the_language_of_a_pool_is_that_of_its_bm25():
    """Words are stemmed in it."""
    german = Bm25Baseline(["Die Häuser", "Der Hof"], language="german")
    assert repr(german).endswith(f"{Bm25Encoder(avg_len=1.0, language='german')!r})")
