"""What the README shows, run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_first_example_puts_the_answer_first(capsys):
    """Pasted as it stands."""
    first = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    names = {}
    exec(compile(first, "README.md", "exec"), names)
    names["searcher"].close()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "Iron melts at 1538" in lines[0]
    assert "was" in lines[0]


def test_the_example_of_a_calibration_gives_probabilities(monkeypatch, tmp_path):
    """Pasted as it stands."""
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n([^`]*?Calibrator\.fit.*?)```", README, re.DOTALL)[1]
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    yes, no, *_ = names["calibrated"].score_pairs([pair[:2] for pair in names["judged"]]).scores
    assert 0 < no < 0.5 < yes < 1
    assert (tmp_path / "calibration.json").is_file()


def test_every_command_of_the_makefile_that_it_names_exists():
    """make demo, make test, and the others."""
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(link):
    """To a file of the repository."""
    assert (ROOT / link).exists()
