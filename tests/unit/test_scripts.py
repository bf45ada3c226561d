"""The command lines of ``benchmarks/`` and ``training/``."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.arguments import destination

ROOT = Path(__file__).parents[2]
RECORD = Path("results/figures.json")


@pytest.mark.parametrize(
    "command",
    [
        ["training/simplify.py", "MISSING"],
        ["benchmarks/cascade.py", "MISSING"],
        ["benchmarks/throughput.py", "--also", "MISSING"],
        ["-m", "benchmarks.peers.report", "MISSING"],
    ],
    ids=["simplify", "cascade", "throughput", "report"],
)
def test_a_missing_file_is_named_in_one_line(command, tmp_path):
    """It is an error of the command, and not Python's."""
    missing = str(tmp_path / "nowhere")
    given = [missing if one == "MISSING" else one for one in command]
    done = subprocess.run(
        [sys.executable, *given], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"no such file or folder: {missing}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("out", "part", "expected"),
    [
        (None, "", RECORD),
        (None, "minilm", None),
        (Path("mine.json"), "minilm", Path("mine.json")),
        (Path("mine.json"), "", Path("mine.json")),
    ],
)
def test_figures_of_a_part_do_not_replace_a_record(out, part, expected):
    """They go where the user says, or nowhere."""
    assert destination(out, RECORD, part=part) == expected
