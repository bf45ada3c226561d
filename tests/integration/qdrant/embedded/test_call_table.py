"""The table of the embedded engine's calls in the documentation is what the engine offers.

``python -m tests.integration.qdrant.embedded.test_call_table`` writes it.
"""

import inspect
from contextlib import closing
from pathlib import Path

import pytest
from qdrant_client.client_base import QdrantBase

from qdrant_rerank.qdrant.embedded.client import EmbeddedClient
from qdrant_rerank.qdrant.embedded.engine import EmbeddedEngine
from qdrant_rerank.qdrant.embedded.not_offered import INSTEAD, NotOffered

PAGE = Path(__file__).parents[4] / "docs" / "embedded-calls.md"
TEXT = """# Calls of the embedded engine

The embedded engine offers {offered} of the {total} calls of `QdrantClient`. The other {missing}
raise `NotImplementedError` with what to do instead. Timeouts, consistency, shard keys and `wait`
are ignored. Each call returns when it is done.

A mapping is taken where qdrant-client has a model. NaN, infinity, vectors that do not fit the
collection and ids that are neither integers nor UUIDs are refused before anything is stored.

| call | |
|---|---|
{rows}

`EmbeddedClient` has two more:

| call | |
|---|---|
{own}
"""


def first_line(method):
    """What a method does, in a sentence or two."""
    return inspect.getdoc(method).split("\n\n")[0].replace("\n", " ")


def calls():
    """The calls of a client, each with the method that answers it, or None."""
    names = [
        name for name, _ in inspect.getmembers(QdrantBase, inspect.isfunction) if name[0] != "_"
    ]
    found = {
        name: None
        if getattr(EmbeddedEngine, name) in {getattr(QdrantBase, name), getattr(NotOffered, name)}
        else getattr(EmbeddedEngine, name)
        for name in names
    }
    return {**found, "migrate": EmbeddedClient.migrate}  # made of other calls


def page():
    """The whole page."""
    found = calls()
    rows = [f"| `{name}` | {first_line(method)} |" for name, method in found.items() if method]
    for name, method in found.items():
        if method is None:
            [reason] = {text for part, text in INSTEAD.items() if part in name}
            rows.append(f"| ~~`{name}`~~ | Not offered. {reason} |")
    own = (EmbeddedClient.optimize, EmbeddedClient.recover)
    offered = sum(method is not None for method in found.values())
    return TEXT.format(
        offered=offered,
        total=len(found),
        missing=len(found) - offered,
        rows="\n".join(rows),
        own="\n".join(f"| `{one.__name__}` | {first_line(one)} |" for one in own),
    )


def test_the_page_is_up_to_date():
    """Every call of qdrant-client, offered or not, and why."""
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("name", [name for name, method in calls().items() if method is None])
def test_a_call_that_is_not_offered_says_what_to_do_instead(name):
    """As the page does, by whatever arguments it is called."""
    with closing(EmbeddedClient()) as client:
        given = inspect.signature(getattr(client, name)).parameters.values()
        arguments = ["points" for one in given if one.default is one.empty and one.kind < 2]
        with pytest.raises(NotImplementedError, match=f"not offer {name}") as seen:
            getattr(client, name)(*arguments)
    assert str(seen.value).endswith(tuple(INSTEAD.values()))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
