"""What several things may be given as."""

import os
from pathlib import Path, PurePath

import pandas as pd
import pytest
from qdrant_client import models

from qdrant_rerank import DocumentStates, StaticEmbedder
from qdrant_rerank.cross_encoder.calibration import Calibrator
from qdrant_rerank.embedders.model2vec import Model2VecEmbedder
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.evaluation import read_corpus, read_qrels, read_queries, read_run
from qdrant_rerank.evaluation.trec import write_run
from qdrant_rerank.utils.validation import (
    require_choice,
    require_count,
    require_number,
    require_positive,
    require_several,
)


@pytest.mark.parametrize(
    "one",
    ["a text", b"bytes", {"text": "a document"}, 3, models.ScoredPoint(id=1, version=0, score=1)],
)
def test_one_thing_is_not_several(one):
    """Letters, bytes and keys would be taken for them."""
    with pytest.raises(InvalidInputError, match=r"is one .*; expected several\. Pass \[document\]"):
        require_several("documents", one)


def test_nothing_and_what_only_a_loop_can_iterate_are_not_several():
    """Neither is advised to be put into a list."""
    with pytest.raises(InvalidInputError, match=r"^documents is None; expected several, such as"):
        require_several("documents", None)

    async def documents():
        yield "iron"

    with pytest.raises(InvalidInputError, match=r"\[document async for document in documents\]"):
        require_several("documents", documents())


def test_rows_of_a_table_of_polars_are_named_as_it_names_them():
    """Its frame has ``to_dicts`` and no ``to_dict('records')``."""

    class Frame:
        columns = ("text",)

        def __iter__(self):
            return iter(())

        def to_dicts(self):
            return []

    with pytest.raises(InvalidInputError, match=r"its rows: df\.to_dicts\(\)\.$"):
        require_several("documents", Frame())


def test_a_table_is_not_several_texts():
    """Its columns and rows are; the names of its columns would be taken."""
    table = pd.DataFrame({"text": ["iron", "rye"]})
    with pytest.raises(InvalidInputError, match=r"documents is a DataFrame.*df\['text'\]"):
        require_several("documents", table)
    for several in (table["text"], table.to_dict("records"), table.text.to_numpy(), iter("ab")):
        require_several("documents", several)


@pytest.mark.parametrize("number", [10**5000, -(10**5000)], ids=["positive", "negative"])
def test_a_number_that_python_does_not_write_is_refused_in_our_words(number):
    """It writes no more than 4,300 digits."""
    for call in (require_positive, require_count):
        with pytest.raises(InvalidInputError, match="limit is a whole number of 16,610 bits"):
            call("limit", number)
    with pytest.raises(InvalidInputError, match="16,610 bits"):
        require_choice("mode", number, None)
    with pytest.raises(InvalidInputError, match="a list that cannot be shown; expected a number"):
        require_number("score", [number], "a number")
    require_positive("limit", 2**63 - 1)
    require_count("offset", 0)
    with pytest.raises(InvalidInputError, match="expected no more than 9223372036854775807"):
        require_positive("limit", 2**63)


@pytest.mark.parametrize("kind", [str, Path, PurePath])
def test_a_path_of_any_kind_is_taken(kind, tmp_path):
    """What ``open`` takes, but for bytes."""
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    assert read_qrels(kind(str(tmp_path / "qrels.tsv"))) == {"q": {"d": 1}}
    [entry] = os.scandir(tmp_path)
    assert read_qrels(entry) == {"q": {"d": 1}}


@pytest.mark.parametrize("path", [None, 5, b"bytes"])
@pytest.mark.parametrize(
    "call",
    [
        lambda path: DocumentStates([]).save(path),
        DocumentStates.load,
        lambda path: Calibrator("platt", slope=1.0, intercept=0.0).save(path),
        Calibrator.load,
        StaticEmbedder.from_directory,
        Model2VecEmbedder.from_directory,
        read_corpus,
        read_qrels,
        read_queries,
        read_run,
        lambda path: write_run(path, {}),
    ],
)
def test_what_is_no_path_is_named(call, path):
    """Before anything is read or written."""
    with pytest.raises(InvalidInputError, match=r"is .*; expected a str or a Path\."):
        call(path)
