"""Fill a model card's tables with what the benchmark measured.

    python benchmarks/second_stage.py DATA_DIR --reranker MODEL --out RESULTS.json
    python -m benchmarks.probes --reranker MODEL --data DATA_DIR --out PROBES.json
    python training/card.py RESULTS.json training/cards/NAME.md MODEL_DIR/README.md [PROBES.json]

A template's ``$results`` becomes the table of RESULTS.json, one row per set, and ``$probes`` that
of PROBES.json. With ``second_stage.py --baseline`` the table has the bi-encoder inside as well.
"""

import argparse
import json
from pathlib import Path
from string import Template
from typing import Any

from arguments import existing_path

NAMES = {
    "dl19": "TREC DL 2019 passages, BM25's 100 candidates",
    "wikiqa_test": "WikiQA test pools, in the order of the file before",
    "scifact": "SciFact, candidates of the default first stage",
    "cranfield": "Cranfield, candidates of the default first stage",
    "med": "MED, candidates of the default first stage",
    "musique_mini": "MuSiQue, a sample, candidates of the default first stage",
    "cacm": "CACM, candidates of the default first stage",
    "stdlib questions": "163 questions about Python's standard library (`make questions`)",
}


def main() -> None:
    """Write the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("results", "template"):
        parser.add_argument(name, type=existing_path)
    parser.add_argument("card", type=Path)
    parser.add_argument("probes", type=existing_path, nargs="?")
    given = parser.parse_args()
    [measured] = json.loads(given.results.read_text()).values()
    values = {"results": table(measured)}
    if given.probes:
        [probed] = json.loads(given.probes.read_text()).values()
        values["probes"] = probes_table(probed)
    text = Template(given.template.read_text()).substitute(values)
    given.card.write_text(text)
    print(f"wrote {given.card}")


def table(measured: dict[str, dict[str, Any]]) -> str:
    """Markdown: one row per set, with the 95 % interval of the gain."""
    head = "| set | measure | queries | before | after | gain, 95 % | p | best possible |"
    inside = any("bi-encoder" in row for row in measured.values())
    head += " bi-encoder inside | gain over it, 95 % |" * inside
    rows = [head, "|" + "---|" * (head.count("|") - 1)]
    for name, row in measured.items():
        before, after = f"{row['before']:.3f}", f"{row['after']:.3f}"
        before, after = (f"**{before}**", after) if before > after else (before, f"**{after}**")
        p = row.get("p", "")
        p = f"{p:.4f}" if isinstance(p, float) else p
        rows.append(
            f"| {NAMES.get(name, name)} | {row['measure']} | {row['queries']} | {before} | {after} "
            f"| {interval(row['gain'], row)} | {p} "
            f"| {row['best']:.3f} |" + over_bi_encoder(row) * inside
        )
    return "\n".join(rows)


def interval(gain: float, row: dict[str, Any]) -> str:
    """A gain, and its interval where it was measured."""
    return f"{gain:+.3f}" + (f" ({row['low']:+.3f} to {row['high']:+.3f})" if "low" in row else "")


def over_bi_encoder(row: dict[str, Any]) -> str:
    """The last two columns."""
    if "bi-encoder" not in row:
        return " | |"
    over = row.get("over bi-encoder", {})
    return f" {row['bi-encoder']:.3f} | {interval(row['after'] - row['bi-encoder'], over)} |"


def probes_table(probed: dict[str, dict[str, float]]) -> str:
    """Markdown: the share of minimal pairs in the right order by kind, then the echoes."""
    rows = ["| `benchmarks/probes` | share |", "|---|---|"]
    for values in probed.values():
        rows += [f"| {kind} | {value:.2f} |" for kind, value in values.items()]
    return "\n".join(rows)


if __name__ == "__main__":
    main()
