"""Lines by sub-package, and the way of a search, a rerank and an add through the modules.

    python benchmarks/structure.py [--tree DIRECTORY] [--out FILE]

Prints four things about the checked-out tree: lines of Python by sub-package; the modules of ours
that one call enters; the moves of that call, which are calls from a function of one module into a
function of another; and our frames in the traceback of a search of a missing collection. The calls
are made once before they are counted, so that imports and what is loaded on first use are left out.

``--tree`` is another checkout to look at, older or newer: only public names are used.
"""

import argparse
import json
import os
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from arguments import existing_path

DOCUMENTS = ("Bread is baked in an oven.", "Iron melts at 1538 C.", "Penguins huddle.")
QUERY = "At what temperature does iron melt?"


class Recorder:
    """Notes the modules of a package that are entered, and the moves between them, in all threads.

    Args:
        package: directory of the package.
    """

    def __init__(self, package: Path) -> None:
        self.package = f"{package}{os.sep}"
        self.entered: set[str] = set()
        self.moves = 0
        self.recording = False

    def count(self, call: Callable[[], Any]) -> tuple[int, int]:
        """Return the number of modules that the call enters, and of its moves."""
        self.entered, self.moves, self.recording = set(), 0, True
        try:
            call()
        finally:
            self.recording = False
        return len(self.entered), self.moves

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """Note one event; for ``sys.setprofile``."""
        module = frame.f_code.co_filename
        if not self.recording or event != "call" or not module.startswith(self.package):
            return
        self.entered.add(module)
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(self.package):
            caller = caller.f_back
        if caller is not None and caller.f_code.co_filename != module:
            self.moves += 1


def lines_by_part(package: Path) -> dict[str, int]:
    """Return the lines of Python of each sub-package, and of the modules at the top together."""
    lines: Counter[str] = Counter()
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).parts
        lines[parts[0] if len(parts) > 1 else "(top)"] += len(path.read_bytes().splitlines())
    return dict(lines)


def calls(package: Path) -> dict[str, Any]:
    """Return modules and moves of each call, and the frames of a missing collection."""
    recorder = Recorder(package)
    threading.setprofile(recorder.profile)
    sys.setprofile(recorder.profile)

    from qdrant_client import QdrantClient  # noqa: F401 - its own imports are not counted

    from qdrant_rerank import DEFAULT_RERANKER, HybridSearcher, TextCrossEncoder

    encoder = TextCrossEncoder(DEFAULT_RERANKER)
    found: dict[str, Any] = {}
    with HybridSearcher("docs", reranker=encoder) as searcher:
        searcher.add(DOCUMENTS)
        searcher.search(QUERY)
        ways = {
            "search": lambda: searcher.search(QUERY),
            "rerank": lambda: encoder.rerank(QUERY, DOCUMENTS),
            "add": lambda: searcher.add(DOCUMENTS),
        }
        for name, call in ways.items():
            modules, moves = recorder.count(call)
            found[name] = {"modules": modules, "moves": moves}
    sys.setprofile(None)
    threading.setprofile(None)
    with HybridSearcher("missing", reranker=encoder) as searcher:
        try:
            searcher.search(QUERY)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            found["missing collection"] = {
                "error": type(error).__name__,
                "frames": sum(frame.filename.startswith(recorder.package) for frame in frames),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", type=existing_path, default=Path(__file__).parents[1])
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    given = parser.parse_args()
    for name in ("QDRANT_URL", "QDRANT_PATH"):
        os.environ.pop(name, None)  # the engine in this process, in memory
    tree = given.tree.resolve()
    sys.path.insert(0, str(tree))
    package = tree / "qdrant_rerank"
    lines = lines_by_part(package)
    figures = {"lines": lines, "total": sum(lines.values()), **calls(package)}
    print(f"{'lines of Python':<20}{figures['total']:>7,}")
    for part, count in sorted(lines.items()):
        print(f"  {part:<18}{count:>7,}")
    for name in ("search", "rerank", "add"):
        counted = figures[name]
        print(f"{f'one {name}':<20}{counted['modules']:>7} modules{counted['moves']:>6} moves")
    missing = figures["missing collection"]
    print(f"{'missing collection':<20}{missing['frames']:>7} frames of ours ({missing['error']})")
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
