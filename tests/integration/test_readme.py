"""What the README shows, run."""

import ast
import builtins
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
#: What an example needs that is not had here: a server, a model of the hub, a card.
ELSEWHERE = re.compile(r"localhost|ms-marco|device=|our-team")


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


def test_the_examples_run_one_after_the_other(monkeypatch, tmp_path):
    """Pasted as they stand; those that need what is not had here use no name that nobody gave."""
    monkeypatch.chdir(tmp_path)
    names = {}
    ran = 0
    for example in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        if ELSEWHERE.search(example):
            nodes = list(ast.walk(ast.parse(example)))
            used = {node for node in nodes if isinstance(node, ast.Name)}
            given = {node.id for node in used if isinstance(node.ctx, ast.Store)}
            given |= {node.name for node in nodes if isinstance(node, ast.alias)}
            assert {node.id for node in used} <= given | set(names) | set(dir(builtins))
        else:
            exec(compile(example, "README.md", "exec"), names)
            ran += 1
    names["searcher"].close()
    assert ran >= 8


def test_the_commands_run_one_after_the_other(tmp_path):
    """Pasted as they stand, on such a file as the README says; each ends with exit code 0."""
    [block] = re.findall(r"```\n(export QDRANT_PATH.*?)```", README, re.DOTALL)
    [compare] = re.findall(r"^qdrant-rerank compare .*", README, re.MULTILINE)
    documents = [
        {"title": title, "body": f"All about {title}.", "year": 1990 + row}
        for row, title in enumerate(["iron", "bread", "penguins"])
    ]
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, documents)), "utf-8")
    (tmp_path / "queries.txt").write_text("bread\niron\n", "utf-8")
    done = subprocess.run(
        [shutil.which("bash") or "sh", "-e", "-c", block + compare],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 documents are in 'docs'." in done.stdout
    assert "Nothing is wrong." in done.stdout
    assert (tmp_path / "changes.html").is_file()


def test_every_command_of_the_makefile_that_it_names_exists():
    """make demo, make test, and the others."""
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(link):
    """To a file of the repository."""
    assert (ROOT / link).exists()
