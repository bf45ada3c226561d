"""evaluate and ``qdrant-rerank eval``, over the embedded engine, with the bundled models."""

import gzip
import json
import re
from io import StringIO

import ir_measures
import numpy as np
import pytest
from click.testing import CliRunner
from qdrant_client import QdrantClient
from rich.console import Console

from qdrant_rerank import DEFAULT_RERANKER, Evaluation, HybridSearcher, SearchOptions, evaluate
from qdrant_rerank.cli.main import main
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.evaluation import Document, evaluate_run, read_qrels, read_run
from qdrant_rerank.evaluation.plots import draw_gains, save_figure
from tests.unit.test_package import python

DOCUMENTS = {
    "bread": "Sourdough bread rises for a night before it is baked in a hot oven.",
    "iron": "Iron melts at 1538 degrees Celsius and boils at 2862.",
    "danube": "The Danube flows through ten countries to the Black Sea.",
    "ice": "A melting ice cream is a summer's small tragedy, hot as iron.",
    "furnace": "Blast furnaces turn iron ore into pig iron.",
    "copper": "Copper conducts electricity better than iron does.",
    "chocolate": "To melt chocolate, heat it gently over water.",
    "penguin": "Penguins keep warm by huddling together.",
}
QUERIES = {
    "q1": "How hot must it be for iron to melt?",
    "q2": "Which river runs through many countries?",
    "q3": "how birds stay warm",
    "q4": "is anyone there [bold]",
}
QRELS = {
    "q1": {"iron": 2, "furnace": 1, "ice": 0},
    "q2": {"danube": 1},
    "q3": {"penguin": 1, "elsewhere": 1},
}


@pytest.fixture(scope="module")
def searcher():
    """Eight documents whose payload has the ids of the qrels."""
    client = QdrantClient(location=":memory:")
    made = HybridSearcher("docs", client=client, candidates=6)
    made.add([{"_id": i, "text": t} for i, t in DOCUMENTS.items()], progress=False)
    yield made
    client.close()


@pytest.fixture(scope="module")
def found(searcher):
    """Two configurations, evaluated."""
    plain = HybridSearcher("docs", client=searcher.client, reranker=None, candidates=6)
    return evaluate({"[red]bundled": searcher, "none": plain}, QUERIES, QRELS, progress=False)


def test_it_measures_what_the_searcher_returns(searcher, found):
    """Before and after, by ir-measures, from the orders of search()."""
    assert list(found.queries) == ["q1", "q2", "q3"]
    assert (found.unjudged, found.without_relevant) == (1, 0)
    results = {q: searcher.search(t, limit=6) for q, t in QUERIES.items() if q in QRELS}
    after = {q: [hit.payload["_id"] for hit in hits] for q, hits in results.items()}
    before = {
        q: [h.payload["_id"] for h in sorted(hits, key=lambda h: h.retrieval_rank)]
        for q, hits in results.items()
    }
    bundled = found["[red]bundled"]
    assert {q: list(run) for q, run in bundled.after.items()} == after
    assert {q: list(run) for q, run in bundled.before.items()} == before
    for stage, orders in (("before", before), ("after", after)):
        run = {q: {d: -float(i) for i, d in enumerate(ds)} for q, ds in orders.items()}
        for measure in found.measures:
            theirs = ir_measures.calc_aggregate([ir_measures.parse_measure(measure)], QRELS, run)
            [value] = theirs.values()
            assert bundled.values[stage][measure].mean() == pytest.approx(value)
            assert (bundled.values["best"][measure] >= bundled.values[stage][measure]).all()
    assert bundled.recall["R@6"].tolist() == [1.0, 1.0, 0.5]
    assert (bundled.pairs, bundled.without_text) == (18, 0)
    assert all((bundled.seconds[stage] > 0).all() for stage in bundled.seconds)
    with pytest.raises(KeyError):
        found["other"]


def test_without_a_reranker_nothing_changes(found):
    """And the first stage is the same as that of the other configuration."""
    none = found["none"]
    assert none.before == none.after == found["[red]bundled"].before
    assert none.pairs == 0
    assert all(gain.mean == 0 and gain.p == 1 for gain in none.gains.values())
    difference = found.difference("none", "[red]bundled", "nDCG@10")
    assert difference.mean == pytest.approx(-found["[red]bundled"].gains["nDCG@10"].mean)


def test_tables_fit_a_terminal_and_nothing_in_them_is_markup(found):
    """80 columns; a name that looks like markup is shown as it is, and escaped in HTML."""
    console = Console(width=80, file=StringIO())
    console.print(found)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for seen in ("[red]bundled", "nDCG@10", "before", "against [red]bundled", "tokenise", "R@6"):
        assert seen in text
    assert "1 without judgments were not searched" in " ".join(text.split())
    page = found._repr_html_()
    assert page.count("<table>") == page.count("</table>") == 3
    assert repr(found) == "Evaluation(3 queries; '[red]bundled', 'none')"


def test_depths_may_differ_and_a_long_name_folds(searcher):
    """A recall that only one of them has is left blank for the other; file names stay apart."""
    deep = HybridSearcher("docs", client=searcher.client, reranker=None, candidates=8)
    shallow = HybridSearcher("docs", client=searcher.client, reranker=None, candidates=2)
    names = ["a" * 90 + "/", "a" * 90 + "."]
    found = evaluate(dict(zip(names, (deep, shallow), strict=True)), QUERIES, QRELS)
    assert [list(c.recall) for c in found.configurations] == [["R@8"], ["R@2"]]
    console = Console(width=80, file=StringIO())
    console.print(found)
    assert max(map(len, console.file.getvalue().splitlines())) <= 80
    assert len(set(found._stems())) == 2


def test_queries_without_a_relevant_document_are_counted(searcher):
    """As 0, and said."""
    found = evaluate(searcher, QUERIES, {"q1": {"iron": 1}, "q2": {"danube": 0}}, progress=False)
    assert found.without_relevant == 1
    assert found[DEFAULT_RERANKER].values["best"]["nDCG@10"].tolist() == [1.0, 0.0]
    assert "1 have no relevant document and count as 0" in found._repr_html_()


def test_a_picture_of_another_format_or_none(found, tmp_path):
    """By its suffix; what is no picture's is named."""
    values = found["[red]bundled"].values
    figure = draw_gains({"[red]$x$": (values["before"]["RR"], values["after"]["RR"])}, "RR")
    save_figure(figure, tmp_path / "gain.svg")
    assert b"<svg" in (tmp_path / "gain.svg").read_bytes()
    with pytest.raises(InvalidInputError, match=r"ends in '.txt'; expected one of png, svg, pdf"):
        save_figure(figure, tmp_path / "gain.txt")


def test_without_matplotlib_the_command_is_named():
    """The extra that brings it."""
    said = python(
        "import sys; sys.modules['matplotlib'] = None\n"
        "from qdrant_rerank.evaluation.plots import require_matplotlib\n"
        "try: require_matplotlib()\n"
        "except ImportError as error: print(error)"
    )
    assert 'pip install "qdrant-rerank[eval]"' in said


def test_names_are_escaped_in_html(searcher):
    """No name is read as HTML."""
    plain = HybridSearcher("docs", client=searcher.client, reranker=None, candidates=6)
    page = evaluate({"<script>$x$": plain}, QUERIES, QRELS)._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;$x$" in page


def test_what_is_saved_can_be_read_by_others(found, tmp_path):
    """JSON as documented, TREC runs that score the same when read back, a picture."""
    files = found.save(tmp_path / "out")
    assert {f.name for f in files} == {f.name for f in (tmp_path / "out").iterdir()}
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text("utf-8"))
    assert content == json.loads(json.dumps(found.to_dict()))
    assert content["queries"] == {"judged": 3, "unjudged": 1, "without_relevant": 0}
    assert content["versions"]["qdrant-rerank"]
    bundled = content["configurations"]["[red]bundled"]
    assert set(bundled["ms"]) == {"embed", "recall", "tokenise", "infer", "total"}
    for stage, name in (("before", "first"), ("after", "reranked")):
        path = tmp_path / "out" / f"_red_bundled.{name}.run"
        run = list(ir_measures.read_trec_run(str(path)))
        theirs = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], QRELS, run)
        assert bundled["measures"]["nDCG@10"][stage] == pytest.approx(*theirs.values())
        mean = np.mean([q["nDCG@10"][0 if stage == "before" else 1] for q in by_query(bundled)])
        assert bundled["measures"]["nDCG@10"][stage] == pytest.approx(mean)
        assert {q: list(d) for q, d in read_run(path).items()} == {
            q: list(d) for q, d in getattr(found["[red]bundled"], stage).items()
        }
    assert (tmp_path / "out" / "gain.png").read_bytes().startswith(b"\x89PNG")


def by_query(configuration):
    """The measures of each query."""
    return configuration["by_query"].values()


def test_a_candidate_without_text_or_dropped(searcher):
    """It was a candidate; after reranking it is last, or gone."""
    searchers = {
        missing: HybridSearcher(
            "docs",
            client=searcher.client,
            candidates=6,
            text=lambda payload: None if payload["_id"] == "iron" else payload["text"],
            options=SearchOptions(on_missing_text=missing),
        )
        for missing in ("last", "drop")
    }
    found = evaluate(searchers, QUERIES, {"q1": QRELS["q1"]})
    assert found["last"].before == found["drop"].before
    assert list(found["last"].after["q1"])[-1] == "iron"
    scores = list(found["last"].after["q1"].values())
    assert scores == sorted(scores, reverse=True)
    assert "iron" not in found["drop"].after["q1"]
    assert found["drop"].without_text == 1
    assert "1 hits had no text" in found._summary()


def test_a_query_that_is_a_document_is_not_its_own_hit(searcher, found):
    """As in BEIR, where ArguAna's and Quora's queries are in the corpus; or it is, if asked for."""
    queries, qrels = {"iron": DOCUMENTS["iron"]}, {"iron": {"furnace": 1}}
    values = {}
    for ignored in (True, False):
        ours = evaluate(searcher, queries, qrels, ignore_identical_ids=ignored, progress=False)
        [one] = ours.configurations
        assert ("iron" in one.before["iron"], "iron" in one.after["iron"]) == (not ignored,) * 2
        assert ours.arguments["ignore_identical_ids"] is ignored
        values[ignored] = one.values["before"]["nDCG@10"].mean()
    assert values[True] > values[False]
    corpus = {i: Document(i, "", t) for i, t in DOCUMENTS.items()}
    run = {"iron": {"iron": 2.0, "furnace": 1.0}}
    for ignored, expected in ((True, 1.0), (False, 1 / np.log2(3))):
        given = evaluate_run(
            run, corpus, queries, qrels, candidates=1 + (not ignored), ignore_identical_ids=ignored
        )
        [one] = given.configurations
        assert one.values["before"]["nDCG@10"].tolist() == pytest.approx([expected])
        assert one.pairs == 1 + (not ignored)


def test_several_points_of_one_document_count_once(client):
    """By the best of them."""
    searcher = HybridSearcher("docs", client=client, candidates=6)
    parts = [{"_id": "iron", "text": t} for t in ("Iron melts at 1538 C.", "Iron melts.")]
    searcher.add([*parts, {"_id": "bread", "text": "Bread and iron pans."}], progress=False)
    found = evaluate(searcher, {"q": "How hot must iron be to melt?"}, {"q": {"iron": 1}})
    assert list(found[DEFAULT_RERANKER].after["q"]) == ["iron", "bread"]


def test_given_candidates_need_no_qdrant(found):
    """The order of the run is the first stage; a fitting reranker gives the searcher's order."""
    corpus = {i: Document(i, "", t) for i, t in DOCUMENTS.items()}
    run = found["none"].before
    again = evaluate_run(run, corpus, QUERIES, QRELS, reranker={"b": DEFAULT_RERANKER, "n": None})
    assert again["b"].before == run == again["n"].after
    assert again["b"].after == found["[red]bundled"].after
    short = evaluate_run(run, corpus, QUERIES, QRELS, candidates=2)
    assert [len(d) for d in short[DEFAULT_RERANKER].after.values()] == [2, 2, 2]
    assert list(short[DEFAULT_RERANKER].recall) == ["R@2"]
    missing = evaluate_run({"q1": run["q1"]}, corpus, QUERIES, QRELS, reranker=None)
    assert missing["no reranker"].values["before"]["RR"][1:].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"qrels": {"x": {"a": 1}}}, "queries and qrels have no query in common"),
        ({"qrels": {}}, "no query in common"),
        ({"qrels": {"q1": {"a": 1}}}, "Not one candidate of 1 queries is judged"),
        ({"queries": {**QUERIES, "q1": " "}}, "query is empty"),
        ({"measures": ["nDCG10"]}, "measure is 'nDCG10'"),
        ({"measures": "RR"}, "measures is 'RR'"),
        ({"candidates": 0}, "candidates is 0"),
        ({"resamples": 0}, "resamples is 0"),
        ({"searcher": {}}, "no configuration"),
        ({"searcher": {"a": "docs"}}, "'a' is a str; expected a HybridSearcher"),
        ({"queries": None}, "queries is a NoneType; expected a mapping"),
        ({"queries": list(QUERIES.values())}, "queries is a list; expected a mapping"),
        ({"qrels": None}, "qrels is a NoneType; expected a mapping"),
        ({"qrels": [("q1", "iron", 1)]}, "qrels is a list; expected a mapping"),
        ({"qrels": {"q1": ["iron"]}}, "judgments of query 'q1' are a list; expected grades by"),
        ({"qrels": {"q1": {}}}, "None of the queries has a judgment"),
        (
            {"qrels": {"q1": {"iron": 1.0}}},
            "document 'iron' for query 'q1' is 1.0; expected a whole",
        ),
        ({"qrels": {"q1": {"iron": "1"}}}, "for query 'q1' is '1'; expected a whole"),
        ({"qrels": {"q1": {"iron": None}}}, "for query 'q1' is None; expected a whole"),
        ({"qrels": {"q1": {"iron": 2**70}}}, "expected a whole number"),
        ({"qrels": {"q1": {7: 1}}}, "of query 'q1' is an int, 7; expected its id as a str"),
        ({"measures": [3]}, "measure is 3"),
    ],
)
def test_bad_arguments_are_named(searcher, change, seen):
    """Before anything is searched, where that can be known."""
    given = {"searcher": searcher, "queries": QUERIES, "qrels": QRELS} | change
    with pytest.raises(InvalidInputError, match=seen):
        evaluate(**given)


def test_grades_may_be_numpys(searcher, found):
    """As they come out of a table."""
    grades = {q: {d: np.int64(g) for d, g in judged.items()} for q, judged in QRELS.items()}
    again = evaluate(searcher, QUERIES, grades, progress=False)
    for measure, values in again[DEFAULT_RERANKER].values["after"].items():
        np.testing.assert_array_equal(values, found["[red]bundled"].values["after"][measure])


def test_a_name_must_be_a_text(searcher):
    """It heads a row and names a file."""
    with pytest.raises(InvalidInputError, match="called ''; expected a name"):
        evaluate({"": searcher}, QUERIES, QRELS)


def test_a_run_of_another_corpus_is_named(found):
    """With the document and its query."""
    with pytest.raises(InvalidInputError, match="Document 'bread' of query 'q1' is not in"):
        evaluate_run({"q1": {"bread": 1.0}}, {}, QUERIES, QRELS)


@pytest.mark.parametrize(
    ("run", "corpus", "seen"),
    [
        (None, {}, "run is no mapping of mappings"),
        ({"q1": ["iron"]}, {}, "run is no mapping of mappings"),
        ({"q1": {"iron": "high"}}, {}, "score of 'iron' for 'q1' is 'high'"),
        ({"q1": {"iron": float("nan")}}, {}, "score of 'iron' for 'q1' is nan"),
        ({"q1": {"iron": 1.0}}, None, "corpus is a NoneType"),
        ({"q1": {"iron": 1.0}}, DOCUMENTS, "corpus has a str for 'iron'; expected a Document"),
    ],
)
def test_what_is_no_run_or_corpus_is_named(run, corpus, seen):
    """Before anything is scored."""
    with pytest.raises(InvalidInputError, match=seen):
        evaluate_run(run, corpus, QUERIES, QRELS)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs qdrant-rerank in tmp_path; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        done = CliRunner().invoke(main, list(map(str, arguments)))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    return run


@pytest.fixture
def beir(tmp_path):
    """A BEIR folder of the documents; ids, a duplicate text and an empty document in it."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    rows = [*DOCUMENTS.items(), ("bread again", DOCUMENTS["bread"]), ("empty", " ")]
    lines = [json.dumps({"_id": i, "title": "", "text": t}) for i, t in rows]
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    lines = [json.dumps({"_id": i, "text": t}) for i, t in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(lines))
    rows = [("query-id", "corpus-id", "score")]
    rows += [(q, d, g) for q, ds in QRELS.items() for d, g in ds.items() if d != "elsewhere"]
    (folder / "qrels" / "test.tsv").write_text("".join("\t".join(map(str, r)) + "\n" for r in rows))
    return folder


def test_eval_of_a_beir_folder(command, beir):
    """One command: index, search, rerank, measure; two configurations."""
    code, out, err = command("eval", "--corpus", beir, "--reranker", "none", "--candidates", 4)
    assert code == 0, err
    assert "Without text, and so not indexed: 1 document." in err
    assert re.search(r"nDCG@10.*\n none +\d", out)
    code, out, err = command(
        *("eval", "--corpus", beir, "--json", "--limit-queries", 2, "--measure", "RR"),
        *("--reranker", "none", "--reranker", DEFAULT_RERANKER, "--seed", 7),
    )
    content = json.loads(out)
    assert code == 0, err
    assert list(content["configurations"]) == ["none", DEFAULT_RERANKER]
    assert content["queries"]["judged"] == 2
    assert content["arguments"]["seed"] == 7
    assert content["configurations"]["none"]["candidates"] == 100


def test_eval_counts_no_query_as_its_own_hit(command, beir):
    """Unless that is asked for; the JSON says which."""
    lines = [{"_id": "iron", "text": DOCUMENTS["iron"]}]
    (beir / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\niron\tfurnace\t1\n")
    reached = {}
    for option in ("--ignore-identical-ids", "--keep-identical-ids"):
        code, out, err = command(
            "eval", "--corpus", beir, "--reranker", "none", "--json", *[option] * (option[2] == "k")
        )
        assert code == 0, err
        content = json.loads(out)
        assert content["arguments"]["ignore_identical_ids"] is (option[2] == "i")
        reached[option] = content["configurations"]["none"]["measures"]["RR"]["before"]
    assert reached["--ignore-identical-ids"] > reached["--keep-identical-ids"]


def test_eval_of_a_run_and_what_it_writes(command, beir, tmp_path):
    """The run that was written can be reranked again, without Qdrant."""
    code, _, err = command(
        "eval", "--corpus", beir, "--reranker", "none", "--candidates", 4, "--out", "out"
    )
    assert (code, "cannot stand in a TREC run" in err) == (2, True)
    corpus = gzip.decompress((beir / "corpus.jsonl.gz").read_bytes()).replace(b"d again", b"d2")
    (beir / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus))
    code, _, err = command(
        "eval", "--corpus", beir, "--reranker", "none", "--candidates", 4, "--out", "out"
    )
    assert code == 0, err
    code, out, err = command(
        "eval", "--corpus", beir, "--run", tmp_path / "out" / "none.first.run", "--json"
    )
    assert code == 0, err
    [configuration] = json.loads(out)["configurations"].values()
    first = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert configuration["recall"] == first["configurations"]["none"]["recall"]


def test_eval_of_a_collection(command, beir, tmp_path):
    """Indexed by the other command; the ids of the qrels are in its payload."""
    corpus = gzip.decompress((beir / "corpus.jsonl.gz").read_bytes()).splitlines()[:8]
    (tmp_path / "docs.jsonl").write_bytes(b"\n".join(corpus))
    where = ("--collection", "docs", "--path", tmp_path / "db")
    assert command("index", "docs.jsonl", *where)[0] == 0
    code, out, err = command(
        *("eval", *where, "--json", "--queries", beir / "queries.jsonl"),
        *("--qrels", beir / "qrels" / "test.tsv", "--reranker", "none"),
    )
    assert code == 0, err
    [configuration] = json.loads(out)["configurations"].values()
    assert configuration["recall"]["R@10"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        ((), "nothing to search"),
        (("--corpus", "none"), "none is neither a file nor a folder"),
        (("--corpus", "beir/corpus.jsonl.gz"), "--queries is missing"),
        (("--corpus", "beir", "--qrels", "q1"), "q1 cannot be read: No such file"),
        (("--corpus", "beir", "--qrels", "more.tsv"), "more.tsv, line 2: there is no document"),
        (("--corpus", "beir", "--qrels", "more.tsv"), "pass --partial-corpus"),
        (("--corpus", "beir", "--run", "run.txt"), "run.txt, line 2: there is no document 'x'"),
        (("--corpus", "beir", "--run", "run4.txt"), "run4.txt and beir/qrels/test.tsv have no"),
        (("--corpus", "beir", "--run", "a", "--collection", "b"), "not with --collection"),
        (("--corpus", "beir", "--reranker", "bge-rerankr-base"), "Did you mean"),
        (("--corpus", "beir", "--measure", "nDGC"), "measure is 'nDGC'"),
        (("--corpus", "beir", "--out", "/proc/x"), "/proc/x cannot be written"),
        (("--corpus", "beir", "--candidates", "0"), "0 is not in the range"),
    ],
)
def test_bad_input_ends_with_exit_code_2_and_one_line(command, beir, tmp_path, arguments, seen):
    """That says what to do."""
    (tmp_path / "more.tsv").write_text("query-id\tcorpus-id\tscore\nq1\telsewhere\t1\n")
    (tmp_path / "run.txt").write_text("q1 Q0 iron 1 2 t\nq1 Q0 x 2 1 t\n")
    (tmp_path / "run4.txt").write_text("q4 Q0 iron 1 2 t\n")
    code, out, err = command("eval", *arguments)
    assert (code, out) == (2, "")
    assert seen in " ".join(err.split())
    assert "Traceback" not in err


def test_a_partial_corpus_is_evaluated_when_it_is_said_to_be(command, beir, tmp_path):
    """What lies elsewhere counts as missed."""
    (tmp_path / "more.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq2\tdanube\t1\nq2\telsewhere\t1\n"
    )
    code, out, err = command(
        *("eval", "--corpus", beir, "--qrels", "more.tsv", "--partial-corpus", "--json"),
        *("--reranker", "none"),
    )
    assert code == 0, err
    [configuration] = json.loads(out)["configurations"].values()
    assert configuration["recall"]["R@10"] == 0.5
    assert read_qrels(tmp_path / "more.tsv")["q2"] == {"danube": 1, "elsewhere": 1}


def test_evaluation_is_exported():
    """With the function that makes it."""
    assert evaluate.__module__ == "qdrant_rerank.evaluation.evaluate"
    assert Evaluation.__module__ == "qdrant_rerank.evaluation.evaluation_result"
