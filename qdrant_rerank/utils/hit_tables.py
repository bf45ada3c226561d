"""Rows of hits -> lines of text, an HTML table, or a data frame.

A row is a dict with rank, id, the scores and payload of a hit, maybe its snippet and group.
"""

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qdrant_rerank.errors import MissingDependencyError
from qdrant_rerank.utils.terminal import one_line, shortened

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["data_frame", "hit_lines", "html_table"]

Row = Mapping[str, Any]

COLUMNS = ("rank", "id", "score", "rerank_score", "retrieval_score", "retrieval_rank")
ID_FIELDS = frozenset({"_id", "id"})
LONGEST_LINE = 72  # characters of a text in a line
LONGEST_CELL = 200  # characters of a text in a cell of an HTML table


def hit_lines(rows: Sequence[Row]) -> list[str]:
    """Return one line per hit: group if any, rank, rank before reranking, score, id and text."""
    cells = [
        [
            *([one_line(str(row["group"]))] if "group" in row else []),
            str(row["rank"]),
            f"was {row['retrieval_rank']}",
            _score(row),
            one_line(str(row["id"])),
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([*(c.rjust(w) for c, w in zip(line, widths, strict=True)), _text(row)]).rstrip()
        for line, row in zip(cells, rows, strict=True)
    ]


def _score(row: Row) -> str:
    """Return the score that orders the list; a dash for a hit that was not scored."""
    unscored = row["rerank_score"] is None and row["score"] != row["retrieval_score"]
    return "-" if unscored else f"{row['score']:.3f}"


def _text(row: Row) -> str:
    """Return the snippet, else the longest text of the payload, else the payload."""
    payload = row["payload"] or {}
    texts = [v for k, v in payload.items() if isinstance(v, str) and k not in ID_FIELDS]
    text = row["snippet"]["text"] if "snippet" in row else max(texts, key=len, default="")
    return shortened(one_line(text[: 10 * LONGEST_LINE] or str(payload or "")), LONGEST_LINE)


def html_table(rows: Sequence[Row]) -> str:
    """Return an HTML table with one row per hit. All text is escaped."""
    groups = any("group" in row for row in rows)
    names = [*(["group"] if groups else []), "rank", "was", "score", "recall", "id", "payload"]
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(_html_row(row) for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_row(row: Row) -> str:
    moved = row["retrieval_rank"] - row["rank"]
    arrow = f" {'▲' if moved > 0 else '▼'}{abs(moved)}" if moved and "group" not in row else ""
    lines = [f"<b>{html.escape(str(k))}</b> {_cell(v)}" for k, v in (row["payload"] or {}).items()]
    if "snippet" in row:
        lines.insert(0, f"<mark>{_cell(row['snippet']['text'])}</mark>")
    cells = (
        *([_cell(row["group"])] if "group" in row else []),
        str(row["rank"]),
        f"{row['retrieval_rank']}{arrow}",
        "" if row["rerank_score"] is None else f"{row['rerank_score']:.3f}",
        f"{row['retrieval_score']:.3f}",
        _cell(row["id"]),
        "<br>".join(lines),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _cell(value: Any) -> str:
    return html.escape(shortened(str(value), LONGEST_CELL))


def data_frame(rows: Sequence[Row]) -> "pd.DataFrame":
    """Return a table with one row per hit; payload and snippet have a column per field.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingDependencyError(
            "to_pandas() needs pandas: pip install pandas. to_dicts() works without it."
        ) from error
    made = [
        {name: row[name] for name in ("group", *COLUMNS) if name in row}
        | {f"payload.{field}": value for field, value in (row["payload"] or {}).items()}
        | {f"snippet.{name}": value for name, value in row.get("snippet", {}).items()}
        for row in rows
    ]
    return pd.DataFrame(made, columns=None if made else list(COLUMNS))
