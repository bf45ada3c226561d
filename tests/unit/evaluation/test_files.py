"""Corpora, queries, qrels and runs: read, checked, written."""

import gzip
import json

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.evaluation.corpus import find_beir, iter_corpus, read_corpus, read_queries
from qdrant_rerank.evaluation.trec import read_qrels, read_run, require_overlap, write_run
from qdrant_rerank.utils.atomic_files import atomic_text

CORPUS = '{"_id": "a", "title": "Iron", "text": "It melts."}\n{"_id": "b", "text": "Bread."}\n'
QUERIES = '{"_id": "1", "text": "melting"}\n\n{"_id": 2, "text": "baking"}\n'
QRELS = "query-id\tcorpus-id\tscore\n1\ta\t2\n1\tb\t0\n2\tb\t1\n"
TREC_QRELS = "1 0 a 2\n1 0 b 0\n2 0 b 1\n"
JUDGED = {"1": {"a": 2, "b": 0}, "2": {"b": 1}}


@pytest.fixture(params=["plain", "gzip"])
def write(tmp_path, request):
    """Writes a text under a name, gzipped or not; returns the path."""

    def to(name, content):
        content = content.encode() if isinstance(content, str) else content
        path = tmp_path / (name if request.param == "plain" else f"{name}.gz")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if request.param == "plain" else gzip.compress(content))
        return path

    return to


def test_corpus_and_queries(write):
    """A missing title is empty, a number as an id becomes a text, blank lines are skipped."""
    path = write("corpus.jsonl", "\ufeff" + CORPUS.replace("\n", "\r\n"))
    corpus = read_corpus(path)
    assert [(d.id, d.title, d.content) for d in corpus.values()] == [
        ("a", "Iron", "Iron\nIt melts."),
        ("b", "", "Bread."),
    ]
    assert list(read_corpus(path, only={"b"})) == ["b"]
    assert read_queries(write("queries.jsonl", QUERIES)) == {"1": "melting", "2": "baking"}


def test_a_beir_folder_names_its_files(write):
    """Both places where qrels are found; a corpus file stands for itself."""
    path = write("corpus.jsonl", CORPUS)
    assert find_beir(path) == find_beir(str(path))
    assert find_beir(path).qrels is None
    split = write("qrels/test.tsv", QRELS)
    assert find_beir(path.parent).qrels == split
    qrels, queries = write("qrels.tsv", QRELS), write("queries.jsonl", QUERIES)
    found = find_beir(path.parent)
    assert (found.corpus, found.queries, found.qrels) == (path, queries, qrels)
    assert [d.id for d in iter_corpus(path.parent)] == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        QRELS,
        TREC_QRELS,
        TREC_QRELS.replace(" ", "\t"),
        "score\tcorpus-id\tquery-id\tnote\n2\ta\t1\tx\n0\tb\t1\t\n1\tb\t2\ty\n",
    ],
    ids=["beir", "trec", "trec with tabs", "other columns"],
)
def test_qrels_of_both_formats(write, content):
    """Told apart by what the file holds."""
    assert read_qrels(write("qrels.tsv", content), queries={"1", "2"}, documents="ab") == JUDGED


@pytest.mark.parametrize(
    ("content", "scores"),
    [
        ("1 Q0 a 1 0.5 t\n1 Q0 b 2 0.75 t\n", {"b": 0.75, "a": 0.5}),
        ("query-id\tcorpus-id\trank\tscore\n1\ta\t2\t3\n1\tb\t1\t3\n", {"b": 3.0, "a": 3.0}),
        ("query-id\tcorpus-id\tscore\n1\ta\t-1e3\n1\tb\t7\n", {"b": 7.0, "a": -1000.0}),
        ("query-id\tcorpus-id\trank\n1\ta\t2\n1\tb\t1\n", {"b": -1.0, "a": -2.0}),
        ("query-id\tcorpus-id\n1\tb\n1\ta\n", {"b": -1.0, "a": -2.0}),
    ],
    ids=["trec", "ties by rank", "score", "rank", "as it stands"],
)
def test_runs_of_both_formats(write, content, scores):
    """Best first: by score, then rank, then the order of the file."""
    run = read_run(write("run.tsv", content))
    assert run == {"1": scores}
    assert list(run["1"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("read", "content", "seen"),
    [
        (read_corpus, CORPUS + "{", "line 3 is not JSON"),
        (read_corpus, CORPUS + "[1]", "line 3 holds a list"),
        (read_corpus, CORPUS + "[" * 100_000, "line 3 is not JSON"),
        (read_corpus, '{"id": "a", "text": "x"}', "line 1 has the _id None"),
        (read_corpus, '{"_id": " ", "text": "x"}', "line 1 has the _id ' '"),
        (read_corpus, '{"_id": "\\ud800", "text": "x"}', "half of a surrogate pair"),
        (read_corpus, '{"_id": "a", "body": "x"}', "line 1 has None as text"),
        (read_corpus, '{"_id": "a", "text": 5}', "line 1 has 5 as text"),
        (
            read_corpus,
            CORPUS + '{"_id": "a", "text": "x"}',
            "line 3: the _id 'a' is already on an earlier line",
        ),
        (read_corpus, b'{"_id": "a", "text": "x"}\n\xff\xfe', r"line 2 is not UTF-8 \(byte 1\)"),
        (read_corpus, "", "line 1: the file is empty"),
        (read_queries, '{"_id": "1", "text": " "}', "line 1: query '1' has no text"),
        (read_queries, "\n\n", "line 1: the file is empty"),
        (read_qrels, "", "line 1: the file is empty"),
        (read_qrels, "query-id\tcorpus-id\tscore\n", "line 1: the file is empty"),
        (read_qrels, "query-id\tscore\n1\t1\n", "line 1: the header .* lacks corpus-id"),
        (read_qrels, "1\ta\t1\n", "line 1 has 3 columns; expected 4: .* starts with a header"),
        (read_qrels, QRELS + "2\ta\n", "line 5 has 2 columns; expected 3: .*separated by tabs"),
        (read_qrels, QRELS + "1\tb\t1\n", "line 5: query '1' and document 'b' are judged"),
        (read_qrels, QRELS + "2\ta\t-1\n", "line 5: the grade is -1; .* Write 0"),
        (read_qrels, QRELS + "2\ta\t0.5\n", "line 5: the grade is '0.5'"),
        (read_qrels, QRELS + "2\t\t1\n", "line 5: the id of the document is empty"),
        (read_run, "1 Q0 a 1 0.5\n", "line 1 has 5 columns; expected 6"),
        (read_run, "1 Q0 a 1 nan t\n", "line 1: the score is nan"),
        (read_run, "1 Q0 a 1 inf t\n", "line 1: the score is inf"),
        (read_run, "1 Q0 a first 1 t\n", "line 1: the rank is 'first'"),
        (read_run, "1 Q0 a 1 1 t\n\n1 Q0 a 2 0 t\n", "line 3: document 'a' stands"),
        (read_run, "corpus-id\tscore\na\t1\n", "line 1: the header .* lacks query-id"),
        (read_run, f"1 Q0 {'a' * 5000} x 1 t\n", "the rank is 'x'"),
    ],
)
def test_bad_lines_are_named(write, read, content, seen):
    """With the file, the line, what was expected and how to mend it; never at length."""
    path = write("file", content)
    with pytest.raises(InvalidInputError, match=seen) as error:
        read(path)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < 400 + len(str(path))


@pytest.mark.parametrize("read", [read_qrels, read_run])
@pytest.mark.parametrize(
    ("known", "seen"),
    [
        ({"queries": {"2"}, "documents": {"a"}}, "line 2: there is no query '1' in the queries"),
        ({"queries": {"1"}, "documents": {"b"}}, "line 2: there is no document 'a' in the corpus"),
    ],
)
def test_unknown_ids_are_named(write, read, known, seen):
    """A run or qrels of another corpus would else be scored as if nothing were found."""
    path = write("file.tsv", "query-id\tcorpus-id\tscore\n1\ta\t1\n")
    with pytest.raises(InvalidInputError, match=seen):
        read(path, **known)


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"hello", r"line 1: the file is named \.gz and is not gzipped"),
        (
            gzip.compress(TREC_QRELS.encode() * 9, mtime=0)[:-12],
            "gzip data are damaged or cut short",
        ),
        (b"\x1f\x8b" + b"garbage" * 9, "line 1: the gzip data are damaged"),
    ],
)
def test_a_damaged_gzip_is_named(tmp_path, content, seen):
    """Garbage, cut short, and only named so."""
    path = tmp_path / "qrels.tsv.gz"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=seen):
        read_qrels(path)


def test_a_path_that_is_not_there(tmp_path):
    """Or is a directory, or holds no corpus."""
    for read in (read_queries, read_qrels, read_run):
        with pytest.raises(InvalidInputError, match="cannot be read: No such file"):
            read(tmp_path / "none")
        with pytest.raises(InvalidInputError, match="cannot be read: Is a directory"):
            read(tmp_path)
    with pytest.raises(InvalidInputError, match="neither a file nor a folder"):
        read_corpus(tmp_path / "none")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InvalidInputError, match=r"holds no corpus.jsonl .* but notes.txt"):
        read_corpus(tmp_path)


def test_no_overlap_names_both_files():
    """With an id of each, so that the mistake shows."""
    require_overlap({"1": 0}, {"1": 0, "2": 0}, found_in="run", qrels_in="qrels")
    with pytest.raises(InvalidInputError, match="run.txt and q.tsv .* 'x1', of the other '1'"):
        require_overlap(["x1"], ["1"], found_in="run.txt", qrels_in="q.tsv")


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text("qß1", min_size=1, max_size=3),
        st.dictionaries(
            st.text("dé2", min_size=1, max_size=3),
            st.sampled_from([0.0, 0.5, 0.5 + 1e-12, -3.25, 1e-30, 7e8]),
            min_size=1,
        ),
        min_size=1,
    ),
    st.sampled_from(["run.txt", "run.txt.gz"]),
)
def test_a_written_run_reads_back_in_its_order(tmp_path_factory, run, name):
    """By us and by ir-measures, in single precision too: no score ties with its neighbour."""
    run = {q: dict(sorted(found.items(), key=lambda i: -i[1])) for q, found in run.items()}
    path = tmp_path_factory.mktemp("run") / name
    write_run(path, run)
    back = read_run(path)
    assert {q: list(found) for q, found in back.items()} == {q: list(f) for q, f in run.items()}
    for query, found in back.items():
        scores = np.array(list(found.values()), dtype=np.float32)
        assert (np.diff(scores) < 0).all()
        np.testing.assert_allclose(scores, list(run[query].values()), rtol=1e-5, atol=1e-30)
    if name.endswith(".txt"):
        theirs = {(d.query_id, d.doc_id) for d in ir_measures.read_trec_run(str(path))}
        assert theirs == {(q, d) for q, found in run.items() for d in found}


@pytest.mark.parametrize("identifier", ["two words", "", "tab\t", "line\n"])
def test_an_id_that_trec_cannot_hold_writes_nothing(tmp_path, identifier):
    """White space would shift the columns."""
    with pytest.raises(InvalidInputError, match="cannot stand in a TREC run"):
        write_run(tmp_path / "run.txt", {"1": {"a": 1.0, identifier: 0.5}})
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    """What was there before stays; nothing is left beside it."""
    path = tmp_path / "new" / "file.json"
    with atomic_text(path) as file:
        file.write(json.dumps({"a": "ß"}))
    with pytest.raises(ZeroDivisionError), atomic_text(path) as file:
        file.write(str(1 / 0))
    assert json.loads(path.read_text("utf-8")) == {"a": "ß"}
    assert [item.name for item in path.parent.iterdir()] == ["file.json"]
    with pytest.raises(InvalidInputError, match="cannot be written"), atomic_text(path / "x"):
        pass
