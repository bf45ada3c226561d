"""tune and ``qdrant-rerank tune``: the sweep is what the searchers do, and its call is code."""

import json
from io import StringIO

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models
from rich.console import Console

from qdrant_rerank import DEFAULT_RERANKER, HybridSearcher, SearchOptions, evaluate
from qdrant_rerank.cli.main import main
from qdrant_rerank.errors import InvalidInputError, MissingTextError
from qdrant_rerank.evaluation import Point, Tuning, tune, with_reranker
from qdrant_rerank.evaluation.tuning_result import constructor_call, pareto_front
from tests.integration.evaluation.test_evaluate import DOCUMENTS

QUERIES = {
    "q1": "How hot must it be for iron to melt?",
    "q2": "Which river runs through many countries?",
    "q3": "how birds stay warm",
    "q4": "what to do with chocolate",
    "q5": "metal that carries current well",
    "q6": "nobody knows",
}
QRELS = {
    "q1": {"iron": 2, "furnace": 1, "ice": 0},
    "q2": {"danube": 1},
    "q3": {"penguin": 1},
    "q4": {"chocolate": 1},
    "q5": {"copper": 2, "iron": 1},
}
SWEEP = {"candidates": (2, 5), "blends": (0.0, 0.4, "rrf"), "progress": False}


@pytest.fixture(scope="module")
def searcher():
    """Eight documents whose payload has the ids of the qrels."""
    client = QdrantClient(location=":memory:")
    made = HybridSearcher("docs", client=client)
    made.add([{"_id": i, "text": t} for i, t in DOCUMENTS.items()], progress=False)
    yield made
    client.close()


@pytest.fixture(scope="module")
def found(searcher):
    """The sweep of everything over them."""
    return tune(searcher, QUERIES, QRELS, **SWEEP)


def test_it_sweeps_every_combination(found):
    """Depths x fusions x (no reranker, and the blends of one)."""
    assert len(found.points) == 2 * 2 * (1 + 3)
    assert found.queries == ("q1", "q2", "q3", "q4", "q5")
    assert found.unjudged == 1
    assert all(point.ms > 0 and point.values.shape == (5,) for point in found.points)
    assert (found.first_stage.reranker, found.first_stage.candidates) == (None, 5)


def test_halves_do_not_overlap(found):
    """Chosen on one, reported on the other, and both are what the values say."""
    assert sorted([*found.chosen_on, *found.reported_on]) == [0, 1, 2, 3, 4]
    for point in found.points:
        assert point.chosen_on == pytest.approx(point.values[found.chosen_on].mean())
        assert point.reported_on == pytest.approx(point.values[found.reported_on].mean())


def test_every_figure_is_that_of_the_searcher_that_its_call_makes(searcher, found):
    """The call is run as it stands; scores made once give the order of a search."""
    for point in found.points:
        names = {"client": searcher.client}
        exec(constructor_call(searcher, point), names)
        [measured] = evaluate(names["searcher"], QUERIES, QRELS, progress=False).configurations
        assert measured.candidates == point.candidates
        np.testing.assert_allclose(measured.values["after"]["nDCG@10"], point.values)
    assert found.call == constructor_call(searcher, found.best)
    assert any((a.values != b.values).any() for a in found.points for b in found.points)


def test_the_best_is_the_fronts_best(found):
    """By the half that is chosen on; the front rises with time."""
    front = found.front
    assert found.best is front[-1]
    assert found.best.chosen_on == max(point.chosen_on for point in found.points)
    assert [p.ms for p in front] == sorted(p.ms for p in front)


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=12),
)
def test_a_point_is_on_the_front_unless_another_is_as_fast_and_as_good(pairs):
    """And among those that are alike in both, one is."""
    points = [
        Point(None, "auto", 1, 0.0, "rrf", float(ms), np.zeros(1), quality / 5, 0.0)
        for ms, quality in pairs
    ]
    front = pareto_front(points)
    for point in points:
        beaten = any(
            o.ms <= point.ms
            and o.chosen_on >= point.chosen_on
            and (o.ms, o.chosen_on) != (point.ms, point.chosen_on)
            for o in points
        )
        listed = any((f.ms, f.chosen_on) == (point.ms, point.chosen_on) for f in front)
        assert listed is not beaten
    assert len({(f.ms, f.chosen_on) for f in front}) == len(front)


def test_each_pair_is_scored_once(searcher, tiny_bert):
    """Whatever the depth, the fusion and the blend: as many as there are different ones."""
    found = tune(searcher, QUERIES, QRELS, rerankers=[tiny_bert, DEFAULT_RERANKER], **SWEEP)
    assert len(found.points) == 2 * 2 * (1 + 2 * 3)
    plain = with_reranker(searcher, None)
    different = {
        (query, hit.id)
        for query in QRELS
        for fusion in ("rrf", "dbsf")
        for depth in SWEEP["candidates"]
        for hit in plain.search(
            QUERIES[query], depth, candidates=depth, options=SearchOptions(fusion=fusion)
        )
    }
    assert found.pairs == 2 * len(different)
    assert {p.reranker for p in found.points} == {None, str(tiny_bert), DEFAULT_RERANKER}


def test_a_slow_configuration_can_be_ruled_out(searcher, found):
    """By the milliseconds that a query may take."""
    limit = found.front[0].ms * 1.5 + 1
    quick = tune(searcher, QUERIES, QRELS, max_ms=limit, **SWEEP)
    assert quick.best.ms <= limit
    with pytest.raises(InvalidInputError, match="max_ms is 1e-06, and the fastest"):
        tune(searcher, QUERIES, QRELS, max_ms=1e-6, **SWEEP)


def test_nothing_is_fused_where_recall_is_dense_alone(searcher):
    """So nothing is swept."""
    dense = HybridSearcher("docs", client=searcher.client, sparse=None)
    assert (searcher.is_hybrid(), dense.is_hybrid()) == (True, False)
    found = tune(dense, QUERIES, QRELS, **SWEEP)
    assert {point.fusion for point in found.points} == {"rrf"}
    assert "sparse=None" in found.call


def test_a_query_that_is_a_document_is_not_its_own_hit(searcher):
    """As in BEIR; each order is then that of evaluate."""
    queries = {name: DOCUMENTS[name] for name in ("iron", "furnace", "copper", "chocolate")}
    qrels = {name: {"ice": 1} for name in queries}
    for ignored in (True, False):
        sweep = tune(searcher, queries, qrels, ignore_identical_ids=ignored, **SWEEP)
        assert sweep.arguments["ignore_identical_ids"] is ignored
        for point in (sweep.first_stage, sweep.best):
            names = {"client": searcher.client}
            exec(constructor_call(searcher, point), names)
            ours = evaluate(names["searcher"], queries, qrels, ignore_identical_ids=ignored)
            [measured] = ours.configurations
            np.testing.assert_allclose(measured.values["after"]["nDCG@10"], point.values)


def test_hits_without_text_are_treated_as_in_a_search(searcher):
    """Last, dropped, or an error."""

    def text(payload):
        return None if payload["_id"] in {"iron", "danube"} else payload["text"]

    for missing in ("last", "drop"):
        gaps = HybridSearcher(
            "docs",
            client=searcher.client,
            text=text,
            options=SearchOptions(on_missing_text=missing),
        )
        found = tune(gaps, QUERIES, QRELS, **SWEEP)
        names = {"client": searcher.client, "text": text}
        for point in found.points:
            if point.reranker is None and missing == "drop":
                continue  # nothing is read, so nothing is dropped
            exec(constructor_call(gaps, point), names)
            [measured] = evaluate(names["searcher"], QUERIES, QRELS).configurations
            np.testing.assert_allclose(measured.values["after"]["nDCG@10"], point.values)
    strict = HybridSearcher(
        "docs", client=searcher.client, text=text, options=SearchOptions(on_missing_text="raise")
    )
    with pytest.raises(MissingTextError, match="has no text"):
        tune(strict, QUERIES, QRELS, **SWEEP)


def test_the_call_says_all_that_differs_from_the_default(tmp_path, tiny_bert_embedder):
    """It is Python: what it makes has the same parts."""
    client = QdrantClient(path=str(tmp_path / "db"))
    params = models.SearchParams(hnsw_ef=64, exact=True)
    made = HybridSearcher(
        "docs",
        client=client,
        text=["title", "body"],
        options=SearchOptions(on_missing_text="drop", search_params=params, timeout_s=5),
    )
    client.close()
    point = Point(DEFAULT_RERANKER, "int8", 30, 0.25, "dbsf", 1.0, np.zeros(1), 0.0, 0.0)
    names = {}
    exec(constructor_call(made, point), names)
    again = names["searcher"]
    assert again.options == SearchOptions(
        on_missing_text="drop", search_params=params, timeout_s=5, fusion="dbsf", blend=0.25
    )
    assert (again.candidates, again.text.source) == (30, ["title", "body"])
    assert again.client.init_options["path"] == str(tmp_path / "db")
    again.client.close()

    other = HybridSearcher("docs", client=client, embedder=tiny_bert_embedder, sparse=None)
    call = constructor_call(other, Point(None, "auto", 5, 0.0, "rrf", 1, np.zeros(1), 0, 0))
    for seen in ("reranker=None", "sparse=None", f"embedder={other.embedder.name!r}"):
        assert seen in call
    assert "SearchOptions" not in call


def test_a_server_is_called_by_its_url_and_no_key_is_printed(tiny_bert):
    """The key comes from the environment."""
    client = QdrantClient(url="https://a.b:1", api_key="secret", check_compatibility=False)
    made = HybridSearcher("docs", client=client)
    point = Point(str(tiny_bert), "auto", 5, 0.0, "rrf", 1, np.zeros(1), 0, 0)
    call = constructor_call(made, point)
    assert """QdrantClient(url='https://a.b:1', api_key=os.environ["QDRANT_API_KEY"])""" in call
    assert call.startswith("import os\n")
    assert "secret" not in call
    assert repr(str(tiny_bert)) in call


def test_a_password_in_the_url_of_a_server_is_not_printed(tiny_bert):
    """And neither is a key among its parameters; the rest of the URL is."""
    client = QdrantClient(url="https://me:pAss@a.b:1", check_compatibility=False)
    made = HybridSearcher("docs", client=client)
    point = Point(str(tiny_bert), "auto", 5, 0.0, "rrf", 1, np.zeros(1), 0, 0)
    call = constructor_call(made, point)
    assert "QdrantClient(url='https://***@a.b:1')" in call
    assert "pAss" not in call


def test_tables_and_files(found, tmp_path):
    """80 columns; JSON as documented; a picture; HTML with the call in it, escaped."""
    console = Console(width=80, file=StringIO())
    console.print(found)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "Chosen on 2 queries" in " ".join(text.split())
    assert "1 without judgments" in " ".join(text.split())
    assert found.call in text
    files = found.save(tmp_path)
    content = json.loads((tmp_path / "tuning.json").read_text("utf-8"))
    assert content == json.loads(json.dumps(found.to_dict()))
    assert content["best"] == found.best.to_dict()
    assert len(content["points"]) == len(found.points)
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(f.name for f in files)
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    page = found._repr_html_()
    assert page.count("<tr>") == len(found.front) + 1
    assert "&#x27;docs&#x27;" in page
    assert isinstance(found, Tuning)
    assert repr(found).startswith("Tuning(16 configurations")


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"candidates": ()}, "candidates is (); expected a list"),
        ({"candidates": [0]}, "candidates is 0"),
        ({"rerankers": "one"}, "rerankers is 'one'; expected a list"),
        ({"rerankers": [None]}, "rerankers holds a NoneType"),
        ({"rerankers": ["bge-rerankr-base"]}, "Did you mean"),
        ({"precisions": ["int4"]}, "precision is 'int4'"),
        ({"precisions": ["q4f16"]}, "no q4f16 file"),
        ({"blends": [2]}, "blend is 2"),
        ({"fusions": ["sum"]}, "fusion is 'sum'"),
        ({"measure": "nDCG10"}, "measure is 'nDCG10'"),
        ({"qrels": {"q1": {"iron": 1}}}, "1 queries are judged; expected 4 or more"),
        ({"max_ms": "x"}, "max_ms is 'x'; expected milliseconds"),
        ({"max_ms": float("nan")}, "max_ms is nan; expected milliseconds"),
        ({"queries": None}, "queries is a NoneType"),
        ({"measure": 3}, "measure is 3"),
    ],
)
def test_bad_arguments_are_named(searcher, change, seen):
    """Before anything is searched."""
    given = {"queries": QUERIES, "qrels": QRELS} | SWEEP | change
    with pytest.raises(ValueError) as error:
        tune(searcher, given.pop("queries"), given.pop("qrels"), **given)
    assert seen in str(error.value)


def test_tune_from_the_command_line(tmp_path, monkeypatch):
    """A BEIR folder in, a front, a call and two files out."""
    monkeypatch.chdir(tmp_path)
    rows = [{"_id": i, "title": "", "text": t} for i, t in DOCUMENTS.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [{"_id": i, "text": t} for i, t in QUERIES.items()]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [f"{q} 0 {d} {g}\n" for q, ds in QRELS.items() for d, g in ds.items()]
    (tmp_path / "qrels.tsv").write_text("".join(rows))
    arguments = ["tune", "--corpus", ".", "--candidates", "3", "--blend", "0.5", "--fusion", "rrf"]
    done = CliRunner().invoke(main, [*arguments, "--out", "out", "--json"])
    assert done.exit_code == 0, done.stderr
    content = json.loads(done.stdout)
    assert [p["reranker"] for p in content["points"]] == [None, DEFAULT_RERANKER]
    assert content["arguments"]["qrels_file"] == "qrels.tsv"
    assert {f.name for f in (tmp_path / "out").iterdir()} == {"tuning.json", "front.png"}
    done = CliRunner().invoke(main, [*arguments, "--seed", "3"])
    assert "searcher = HybridSearcher(" in done.stdout
    done = CliRunner().invoke(main, ["tune", "--corpus", ".", "--blend", "half"])
    assert (done.exit_code, "--blend is 'half'" in done.stderr) == (2, True)
