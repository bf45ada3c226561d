"""A comparison in a terminal: a summary, the queries that changed most, then all of them."""

from rich.console import Group, RenderableType
from rich.text import Text

from qdrant_rerank.evaluation.comparison_result import ComparedHit, ComparedQuery, ComparisonResult
from qdrant_rerank.utils.rendering import Column, Table, move, rich_table
from qdrant_rerank.utils.terminal import shortened

__all__ = ["tables"]

IN_FULL = 3  # queries whose lists are shown
LISTED = 20  # queries in the table of all
LONGEST_CELL = 200  # characters; rich cuts further to the width of the terminal


def tables(comparison: ComparisonResult) -> Group:
    """Return what ``Console().print(comparison)`` shows."""
    changed = [query for query in comparison.by_change() if not query.same]
    parts: list[RenderableType] = [summary(comparison)]
    for query in changed[:IN_FULL]:
        parts += ["", rich_table(side_by_side(comparison, query))]
    return Group(*parts, "", rich_table(every_query(comparison)))


def summary(comparison: ComparisonResult) -> Text:
    """Show the names of the configurations and the means."""
    count = len(comparison.queries)
    candidates = " and ".join(str(depth) for depth in dict.fromkeys(comparison.candidates))
    lines = {
        "first": comparison.names[0],
        "second": comparison.names[1],
        "queries": f"{count:,}, {comparison.limit} hits each, of {candidates} candidates",
        f"overlap@{comparison.limit}": f"{comparison.mean_overlap:.2f}",
        "rank-biased overlap": f"{comparison.mean_rbo:.2f}",
        "new first hit": f"{comparison.new_first_hits:,} of {count:,}",
        "unchanged": f"{comparison.unchanged:,} of {count:,}",
    }
    return Text("\n".join(f"{label:<21}{value}" for label, value in lines.items()))


def side_by_side(comparison: ComparisonResult, query: ComparedQuery) -> Table:
    """Set both lists of a query side by side, with where each hit went and where it came from."""
    first, second = comparison.names
    rows = []
    for row in range(max(len(query.first), len(query.second))):
        cells: list[str | Text] = [str(row + 1)]
        if row < len(query.first):
            hit = query.first[row]
            out = hit.second_rank is None or hit.second_rank > comparison.limit
            cells += [opening(hit), Text(rank(hit.second_rank), "red" if out else "dim")]
        else:
            cells += ["", ""]
        if row < len(query.second):
            cells += [opening(query.second[row]), came(query.second[row])]
        rows.append(cells)
    columns = ("#", Column(first, "line"), "now", Column(second, "line"), "was")
    return Table(columns, rows, title=query.query)


def every_query(comparison: ComparisonResult) -> Table:
    """List the queries, the most changed first, with the furthest move of each."""
    ordered = comparison.by_change()
    moves = {id(query): hit for query, hit in comparison.biggest_moves(len(ordered))}
    rows = []
    for query in ordered[:LISTED]:
        hit = moves.get(id(query))
        moved = (rank(hit.first_rank), rank(hit.second_rank), opening(hit)) if hit else ()
        name = shortened(query.query, LONGEST_CELL)
        rows.append((f"{query.overlap:.2f}", f"{query.rbo:.2f}", name, *moved))
    more = len(ordered) - LISTED
    return Table(
        (
            f"@{comparison.limit}",
            "rbo",
            Column("query", "line"),
            "was",
            "now",
            Column("furthest move", "line"),
        ),
        rows,
        title="Queries, most changed first",
        caption=f"and {more:,} more" if more > 0 else "",
    )


def opening(hit: ComparedHit) -> str:
    """Return the opening of a hit's text, or its id."""
    return shortened(hit.shown, LONGEST_CELL)


def came(hit: ComparedHit) -> Text:
    """Show where a hit of the second list was in the first, and how far it moved."""
    if hit.first_rank is None or hit.second_rank is None:
        return Text("new", style="green")
    return move(hit.first_rank, hit.second_rank)


def rank(value: int | None) -> str:
    """Write a rank, or a dash for a hit that was not retrieved."""
    return "–" if value is None else str(value)  # noqa: RUF001
