"""The README and the manual: their examples run as pasted and print what is shown.

A block of a page is ``python`` or ``sh``, which is run, ``text``, which is what the block above it
prints, or ``yaml``, which a test of its own reads. ``<!-- not run: why -->`` above a block says
that it is not run.
"""

import importlib.util
import re
from pathlib import Path

import pytest

import qdrant_rerank
from manual.pages import MADE
from tests.page_runs import printed_by, require_sound
from tests.pages import blocks_of, require_same

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Blocks of each page that are not run; every other page has none.
NOT_RUN = {
    "README.md": 3,
    "choose.md": 1,
    "containers.md": 2,
    "gpu.md": 3,
    "embedders.md": 2,
    "install.md": 1,
    "languages.md": 1,
    "models.md": 4,
    "qdrant.md": 2,
    "rerankers.md": 3,
    "scale.md": 5,
    "search.md": 2,
    "serve.md": 4,
    "start.md": 2,
}
#: Pages whose blocks need packages of their own: tests/integration/integrations/test_page.py.
ELSEWHERE = {"frameworks.md"}
in_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in ELSEWHERE], ids=lambda page: page.name
)
def test_the_examples_run_and_print_what_is_shown(page, monkeypatch, tmp_path):
    """Pasted as they stand, one after the other, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for variable in ("QDRANT_URL", "QDRANT_PATH"):  # as it was again, whatever an example sets
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    names, exports, printed = {"__name__": "__main__"}, [], None
    not_run = 0
    for block in blocks_of(page):
        if block.language == "text":
            assert printed is not None, f"{block.place} shows the output of nothing that ran"
            require_same(block.code, printed, block.place)
            printed = None
            continue
        if block.language == "yaml":
            continue
        assert block.language in {"python", "sh"}, f"{block.place} is of no known language"
        if block.why is not None:
            not_run += 1
            require_sound(block, names)
            printed = None
        else:
            printed = printed_by(block, names, exports)
    for value in names.values():
        if isinstance(value, qdrant_rerank.HybridSearcher):
            value.close()
    assert not_run == NOT_RUN.get(page.name, 0)


@in_pages
def test_no_block_is_overlooked(page):
    """Each fence opens or closes a block, and each mark stands above one."""
    text = page.read_text("utf-8")
    blocks = blocks_of(page)
    assert len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)) == 2 * len(blocks)
    assert text.count("not run:") == sum(block.why is not None for block in blocks)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("4.79  was 2\n", " 4.80   was 2\n", True),
        ("4.79  was 2\n", " 4.83   was 2\n", False),
        ("4.7  was 2\n", " 4.81   was 2\n", True),
        ("4.7  was 2\n", "4.9 was 2\n", False),
        ("4.79  was 2\n", "4.79 was 1\n", False),
        ("took ... s\n", "took 0.5 s\n", True),
        ("took ... s\n", "took 0.5 ms\n", False),
    ],
)
def test_shown_output_is_compared(shown, printed, same):
    """Words and whole numbers are compared as they stand, other numbers to their digits."""
    if same:
        require_same(shown, printed, "here")
    else:
        with pytest.raises(AssertionError):
            require_same(shown, printed, "here")


@in_pages
def test_every_command_of_the_makefile_that_is_named_exists(page):
    """make demo, make test, and the others."""
    named = set(
        re.findall(r"(?:^|`|=\S+ )make ([a-z]+(?:-[a-z]+)?)\b", page.read_text("utf-8"), re.M)
    )
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    if page.name == "README.md":
        assert {"demo", "test"} <= named
    assert named <= targets


@in_pages
def test_every_link_leads_somewhere(page):
    """To a file of the repository, and to a heading where it names one."""
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if link.startswith("https://"):
            continue
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        if page.parent.name == "docs" and path in MADE:
            continue  # make docs looks at these
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)", target.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
            assert heading in slugs, link


def test_the_index_of_the_manual_names_every_page():
    """A page that is added can be found."""
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)\)", index))
    assert linked == {page.name for page in PAGES[1:]} - {"index.md"}


def test_the_changelog_names_modules_that_exist():
    """Whoever imported a module of the flat package finds where it is now."""
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    table = re.findall(r"^\| `(qdrant_rerank[\w.]*)` \| (.*) \|$", changes, re.MULTILINE)
    assert len(table) >= 10
    for package, moves in table:
        for move in moves.split(", "):
            module = re.fullmatch(r"`[\w.]+`(?: → `([\w.]+)`)?", move)
            assert module, move
            name = module[1] or move.strip("`")
            assert importlib.util.find_spec(f"{package}.{name}"), move
