"""Results as a table in a terminal, as an HTML table, and as JSON: one renderer for each.

No text is read as markup, neither rich's nor HTML's, and no text can drive a terminal.
"""

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from qdrant_rerank.utils.atomic_files import atomic_text
from qdrant_rerank.utils.terminal import inert

__all__ = [
    "Column",
    "Table",
    "html_tables",
    "json_text",
    "move",
    "rich_table",
    "write_json",
]

#: What could drive a terminal or reorder a line, of what JSON allows inside a string.
UNESCAPED = re.compile("[\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        heading: its heading.
        kind: "number" (right-aligned, never cut), "name" (never cut), "line" (takes the width that
            is left; cut at its end) or "words" (as many lines as it needs).
        narrowest: least characters of a column of words.
    """

    heading: str
    kind: Literal["number", "name", "line", "words"] = "words"
    narrowest: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table before it is rendered.

    Attributes:
        columns: the columns; a heading alone is a column of numbers.
        rows: the cells of each row; a row of one cell is a heading.
        title: a line above the table; "" for none.
        caption: a line below the table; "" for none.
        strong: index of a row in bold; None for none.
        gap: spaces between two columns, 1 or more.
        rule: whether a line is drawn below the headings.
    """

    columns: Sequence[Column | str]
    rows: Sequence[Sequence[str | Text]]
    title: str = ""
    caption: str = ""
    strong: int | None = None
    gap: int = 3
    rule: bool = True


def rich_table(table: Table) -> RichTable:
    """Render a table for a terminal of any width."""
    columns = [Column(c, "number") if isinstance(c, str) else c for c in table.columns]
    rendered = RichTable(
        title=Text(inert(table.title), "bold") if table.title else None,
        title_justify="left",
        caption=Text(inert(table.caption), "dim") if table.caption else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD if table.rule else None,
        pad_edge=table.rule,
        padding=(0, (table.gap - 1) // 2) if table.rule else (0, table.gap, 0, 0),
        expand=any(column.kind == "line" for column in columns),
    )
    for column in columns:
        rendered.add_column(
            Text(inert(column.heading)),
            justify="right" if column.kind == "number" else "left",
            no_wrap=column.kind != "words",
            overflow="fold" if column.kind == "words" else "ellipsis",
            ratio=1 if column.kind == "line" else None,
            min_width=column.narrowest,
        )
    for number, row in enumerate(table.rows):
        heading = len(row) == 1
        if number and heading:
            rendered.add_row()
        style = "bold" if heading or number == table.strong else ""
        rendered.add_row(
            *(Text(inert(cell)) if isinstance(cell, str) else cell for cell in row), style=style
        )
    return rendered


def html_tables(tables: Sequence[Table], note: str) -> str:
    """Render tables for a notebook, with a paragraph below them."""
    rendered = []
    for table in tables:
        headings = (c if isinstance(c, str) else c.heading for c in table.columns)
        head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
            for row in table.rows
        )
        rendered.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    return f"{''.join(rendered)}<p>{html.escape(note)}</p>"


def json_text(content: Any, indent: int = 2) -> str:
    """Render JSON, with the characters of all languages as they are.

    NaN and infinity, which JSON does not have, become null. What could drive a terminal is escaped,
    which changes nothing for a reader of JSON.
    """
    try:
        text = json.dumps(content, ensure_ascii=False, indent=indent, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(content), ensure_ascii=False, indent=indent)
    return UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
        InvalidInputError: the path cannot be written.
    """
    with atomic_text(path) as file:
        file.write(json_text(content, indent=1))


def move(before: int, after: int) -> Text:
    """Show a hit's old rank, and how many places it rose or fell from there.

    >>> move(5, 2).plain, move(1, 1).plain
    ('5 ▲3', '1 =')
    """
    rise = before - after
    if not rise:
        return Text(f"{before} =", style="dim")
    arrow, style = ("▲", "green") if rise > 0 else ("▼", "red")
    return Text(f"{before} {arrow}{abs(rise)}", style=style)
