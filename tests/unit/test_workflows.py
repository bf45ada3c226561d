"""The public CI runs commands that anybody can run: targets of the Makefile."""

import re
from itertools import product
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands_of(job):
    """Each command of a job, with the values of its matrix in it."""
    matrix = dict(job.get("strategy", {}).get("matrix", {}))
    rows = matrix.pop("include", None) or [
        dict(zip(matrix, values, strict=True)) for values in product(*matrix.values())
    ]
    for step, row in product(job["steps"], rows):
        if "run" in step:
            yield re.sub(
                r"\$\{\{ matrix\.(\w+) \}\}", lambda found, row=row: row[found[1]], step["run"]
            )


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_is_one_of_make(path):
    """So that what fails there can be run here."""
    ran = 0
    for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values():
        for command in commands_of(job):
            made = re.fullmatch(r"make ([a-z -]+)(?: [A-Z]+=\$\{\{ [\w.]+ \}\})?", command)
            assert made, command
            assert set(made[1].split()) <= TARGETS
            ran += 1
    assert ran


def test_all_that_we_test_is_tested_there():
    """Every target that tests something has a job."""
    text = "".join(path.read_text("utf-8") for path in WORKFLOWS)
    ours = "check test server-test oldest newest oldest-server adapters frameworks serving-clients"
    for target in f"{ours} docs package extras workflows".split():
        assert re.search(rf"(?:make |target: )[a-z -]*{target}\b", text), target


def test_every_python_of_the_classifiers_is_tested():
    """From the oldest to the newest."""
    classified = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == classified
