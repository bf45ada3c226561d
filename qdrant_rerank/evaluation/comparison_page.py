"""A comparison as HTML: one page that needs nothing else, and an excerpt for notebooks.

Each text is escaped where it enters a template. The page's Content-Security-Policy forbids loading
anything and running any script but its own, so that a mistake here would do no harm.
"""

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from string import Template

from qdrant_rerank.evaluation.comparison_result import ComparedHit, ComparedQuery, ComparisonResult

__all__ = ["excerpt", "page"]

OPEN = 3  # queries that are open at first
EXCERPT = 5  # queries shown in a notebook
MOVES = 5  # biggest moves shown

PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-$script_hash'">
<title>$first → $second</title>
<style>$style body { margin: 0; }</style>
</head>
<body>
<main class="qr-compare">
$summary
<input type="search" placeholder="Filter queries and texts" aria-label="Filter">
$queries
</main>
<script>$script</script>
</body>
</html>
""")

EXCERPT_PAGE = Template("""\
<style>$style</style>
<div class="qr-compare">
$summary
$queries
<p class="note">$note</p>
</div>
""")

SUMMARY = Template("""\
<h1><span dir="auto">$first</span> <span class="to">→</span> <span dir="auto">$second</span></h1>
<p class="note">$count, $limit hits each, $candidates candidates. Most changed first.</p>
<dl class="figures">
<div><dt>overlap@$limit</dt><dd>$overlap</dd></div>
<div><dt>rank-biased overlap</dt><dd>$rbo</dd></div>
<div><dt>new first hit</dt><dd>$new_first <small>of $total</small></dd></div>
<div><dt>unchanged</dt><dd>$unchanged <small>of $total</small></dd></div>
</dl>
$moves
""")

MOVES_LIST = Template("""\
<h2>Biggest moves</h2>
<ol class="moves">
$rows
</ol>
""")

MOVE = Template("""\
<li><span class="mark $way">$was → $now</span>
<span class="text" dir="auto">$text</span>
<span class="asked" dir="auto">$query</span></li>""")

QUERY = Template("""\
<details class="query"$open>
<summary><b dir="auto">$query</b>
<span class="note">$overlap shared · rbo $rbo$new_first</span></summary>
<div class="lists">
<section><h3 dir="auto">$first</h3>
<ol class="hits">
$before
</ol></section>
<svg viewBox="0 0 100 $rows" preserveAspectRatio="none" style="--rows: $rows" aria-hidden="true">
$lines
</svg>
<section><h3 dir="auto">$second</h3>
<ol class="hits">
$after
</ol></section>
</div>
</details>
""")

HIT = Template("""\
<li title="$id"><span class="rank">$rank</span>\
<span class="text" dir="auto">$text</span><span class="mark $way">$mark</span></li>""")

LINE = Template('<path class="$way" d="M$x1,$y1 C$bend1,$y1 $bend2,$y2 $x2,$y2"/>')

SCRIPT = """
const box = document.querySelector("input[type=search]");
box.addEventListener("input", () => {
  const wanted = box.value.trim().toLowerCase();
  for (const query of document.querySelectorAll("details.query"))
    query.hidden = !query.textContent.toLowerCase().includes(wanted);
});
"""

# Everything under .qr-compare, so that an excerpt leaves the rest of a notebook alone (lists have a
# class, or Jupyter's own rule would win). Rows have one height, so that the lines between the lists
# meet them; on a phone the lists are stacked.
STYLE = """
.qr-compare { --paper: #fff; --ink: #1c2024; --dim: #667079; --rule: #dfe3e7; --card: #f5f7f9;
  --up: #0b66c3; --down: #b4540a; --row: 3.6em; color-scheme: light dark;
  background: var(--paper); color: var(--ink); max-width: 70em; margin: auto; padding: 1.2em;
  font: 15px/1.4 system-ui, sans-serif; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
  html:has(> body > main.qr-compare) { background: #15181b; }
  .qr-compare { --paper: #15181b; --ink: #e4e7ea; --dim: #98a2ab; --rule: #31373d; --card: #1e2327;
    --up: #6cb2f7; --down: #f0a35e; } }
.qr-compare * { box-sizing: border-box; }
.qr-compare h1 { font-size: 1.5em; line-height: 1.25; margin: 0; }
.qr-compare h2 { font-size: 1.05em; margin: 1.4em 0 .4em; }
.qr-compare h3 { font-size: .85em; margin: 0 0 .4em; color: var(--dim); font-weight: 600; }
.qr-compare .to, .qr-compare .note, .qr-compare small, .qr-compare .asked { color: var(--dim); }
.qr-compare .note { font-size: .9em; font-weight: 400; margin: .3em 0; }
.qr-compare .figures { display: grid; grid-template-columns: repeat(4, 1fr); gap: .7em;
  margin: 1em 0; }
.qr-compare .figures div { background: var(--card); border-radius: .5em; padding: .6em .8em; }
.qr-compare dt { font-size: .85em; color: var(--dim); font-weight: 400; }
.qr-compare dd { font-size: 1.6em; font-weight: 600; margin: 0;
  font-variant-numeric: tabular-nums; }
.qr-compare small { font-size: .6em; font-weight: 400; }
.qr-compare ol.hits, .qr-compare ol.moves { list-style: none; margin: 0; padding: 0; }
.qr-compare .moves li { display: grid; grid-template-columns: 4.5em 1fr; column-gap: .7em;
  align-items: baseline; padding: .35em 0; margin: 0; border-top: 1px solid var(--rule); }
.qr-compare .moves .mark { text-align: start; }
.qr-compare .asked { grid-column: 2; font-size: .9em; }
.qr-compare .moves .text { -webkit-line-clamp: 1; }
.qr-compare input { width: 100%; font: inherit; padding: .5em .8em; margin: 1.4em 0 .6em;
  border: 1px solid var(--rule); border-radius: .5em; background: var(--card);
  color: var(--ink); }
.qr-compare details { border-top: 1px solid var(--rule); padding: .7em 0; }
.qr-compare summary { cursor: pointer; }
.qr-compare summary .note { margin-inline-start: .6em; white-space: nowrap; }
.qr-compare .lists { display: grid; grid-template-columns: 1fr 4em 1fr;
  column-gap: .5em; margin-top: .8em; }
.qr-compare section { min-width: 0; }
.qr-compare svg { width: 100%; height: calc(var(--row) * var(--rows)); align-self: end; }
.qr-compare path { fill: none; stroke: var(--dim); stroke-width: 1.5; opacity: .55;
  vector-effect: non-scaling-stroke; }
.qr-compare path.up { stroke: var(--up); opacity: 1; }
.qr-compare path.down { stroke: var(--down); opacity: .8; }
.qr-compare path.out { stroke-dasharray: 3 3; }
.qr-compare section li { display: flex; align-items: center; gap: .6em; height: var(--row);
  margin: 0; border-top: 1px solid var(--rule); }
.qr-compare .rank { flex: none; width: 1.4em; text-align: end; color: var(--dim);
  font-variant-numeric: tabular-nums; }
.qr-compare .text { flex: 1; min-width: 0; display: -webkit-box; -webkit-box-orient: vertical;
  -webkit-line-clamp: 2; overflow: hidden; text-align: start; }
.qr-compare section .text { font-size: .92em; line-height: 1.35; }
.qr-compare .mark { flex: none; min-width: 3.9em; text-align: end; font-size: .85em;
  color: var(--dim); white-space: nowrap; font-variant-numeric: tabular-nums; }
.qr-compare .mark.up { color: var(--up); }
.qr-compare .mark.down { color: var(--down); }
@media (max-width: 40em) {
  .qr-compare { padding: .9em; }
  .qr-compare .figures { grid-template-columns: 1fr 1fr; }
  .qr-compare .lists { grid-template-columns: 1fr; gap: 1em; }
  .qr-compare svg { display: none; }
  .qr-compare summary .note { display: block; margin-inline-start: 0; } }
"""


def page(comparison: ComparisonResult) -> str:
    """Return a whole page with all queries, the most changed first."""
    digest = hashlib.sha256(SCRIPT.encode()).digest()
    return PAGE.substitute(
        first=escape(comparison.names[0]),
        second=escape(comparison.names[1]),
        style=STYLE,
        script=SCRIPT,
        script_hash=base64.b64encode(digest).decode(),
        summary=summary(comparison),
        queries=queries(comparison, comparison.by_change(), unfolded=OPEN),
    )


def excerpt(comparison: ComparisonResult) -> str:
    """Return the summary and the queries that changed most."""
    ordered = comparison.by_change()
    more = len(ordered) - EXCERPT
    return EXCERPT_PAGE.substitute(
        style=STYLE,
        summary=summary(comparison),
        queries=queries(comparison, ordered[:EXCERPT], unfolded=1),
        note=f"and {more:,} more; save_html(path) writes them all" if more > 0 else "",
    )


def summary(comparison: ComparisonResult) -> str:
    """Return the figures and the biggest moves."""
    rows = [
        MOVE.substitute(
            way=direction(hit),
            was=place(hit.first_rank),
            now=place(hit.second_rank),
            text=escape(hit.shown),
            query=escape(query.query),
        )
        for query, hit in comparison.biggest_moves(MOVES)
    ]
    count = len(comparison.queries)
    return SUMMARY.substitute(
        first=escape(comparison.names[0]),
        second=escape(comparison.names[1]),
        count="1 query" if count == 1 else f"{count:,} queries",
        total=f"{count:,}",
        limit=comparison.limit,
        candidates=" and ".join(str(n) for n in dict.fromkeys(comparison.candidates)),
        overlap=f"{comparison.mean_overlap:.2f}",
        rbo=f"{comparison.mean_rbo:.2f}",
        new_first=f"{comparison.new_first_hits:,}",
        unchanged=f"{comparison.unchanged:,}",
        moves=MOVES_LIST.substitute(rows="\n".join(rows)) if rows else "",
    )


def queries(comparison: ComparisonResult, shown: Iterable[ComparedQuery], *, unfolded: int) -> str:
    """Return one section per query, with both lists and the lines between them."""
    return "\n".join(
        QUERY.substitute(
            open=" open" if at < unfolded else "",
            query=escape(query.query),
            overlap=f"{query.overlap:.0%}",
            rbo=f"{query.rbo:.2f}",
            new_first=" · new first hit" if query.new_first_hit else "",
            first=escape(comparison.names[0]),
            second=escape(comparison.names[1]),
            rows=max(len(query.first), len(query.second), 1),
            before="\n".join(row(hit, at, went(hit)) for at, hit in enumerate(query.first, 1)),
            after="\n".join(row(hit, at, came(hit)) for at, hit in enumerate(query.second, 1)),
            lines="\n".join(line(hit, comparison.limit) for hit in query.hits),
        )
        for at, query in enumerate(shown)
    )


def row(hit: ComparedHit, rank: int, mark: str) -> str:
    """Return a hit in one of the lists."""
    return HIT.substitute(
        id=escape(str(hit.id)), rank=rank, text=escape(hit.shown), way=direction(hit), mark=mark
    )


def line(hit: ComparedHit, limit: int) -> str:
    """Draw a line between the two rows of a hit; a stub if it has only one."""
    left, right = (
        rank if rank is not None and rank <= limit else None
        for rank in (hit.first_rank, hit.second_rank)
    )
    x1, y1 = (0, left - 0.5) if left is not None else (70, (right or 1) - 0.5)
    x2, y2 = (100, right - 0.5) if right is not None else (30, (left or 1) - 0.5)
    stub = left is None or right is None
    return LINE.substitute(
        way=f"{direction(hit)} out" if stub else direction(hit),
        **{"x1": x1, "x2": x2, "y1": y1, "y2": y2},
        bend1=(x1 + x2) / 2,
        bend2=(x1 + x2) / 2,
    )


def direction(hit: ComparedHit) -> str:
    """Return the class of a hit: up, down or same. A new hit is up, one that left is down."""
    if hit.rise is None:
        return "up" if hit.first_rank is None else "down"
    if hit.rise == 0:
        return "same"
    return "up" if hit.rise > 0 else "down"


def went(hit: ComparedHit) -> str:
    """Write where a hit of the first list is in the second."""
    return "=" if hit.rise == 0 else f"→ {place(hit.second_rank)}"


def came(hit: ComparedHit) -> str:
    """Write where a hit of the second list was in the first."""
    if hit.rise == 0:
        return "="
    if hit.first_rank is None:
        return "▲ new"
    return f"{'▲' if direction(hit) == 'up' else '▼'} was {hit.first_rank}"


def place(rank: int | None) -> str:
    """Write a rank, or "out" for a hit that was not retrieved."""
    return "out" if rank is None else str(rank)
