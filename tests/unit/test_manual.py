"""The pages of the site that are made from code: nothing of the code is left out."""

import ast
import json
import re
from pathlib import Path

import click
import pytest
import yaml

import qdrant_rerank
from manual.pages import MADE
from manual.settings import VARIABLES
from qdrant_rerank.cli.doctor_finding import PAGES
from qdrant_rerank.cli.main import main
from qdrant_rerank.hub.catalog import REPLACED
from qdrant_rerank.serving.settings import ServeSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
#: What an environment variable that is read here is called.
VARIABLE = re.compile(r"(?:QDRANT|HF|HUGGING_FACE|ORT|OPENAI|FASTEMBED|CUDA_VISIBLE)(?:_[A-Z]+)+")


def commands(group, path=""):
    for name, command in group.commands.items():
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")


def test_every_command_and_option_is_in_the_reference():
    """As the commands themselves have them."""
    page = MADE["reference/commands.md"]()
    for name, command in commands(main):
        assert re.search(rf"^## qdrant-rerank {name}$", page, re.MULTILINE), name
        for option in command.params:
            if isinstance(option, click.Option):
                assert f"`{option.opts[0]}`" in page


def test_every_variable_that_is_read_is_in_the_table():
    """Also those that other packages read, if the code names them."""
    named = set()
    for path in Path(qdrant_rerank.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= {node.value} if VARIABLE.fullmatch(node.value) else set()
    assert named <= set(VARIABLES)
    page = MADE["reference/settings.md"]()
    assert all(f"| `{name}` |" in page for name in VARIABLES)


def test_every_setting_and_metric_of_the_server_is_there():
    """The metrics are those that a server shows."""
    page = MADE["reference/settings.md"]()
    assert all(f"| `{name}` |" in page for name in ServeSettings.__slots__)
    shown = set(re.findall(r"`(qdrant_rerank_\w+)`", MADE["reference/metrics.md"]()))
    code = "".join(
        path.read_text("utf-8") for path in (ROOT / "qdrant_rerank" / "serving").glob("*.py")
    )
    named = re.findall(r"(?:counter|histogram|watch)\(\s*\"(\w+)\"", code)
    assert {name.removeprefix("qdrant_rerank_").removesuffix("_total") for name in shown} == set(
        named
    )


def test_every_public_name_has_a_page():
    """In the group that the package has it in."""
    pages = "".join(MADE[name]() for name in MADE if name.startswith("reference/"))
    for name in set(qdrant_rerank.__all__) - {"__version__", "errors"}:
        assert f"::: qdrant_rerank.{name}\n" in pages, name


def test_the_navigation_has_every_page():
    """Written and made."""
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    listed = set(re.findall(r": ([\w/-]+\.md)$", text, re.MULTILINE))
    made = {name for name in MADE if name.endswith(".md")}
    assert listed == {path.name for path in DOCS.glob("*.md")} | made


@pytest.mark.parametrize("page", sorted(set(PAGES.values())))
def test_the_page_of_a_finding_exists(page):
    """With the heading that doctor names."""
    name, _, heading = page.partition("#")
    path = name.replace(".html", ".md")
    if path in MADE:
        return
    text = (DOCS / path).read_text("utf-8")
    slugs = {
        re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-")
        for each in re.findall(r"^#+ (.*)", text, re.MULTILINE)
    }
    assert not heading or heading in slugs


@pytest.mark.parametrize("name", [name for name in MADE if name.endswith(".svg")])
def test_a_plot_is_drawn_from_the_records(name):
    """The same each time, and it asks for nothing."""
    drawn = MADE[name]()
    assert drawn.startswith("<?xml")
    assert "<image" not in drawn
    assert drawn == MADE[name]()


def test_the_settings_of_the_site_can_be_read():
    """By any reader of YAML."""
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["theme"]["font"] is False


def test_pairs_per_second_are_the_recorded_ones():
    """Of the table of rerankers: whole numbers from 10 on, else one decimal."""
    recorded = {}
    for row in json.loads((RESULTS / "throughput.json").read_text("utf-8"))["models"]:
        if row["model"] in REPLACED:
            continue  # it was bundled when that was recorded
        speed = row["pairs_per_second"]
        rounded = f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}"
        recorded.setdefault(row["model"], []).append(f"{rounded} {row['precision']}")
    page = (DOCS / "choose.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w.-]+)`[^|\n]*\|.*\| ([^|\n]+) \|$", page, re.MULTILINE)
    shown = {model: speeds for model, speeds in rows if speeds != "not recorded"}
    assert shown == {model: ", ".join(speeds) for model, speeds in recorded.items()}
