"""What several things may be given as."""

import pandas as pd
import pytest

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.validation import (
    require_choice,
    require_count,
    require_number,
    require_positive,
    require_several,
)


@pytest.mark.parametrize("one", ["a text", b"bytes", {"text": "a document"}, 3, None])
def test_one_thing_is_not_several(one):
    """Letters, bytes and keys would be taken for them."""
    with pytest.raises(InvalidInputError, match=r"is one .*; expected several\. Pass \[document\]"):
        require_several("documents", one)


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
