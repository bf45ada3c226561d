"""The wheel with one extra, in an empty environment: make extras.

PYTHONS names interpreters, EXTRAS extras (all but ``gpu`` by default), both with spaces between.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from tests.pages import blocks_of, require_same

if "PYTHONS" not in os.environ:
    pytest.skip("long: make extras", allow_module_level=True)

find_uv_bin = pytest.importorskip("uv").find_uv_bin
ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: gpu brings gigabytes of CUDA libraries.
ALL = [extra for extra in PROJECT["optional-dependencies"] if extra != "gpu"]
PYTHONS = os.environ["PYTHONS"].split()
EXTRAS = os.environ.get("EXTRAS", "").split() or ALL
#: Extras that bring ONNX Runtime themselves.
RUNTIMES = {"cpu", "gpu"}
FIRST, SHOWN = (block.code for block in blocks_of(ROOT / "README.md")[:2])


def run(*command, folder, check=True):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), ".", folder=ROOT)
    [found] = folder.glob("*.whl")
    return found


@pytest.fixture
def folder():
    """A folder that is removed after the test, whatever its size."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_first_example_runs(python, extra, wheel, folder):
    """It prints what the README shows; without ONNX Runtime it says what to install."""
    uv = find_uv_bin()
    run(uv, "venv", "--quiet", "--python", python, "env", folder=folder)
    inside = str(folder / "env" / "bin" / "python")
    install = [uv, "pip", "install", "--quiet", "--python", inside]
    run(*install, f"{wheel}[{extra}]", folder=folder)
    work = folder / "work"
    work.mkdir()
    (work / "first.py").write_text(FIRST)
    if extra not in RUNTIMES:
        failed = run(inside, "first.py", folder=work, check=False)
        last = failed.stderr.strip().splitlines()[-1]
        assert re.match(r"qdrant_rerank\.errors\.MissingDependencyError: ", last), failed.stderr
        assert 'pip install "qdrant-rerank[cpu]"' in last
        run(*install, f"{wheel}[cpu,{extra}]", folder=folder)
    require_same(SHOWN, run(inside, "-W", "error", "first.py", folder=work).stdout, "README.md")
    command = str(folder / "env" / "bin" / "qdrant-rerank")
    assert PROJECT["name"] in run(command, "--version", folder=work).stdout
    doctor = run(command, "doctor", folder=work, check=False)
    # One thing is wrong on a machine without a card, and it is that.
    without_driver = extra == "gpu" and "No NVIDIA driver" in doctor.stdout
    without_driver = without_driver and doctor.stdout.rstrip().endswith("\n1 wrong.")
    assert doctor.returncode == 0 or without_driver, doctor.stdout
