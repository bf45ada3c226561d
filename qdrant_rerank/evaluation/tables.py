"""A table of cells -> a terminal's and a notebook's; nothing in a cell is read as markup."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

__all__ = ["Block", "html_table", "rich_table"]


@dataclass(frozen=True, slots=True)
class Block:
    """A table before it is text or HTML.

    Attributes:
        columns: headings.
        rows: cells; a row of one cell is a heading.
        names: number of the column with names, which is folded where it is too long.
        narrowest: characters that this column has at least.
        strong: number of a row that is set in bold; None for none.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 0
    narrowest: int = 8
    strong: int | None = None


def rich_table(block: Block) -> Table:
    """For a terminal; fits 80 columns if the names do."""
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for number, column in enumerate(block.columns):
        if number == block.names:
            table.add_column(column, overflow="fold", min_width=block.narrowest)
        else:
            table.add_column(column, justify="right", no_wrap=True)
    for number, row in enumerate(block.rows):
        heading = len(row) == 1
        if number and heading:
            table.add_row()
        style = "bold" if heading or number == block.strong else ""
        table.add_row(*(Text(cell, style) for cell in row))
    return table


def html_table(block: Block) -> str:
    """For a notebook."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in block.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in block.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
