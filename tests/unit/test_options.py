"""What may be said of a search."""

from dataclasses import replace

import pytest

from qdrant_rerank import SearchOptions
from qdrant_rerank.errors import InvalidInputError


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ({"retries": -1}, "retries is -1; expected a whole number of 0 or more"),
        ({"blend": 2}, "blend is 2; expected the retrieval score's share"),
        ({"fusion": "sum"}, "fusion is 'sum'"),
        ({"diversity": 2}, "diversity is 2; expected 0 to 1"),
        ({"on_missing_text": "skip"}, "on_missing_text is 'skip'; expected one of 'raise'"),
    ],
)
def test_a_wrong_value_is_refused_at_once(values, seen):
    """When it is said, and when it is changed, not when it is used."""
    with pytest.raises(InvalidInputError, match=seen):
        SearchOptions(**values)
    with pytest.raises(InvalidInputError, match=seen):
        replace(SearchOptions(retries=0), **values)
