"""The groups of a point."""

import pytest
from qdrant_client import models

from qdrant_rerank.payload import group_ids, lookup_ids


@pytest.mark.parametrize(
    ("payload", "ids"),
    [
        ({"tags": [{"id": 1}, {"id": 2}, {"id": 1}]}, [1, 2]),
        ({"tags": [{"id": 1}, {"id": True}]}, []),
        ({"tags": []}, []),
        (None, []),
    ],
)
def test_paths_reach_into_arrays(payload, ids):
    """As in Qdrant's filters."""
    assert group_ids(payload, "tags[].id") == ids


def test_only_what_can_be_an_id_is_looked_up():
    """A group with another name has no point of its own."""
    groups = [
        models.PointGroup(id=value, hits=[])
        for value in (3, -1, "abc", "936DA01F9ABD4d9d80C702AF85C822A8")
    ]
    assert lookup_ids(groups) == {
        3: 3,
        "936DA01F9ABD4d9d80C702AF85C822A8": "936da01f-9abd-4d9d-80c7-02af85c822a8",
    }
