"""The wheel and the sdist that are published: make package."""

import email
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("build", reason="needs the group package: make package")
pytest.importorskip("hatch_fancy_pypi_readme", reason="needs the group package: make package")

ROOT = Path(__file__).parents[2]
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "qdrant_rerank" / "_version.py").read_text())[
    1
]
MOST = 70e6  # bytes of a wheel; a file on the package index has at most 100 MB
if shutil.which("git") is None or not (ROOT / ".git").exists():
    pytest.skip("needs the repository", allow_module_level=True)


def run(*command, folder=ROOT):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked(*below):
    """Files of the repository, as git knows them."""
    return set(run("git", "ls-files", "-z", *below).rstrip("\0").split("\0"))


def digests(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A folder with the sdist, and the wheel made from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    return folder


@pytest.fixture(scope="session")
def wheel(built):
    [found] = built.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def sdist(built):
    [found] = built.glob("*.tar.gz")
    return found


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    """The modules, the bundled models, the metadata, and both licences."""
    info = f"qdrant_rerank-{VERSION}.dist-info"
    licences = ["LICENSE", "qdrant_rerank/bundled/grown-e5-small-v1/LICENSE"]
    metadata = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    metadata |= {f"{info}/licenses/{name}" for name in licences}
    assert set(digests(wheel)) == tracked("qdrant_rerank") | metadata
    assert wheel.name == f"qdrant_rerank-{VERSION}-py3-none-any.whl"
    assert wheel.stat().st_size < MOST


def test_the_sdist_builds_the_same_wheel(wheel, tmp_path):
    """The one in the fixture is built from the sdist; this one from the repository."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), ".")
    assert digests(tmp_path / wheel.name) == digests(wheel)


def test_the_sdist_holds_what_the_tests_need(sdist):
    """The tests, the notebooks, the manual, and all else that is in the repository."""
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {name for name in tracked() if not name.startswith((".ci/", ".github/"))}
    assert held == wanted | {"PKG-INFO"}
    assert any(name.startswith("tests/models/") for name in held)
    assert "notebooks/quickstart.ipynb" in held


def test_the_index_can_show_what_is_published(wheel, sdist):
    """Twine finds nothing, links of the README lead somewhere, and the changelog has a section."""
    said = run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
    assert said.count("PASSED") == 2
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"qdrant_rerank-{VERSION}.dist-info/METADATA").decode()
    metadata = email.message_from_string(text)
    links = re.findall(r"\]\(([^)]+)\)", metadata.get_payload())
    assert links
    assert all(link.startswith("https://") for link in links)
    assert any(f"/blob/v{VERSION}/docs/" in link for link in links)
    assert {"Documentation", "Source", "Changelog", "Issues"} <= {
        url.partition(",")[0] for url in metadata.get_all("Project-URL")
    }
    assert re.search(rf"^## {re.escape(VERSION)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)
