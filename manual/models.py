"""Tables of models, model cards and benchmarks, rendered from the recorded files."""

import re
from pathlib import Path

from qdrant_rerank.hub.registry import listing, supported_models
from qdrant_rerank.hub.specs import BUNDLED_DIRECTORY

__all__ = ["benchmarks_page", "cards_page", "known_models_page", "quality_rows"]

ROOT = Path(__file__).parents[1]
SIZES = ("fp32", "fp16", "int8")


def known_models_page() -> str:
    """Return Markdown: every model known by name."""
    rows = []
    for item in map(listing, supported_models()):
        sizes = [item["precisions"].get(size, {}).get("size_in_GB") for size in SIZES]
        languages = ", ".join(
            "many" if code == "multilingual" else code for code in item["languages"]
        )
        licence = item["license"] + ("" if item["commercial_use"] else ", **not commercial**")
        cells = [
            f"`{item['model']}`",
            *("" if size is None else f"{size * 1000:,.0f}" for size in sizes),
            f"{item['max_length']:,}" if item["max_length"] else "",
            languages,
            licence,
            item["description"],
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return (
        "# Models known by name\n\nThe list of `qdrant-rerank models`: MB per precision, max "
        "length in tokens, languages, licence. [Choose](../choose.md) compares them; any other "
        "repository with an ONNX file loads as `owner/name`.\n\n"
        f"| model | {' | '.join(SIZES)} | tokens | languages | licence | |\n"
        f"|---{'|---' * (len(SIZES) + 4)}|\n" + "\n".join(rows) + "\n"
    )


def quality_rows() -> list[tuple[str, str, float, float]]:
    """Return set, measure, value before and after reranking, as the default's card has them."""
    card = (BUNDLED_DIRECTORY / "grown-e5-small-v1" / "README.md").read_text("utf-8")
    table = card[card.index("| set | measure |") :]
    rows = []
    for line in table.splitlines()[2:]:
        if not line.startswith("|"):
            break
        name, measure, _, before, after, *_ = (cell.strip(" *") for cell in line.split("|")[1:])
        rows.append(
            (name.partition(",")[0].partition(" (")[0], measure, float(before), float(after))
        )
    return rows


def cards_page() -> str:
    """Return Markdown: the cards of the bundled models."""
    parts = [
        "# Model cards",
        "The models that come with the package, as their folders describe them.",
    ]
    for path in sorted(BUNDLED_DIRECTORY.glob("*/README.md")):
        text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text("utf-8"), flags=re.DOTALL)
        parts.append(_deeper(text.strip()))
    return "\n\n".join(parts) + "\n"


def _deeper(text: str) -> str:
    """Make headings one level lower, outside code."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    parts[::2] = [re.sub(r"^(#+ )", r"#\1", part, flags=re.MULTILINE) for part in parts[::2]]
    return "".join(parts)


def benchmarks_page() -> str:
    """Return Markdown: the record of all benchmarks, with plots before it."""
    record = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    record = record.removeprefix("# Benchmarks\n")
    peers = (ROOT / "benchmarks" / "results" / "peers.md").read_text("utf-8")
    peers = re.sub(r"^!\[.*\n", "", peers.removeprefix("# peers\n"), flags=re.MULTILINE)
    return f"""# Benchmarks

Quality before and after the bundled reranker, on public sets and on the demo's questions:

![Quality of each set before and after reranking](../assets/quality.svg)

Pairs per second of this package and others on the same file, by default and at best:

![Pairs per second of each contender](../assets/peers.svg)

Quality against time on the demo's questions, with the number of candidates at the default's points:

![nDCG@10 against milliseconds per query](../assets/depth.svg)

What a cascade of the six layers and the default keeps of the quality:

![nDCG@10 against milliseconds of cascades](../assets/cascade.svg)
{record}
## The tables beside the peers

{_deeper(_deeper(peers))}
"""
