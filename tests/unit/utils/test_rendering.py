"""Tables and JSON: what is shown of what comes from elsewhere."""

import io
import json
import math

import pytest
from rich.console import Console

from qdrant_rerank.utils.rendering import Column, Table, html_tables, json_text, rich_table

EVIL = "\x1b[2J\x9b2J\u202e[bold]<b>"


def printed(table, width=80):
    """The table in a terminal of that width."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(rich_table(table))
    return console.file.getvalue()


def test_no_text_of_a_table_is_markup_or_drives_a_terminal():
    """In a heading, a cell, the title or the caption."""
    table = Table(
        (Column(f"a{EVIL}"), "n"), [(f"b{EVIL}", "1")], title=f"c{EVIL}", caption=f"d{EVIL}"
    )
    shown = printed(table)
    assert all(f"{letter} [2J 2J[bold]<b>" in shown for letter in "abcd")
    assert "<b>" not in html_tables([table], EVIL)


@pytest.mark.parametrize("width", [40, 80])
def test_words_are_never_cut(width):
    """However long they are; a line is, with an ellipsis."""
    word = "https://example.org/" + "q" * 100
    shown = printed(Table((Column("fix"), Column("text", "line")), [(word, "y" * 200)]), width)
    assert max(map(len, shown.splitlines())) <= width
    assert "".join(shown.split()).count("q") == 100
    assert "…" in shown


def test_json_is_json_and_drives_no_terminal():
    """NaN and infinity are null; what is escaped is read back as it was."""
    content = {"a": [math.nan, (math.inf, -math.inf, 1.5)], "text": f"é鉄{EVIL}\x7f\ud800"}
    text = json_text(content)
    assert "é鉄" in text
    assert not set("\x1b\x9b\x7f\u202e\ud800") & set(text)
    read = json.loads(text)
    assert read == {"a": [None, [None, None, 1.5]], "text": content["text"]}
