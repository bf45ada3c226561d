"""Two configurations of a real searcher side by side, from Python and from the command line."""

import dataclasses
import gzip
import json
from contextlib import closing

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from qdrant_rerank import HybridSearcher, SearchOptions, TextCrossEncoder
from qdrant_rerank.cli.main import main
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.evaluation.compare import compare, with_reranker
from tests.html_page import Page

DOCUMENTS = [
    "Sourdough bread rises for a night before it is baked in a hot oven.",
    "Iron melts at 1538 degrees Celsius and boils at 2862.",
    "The Danube flows through ten countries to the Black Sea.",
    "A melting ice cream is a summer's small tragedy.",
    "Blast furnaces turn iron ore into pig iron.",
    "Copper conducts electricity better than iron does.",
    "To melt chocolate, heat it gently over water.",
    "Penguins keep warm by huddling together.",
]
QUERIES = [
    "How hot must it be for iron to melt?",
    "Which river crosses many countries?",
    "How do birds stay warm?",
    "melt",
]
HOSTILE = [
    "<script>alert('iron')</script>",
    "[bold red]iron[/] [link=http://iron.example]x[/link]",
    "\"quoted\" 'iron' & </li></ol>",
    "iron\nover\r\nthree\tlines \x1b[31m",
    "الحديد ينصهر عند 1538 درجة",
    "🔥👩\u200d🔬 iron \u202e reversed",
    "iron " * 200,
    "$first ${second} iron $$",
]
RELAXED = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SOME_QUERIES = st.lists(st.sampled_from(QUERIES), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def searcher():
    """Eight documents under the bundled models."""
    client = QdrantClient(location=":memory:")
    made = HybridSearcher("docs", client=client)
    made.add(DOCUMENTS, progress=False)
    yield made
    client.close()


@pytest.fixture(scope="module")
def second_opinion(tiny_bert):
    """A reranker whose random weights put everything elsewhere."""
    return TextCrossEncoder(tiny_bert)


def moves(comparison):
    """(first rank, second rank) by query and point."""
    return [
        {hit.id: (hit.first_rank, hit.second_rank) for hit in q.hits} for q in comparison.queries
    ]


def test_both_lists_are_what_the_searchers_return(searcher, second_opinion):
    """In their order, with the ranks of one in the other, however much the two have in common."""
    docs = {"collection": "docs", "client": searcher.client}
    elsewhere = HybridSearcher("fewer", client=searcher.client, reranker=None)
    elsewhere.add(DOCUMENTS[:6], progress=False)
    recall = with_reranker(searcher, None)
    other = with_reranker(searcher, second_opinion)
    dense = HybridSearcher(**docs, reranker=None, sparse=None)
    bm25 = HybridSearcher(**docs, reranker=None, embedder=None)
    blended = HybridSearcher(**docs, options=SearchOptions(blend=0.5))
    blended_recall = with_reranker(blended, None)
    fused = HybridSearcher(**docs, reranker=None, options=SearchOptions(fusion="dbsf"))
    for first, second in (
        (searcher, other),
        (recall, searcher),
        (other, recall),
        (dense, searcher),
        (searcher, bm25),
        (elsewhere, searcher),
        (searcher, blended),
        (blended, recall),
        (blended_recall, blended),
        (fused, searcher),
    ):
        compared = compare(first, second, QUERIES, limit=3, candidates=6)
        assert (compared.limit, compared.candidates) == (3, (6, 6))
        for query, shown in zip(QUERIES, compared.queries, strict=True):
            orders = [
                [point.id for point in one.search(query, 6, candidates=6)]
                for one in (first, second)
            ]
            assert [hit.id for hit in shown.first] == orders[0][:3]
            assert [hit.id for hit in shown.second] == orders[1][:3]
            for hit in shown.hits:
                ranks = [order.index(hit.id) + 1 if hit.id in order else None for order in orders]
                assert [hit.first_rank, hit.second_rank] == ranks
                assert hit.text in DOCUMENTS


def test_the_recall_order_of_a_reranker_costs_no_search_of_its_own(searcher, second_opinion):
    """The embedder sees each query once; twice where the two recall differently."""
    asked = []

    class Counting:
        """The searcher's embedder, counting."""

        name, dimension = searcher.embedder.name, searcher.embedder.dimension

        def embed_query(self, text):
            asked.append(text)
            return searcher.embedder.embed_query(text)

        def embed_documents(self, texts):
            return searcher.embedder.embed_documents(texts)

    counting = Counting()
    recall, reranked = (
        HybridSearcher("docs", client=searcher.client, embedder=counting, reranker=reranker)
        for reranker in (None, second_opinion)
    )
    compare(recall, reranked, QUERIES)
    assert asked == QUERIES
    compare(reranked, recall, {"q1": "melt"}, limit=2)
    assert asked == [*QUERIES, "melt"]
    for each in (recall, reranked):
        each.options = dataclasses.replace(each.options, diversity=0.5)
    compare(recall, reranked, ["melt"], limit=2)
    assert asked == [*QUERIES, "melt", "melt", "melt"]
    recall.options = reranked.options = searcher.options
    recall.candidates = 50
    compare(recall, reranked, ["melt"], limit=2)
    assert asked == [*QUERIES, *["melt"] * 5]


@RELAXED
@given(SOME_QUERIES, st.integers(1, 8))
def test_a_configuration_against_itself_changes_nothing(searcher, queries, limit):
    """Overlap 1, no moves, every query unchanged."""
    compared = compare(searcher, searcher, queries, limit=limit)
    assert compared.mean_overlap == compared.mean_rbo == 1.0
    assert compared.biggest_moves() == []
    assert compared.new_first_hits == 0
    assert compared.unchanged == len(queries)
    assert compared.names == ("grown-minilm-l6-v2 (first)", "grown-minilm-l6-v2 (second)")


@RELAXED
@given(SOME_QUERIES, st.integers(1, 8))
def test_the_other_way_round_is_the_mirror_image(searcher, second_opinion, queries, limit):
    """The same figures, with first and second swapped in every hit."""
    other = with_reranker(searcher, second_opinion)
    forth = compare(searcher, other, queries, limit=limit, names=("a", "b"))
    back = compare(other, searcher, queries, limit=limit, names=("b", "a"))
    assert back.names == forth.names[::-1]
    assert back.to_dict()["summary"] == forth.to_dict()["summary"]
    mirrored = [
        {key: (second, first) for key, (first, second) in placed.items()} for placed in moves(back)
    ]
    assert mirrored == moves(forth)


def test_two_collections_are_compared_by_id(searcher, client):
    """What only one of them holds has no rank in the other."""
    half = HybridSearcher("half", client=client)
    half.add(DOCUMENTS[:4], progress=False)
    compared = compare(half, searcher, ["iron"], limit=8)
    assert len(compared.queries[0].first) == 4
    unknown = [hit for hit in compared.queries[0].hits if hit.first_rank is None]
    assert {hit.text for hit in unknown} == set(DOCUMENTS[4:])
    assert compared.queries[0].overlap == 0.5
    assert compared.biggest_moves()[0][1] in unknown


def test_no_hits_and_hits_without_text_are_normal(client):
    """An empty collection; a payload without the field; hits that are dropped for it."""
    empty = HybridSearcher("empty", client=client)
    empty.add([], progress=False)
    nothing = compare(with_reranker(empty, None), empty, ["iron"])
    assert nothing.unchanged == 1
    assert nothing.mean_overlap == 1.0
    Page(nothing._repr_html_())
    mixed = HybridSearcher("mixed", client=client)
    mixed.add([*DOCUMENTS[:2], "iron, but elsewhere"], progress=False)
    [elsewhere] = [p for p in mixed.search("iron, but elsewhere") if "else" in p.payload["text"]]
    client.overwrite_payload("mixed", {"body": "iron"}, points=[elsewhere.id])
    dropping = dataclasses.replace(mixed.options, on_missing_text="drop")
    strict = HybridSearcher("mixed", client=client, options=dropping)
    compared = compare(with_reranker(strict, None), strict, ["iron, but elsewhere"])
    [untexted] = [hit for hit in compared.queries[0].hits if hit.id == elsewhere.id]
    assert (untexted.text, untexted.second_rank) == ("", None)
    assert f"{elsewhere.id} (no text)" in Page(compared._repr_html_()).texts


def test_hostile_texts_are_only_texts(client, tmp_path):
    """Of payloads and of queries, on a page written by a real run."""
    searcher = HybridSearcher("hostile", client=client, text=["text", "more"])
    searcher.add(({"text": text} for text in HOSTILE), progress=False)
    queries = [f"{text} iron?" for text in HOSTILE]
    with pytest.warns(UserWarning, match="Queries of 'hostile' are in Arabic"):
        compared = compare(with_reranker(searcher, None), searcher, queries, limit=8)
    compared.save_html(tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert page.tags.count("details") == len(HOSTILE)
    assert "<script>alert('iron')</script>" in page.texts
    assert "iron over three lines [31m iron?" in page.texts
    assert not any("://" in (value or "") for _, _, value in page.attributes)


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        ({"queries": []}, "There are no queries"),
        ({"queries": "melt"}, "queries is one str"),
        ({"queries": ["melt", " "]}, "Query 1: query is empty"),
        ({"queries": ["melt", 3]}, "Query 1: query is an int"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": 11, "candidates": 10}, "candidates is 10 and limit 11"),
        ({"candidates": "all"}, "candidates is 'all'"),
        ({"second": "the other"}, "second is a str; expected a HybridSearcher"),
        ({"names": ("one",)}, "names is"),
        ({"names": ("one", " ")}, "names is"),
    ],
)
def test_bad_input_is_named_before_anything_is_searched(searcher, arguments, seen):
    """The client is closed, so any search would fail differently."""
    client = QdrantClient(location=":memory:")
    gone = HybridSearcher("docs", client=client)
    client.close()
    given = {"first": gone, "second": gone, "queries": QUERIES} | arguments
    first, second, queries = (given.pop(name) for name in ("first", "second", "queries"))
    with pytest.raises(InvalidInputError, match=seen):
        compare(first, second, queries, **given)


JSONL = "".join(
    json.dumps({"_id": f"q{at}", "text": query}) + "\n" for at, query in enumerate(QUERIES)
)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A directory with the eight documents in the collection 'docs'."""
    path = tmp_path_factory.mktemp("database")
    client = QdrantClient(path=str(path))
    HybridSearcher("docs", client=client).add(DOCUMENTS, progress=False)
    client.close()
    return path


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs ``qdrant-rerank compare`` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, stdin=None):
        return CliRunner().invoke(main, ["compare", *map(str, arguments)], input=stdin)

    return run


def where(database):
    """The options that name the collection."""
    return "--collection", "docs", "--path", database


def test_command_by_default_sets_the_recall_order_against_the_bundled_model(
    command, database, tmp_path
):
    """A table on stdout, and the page with --html."""
    (tmp_path / "queries.txt").write_text("\n".join(QUERIES), encoding="utf-8-sig")
    options = ("--limit", 3, "--candidates", 6)
    done = command("queries.txt", *where(database), *options, "--html", "new/page.html")
    assert done.exit_code == 0, done.output
    assert "recall order" in done.stdout
    assert "Every query is in new/page.html" in done.stdout
    written = Page((tmp_path / "new" / "page.html").read_text("utf-8"))
    assert set(QUERIES) <= set(written.texts)
    done = command("queries.txt", *where(database), *options, "--json")
    with closing(QdrantClient(path=str(database))) as client:
        searcher = HybridSearcher("docs", client=client)
        recall = with_reranker(searcher, None)
        expected = compare(recall, searcher, QUERIES, limit=3, candidates=6)
    assert json.loads(done.stdout) == expected.to_dict()


@pytest.mark.parametrize("form", ["lines", "jsonl", "gzip", "stdin"])
def test_command_reads_queries_in_every_form(command, database, tmp_path, tiny_bert, form):
    """Lines, BEIR's JSONL, the same gzipped, standard input."""
    lines = "\n".join(QUERIES) + "\n"
    (tmp_path / "queries").write_bytes(
        {"jsonl": JSONL.encode(), "gzip": gzip.compress(JSONL.encode())}.get(form, lines.encode())
    )
    rerankers = ("--reranker", tiny_bert, "--reranker", "none")
    done = command(
        "-" if form == "stdin" else "queries",
        *where(database),
        *rerankers,
        "--json",
        stdin=lines if form == "stdin" else None,
    )
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert [query["query"] for query in content["queries"]] == QUERIES
    assert (content["first"], content["second"]) == (str(tiny_bert), "recall order")


@pytest.mark.parametrize(
    ("arguments", "queries", "seen"),
    [
        ((), "", "queries.txt holds no queries"),
        ((), "one\n \nthree\n", "queries.txt, line 2 is blank"),
        ((), b"one\n\xff\n", "queries.txt, line 2 is not UTF-8 (byte 1)"),
        ((), '{"_id": "1", "text": "one"}\n{"_id": "1"', "queries.txt, line 2 is not JSON"),
        ((), '{"_id": "1", "text": " "}\n', "queries.txt, line 1: query '1' has no text"),
        (("--reranker", "none"), "one", "--reranker is given 1 time; expected two"),
        (("--reranker", "none") * 3, "one", "--reranker is given 3 times; expected two"),
        (("--reranker", "none") * 2, "one", "--reranker none and --reranker none are the same"),
        (("--reranker", "m", "--reranker", "./m"), "one", "are the same"),
        (
            (
                "--reranker",
                "ms-marco-MiniLM-L-6-v2",
                "--reranker",
                "Xenova/ms-marco-MiniLM-L-6-v2",
            ),
            "one",
            "are the same",
        ),
        (("--reranker", "none", "--reranker", "bge-rerankr-base"), "one", "Did you mean"),
        (("--limit", 20, "--candidates", 10), "one", "--candidates is 10 and --limit 20"),
        (("--limit", 0), "one", "0 is not in the range"),
        (("--html", "queries.txt/page.html"), "one", "queries.txt is not a folder"),
        (("--html", "."), "one", "is a directory"),
        (("--url", "http://127.0.0.1:9"), "one", "both given"),
        (("--collection", "others"), "one", "no collection 'others'"),
    ],
)
def test_command_names_bad_input_in_one_line(command, database, tmp_path, arguments, queries, seen):
    """Exit code 2, nothing on stdout, no page."""
    content = queries if isinstance(queries, bytes) else queries.encode()
    (tmp_path / "queries.txt").write_bytes(content)
    html = () if "--html" in arguments else ("--html", "page.html")
    done = command("queries.txt", *where(database), *html, *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    [line] = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert seen in line
    assert [item.name for item in tmp_path.iterdir()] == ["queries.txt"]


def test_command_reads_no_jsonl_from_stdin(command, database):
    """It says so instead of searching for braces."""
    done = command("-", *where(database), stdin=JSONL)
    assert done.exit_code == 2
    assert "stdin, line 1 is not a query but JSONL" in done.stderr
    done = command("none.txt", *where(database))
    assert "none.txt cannot be read: No such file" in done.stderr
