"""What several things may be given as."""

import pandas as pd
import pytest

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.validation import require_several


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
