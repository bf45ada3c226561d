"""A comparison in the terminal: a summary, the queries that changed most, then all of them.

Texts are rich ``Text`` throughout, so that nothing in them is read as markup.
"""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qdrant_rerank.evaluation.comparison_result import (
    ComparedHit,
    ComparedQuery,
    ComparisonResult,
    shortened,
)

__all__ = ["tables"]

IN_FULL = 3  # queries whose lists are shown
LISTED = 20  # queries in the table of all
LONGEST_CELL = 200  # characters; rich cuts further to the width of the terminal


def tables(comparison: ComparisonResult) -> Group:
    """What ``Console().print(comparison)`` shows."""
    changed = [query for query in comparison.by_change() if not query.same]
    parts: list[RenderableType] = [summary(comparison)]
    parts += [side_by_side(comparison, query) for query in changed[:IN_FULL]]
    parts.append(every_query(comparison))
    return Group(*parts)


def summary(comparison: ComparisonResult) -> Table:
    """The configurations and the means."""
    count = len(comparison.queries)
    candidates = " and ".join(str(depth) for depth in dict.fromkeys(comparison.candidates))
    table = Table.grid(padding=(0, 2))
    table.add_row("first", Text(comparison.names[0], style="bold"))
    table.add_row("second", Text(comparison.names[1], style="bold"))
    table.add_row("queries", f"{count:,}, {comparison.limit} hits each, of {candidates} candidates")
    table.add_row(f"overlap@{comparison.limit}", f"{comparison.mean_overlap:.2f}")
    table.add_row("rank-biased overlap", f"{comparison.mean_rbo:.2f}")
    table.add_row("new first hit", f"{comparison.new_first_hits:,} of {count:,}")
    table.add_row("unchanged", f"{comparison.unchanged:,} of {count:,}")
    return table


def side_by_side(comparison: ComparisonResult, query: ComparedQuery) -> Table:
    """Both lists of a query, with where each hit went and where it came from."""
    table = Table(
        title=Text.assemble("\n", (query.query, "bold")),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        expand=True,
        pad_edge=False,
    )
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column(Text(comparison.names[0]), ratio=1, no_wrap=True)
    table.add_column("now", justify="right", no_wrap=True)
    table.add_column(Text(comparison.names[1]), ratio=1, no_wrap=True)
    table.add_column("was", justify="right", no_wrap=True)
    for row in range(max(len(query.first), len(query.second))):
        before = query.first[row] if row < len(query.first) else None
        after = query.second[row] if row < len(query.second) else None
        table.add_row(
            str(row + 1),
            Text() if before is None else cell(before),
            Text() if before is None else went(before, comparison.limit),
            Text() if after is None else cell(after),
            Text() if after is None else came(after),
        )
    return table


def every_query(comparison: ComparisonResult) -> Table:
    """A line a query, those that changed most first, with the furthest move of each."""
    ordered = comparison.by_change()
    moves = {id(query): hit for query, hit in comparison.biggest_moves(len(ordered))}
    left = len(ordered) - LISTED
    table = Table(
        title="\nQueries, most changed first",
        title_justify="left",
        title_style="bold",
        caption=f"and {left:,} more" if left > 0 else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        expand=True,
        pad_edge=False,
    )
    table.add_column(f"@{comparison.limit}", justify="right", no_wrap=True)
    table.add_column("rbo", justify="right", no_wrap=True)
    table.add_column("query", ratio=1, no_wrap=True)
    table.add_column("was", justify="right", no_wrap=True)
    table.add_column("now", justify="right", no_wrap=True)
    table.add_column("furthest move", ratio=1, no_wrap=True)
    for query in ordered[:LISTED]:
        hit = moves.get(id(query))
        table.add_row(
            f"{query.overlap:.2f}",
            f"{query.rbo:.2f}",
            Text(shortened(query.query, LONGEST_CELL)),
            "" if hit is None else place(hit.first_rank),
            "" if hit is None else place(hit.second_rank),
            Text() if hit is None else cell(hit),
        )
    return table


def cell(hit: ComparedHit) -> Text:
    """The opening of a hit's text, or its id."""
    return Text(shortened(hit.text, LONGEST_CELL) or f"{hit.id} (no text)")


def went(hit: ComparedHit, limit: int) -> Text:
    """Where a hit of the first list stands in the second."""
    out = hit.second_rank is None or hit.second_rank > limit
    return Text(place(hit.second_rank), style="red" if out else "dim")


def came(hit: ComparedHit) -> Text:
    """Where a hit of the second list stood in the first, and how far it moved."""
    if hit.rise is None:
        return Text("new", style="green")
    if hit.rise == 0:
        return Text(f"{hit.first_rank} =", style="dim")
    arrow, style = ("▲", "green") if hit.rise > 0 else ("▼", "red")
    return Text(f"{hit.first_rank} {arrow}{abs(hit.rise)}", style=style)


def place(rank: int | None) -> str:
    """A rank, or a dash for what was not recalled."""
    return "–" if rank is None else str(rank)  # noqa: RUF001
