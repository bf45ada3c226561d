"""The site that `make docs` has built: whole, and without anything from elsewhere."""

import inspect
import json
import os
import re
import zlib
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from types import FunctionType

import pytest

import qdrant_rerank
from qdrant_rerank import errors

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
if "BUILT" not in os.environ:  # it may be older than the pages
    pytest.skip("needs the site: make docs", allow_module_level=True)
PAGES = sorted(SITE.rglob("*.html"))
METHODS = (FunctionType, classmethod, staticmethod, property, cached_property)
#: Attributes that load something when a page is shown.
LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("link", "href"), ("source", "src")}


class Loads(HTMLParser):
    """Collects what a page loads from elsewhere, and its headings' ids."""

    def __init__(self):
        super().__init__()
        self.foreign, self.ids = [], set()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "link" and given.get("rel") in {"canonical", "prev", "next", "alternate"}:
            return  # names a page, loads nothing
        for name, value in given.items():
            if (tag, name) in LOADS and re.match(r"(?:https?:)?//", value or ""):
                self.foreign.append(value)


def read(page):
    loads = Loads()
    loads.feed(page.read_text("utf-8"))
    return loads


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(SITE)))
def test_a_page_loads_nothing_from_elsewhere(page):
    """No font, no script, no picture."""
    assert read(page).foreign == []


def test_style_sheets_load_nothing_from_elsewhere():
    """Fonts and pictures of style sheets are in them."""
    for sheet in SITE.rglob("*.css"):
        found = re.findall(
            r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')]+)", sheet.read_text("utf-8")
        )
        assert found == [], sheet


def test_every_page_of_the_manual_is_there_and_found():
    """Also those that are made, and the search knows them."""
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {page.stem for page in PAGES}
    index = json.loads((SITE / "search" / "search_index.json").read_text("utf-8"))
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    shown = {str(page.relative_to(SITE)) for page in PAGES} - {"404.html"}
    assert shown <= found | {"index.html"}


def test_every_public_name_is_in_the_reference():
    """Also its methods: MkDocs' inventory has what has a docstring."""
    data = (SITE / "objects.inv").read_bytes()
    names = zlib.decompress(data.split(b"\n", 4)[4]).decode()
    for name in set(qdrant_rerank.__all__) - {"__version__", "errors"}:
        assert f"qdrant_rerank.{name} " in names, name
        public = getattr(qdrant_rerank, name)
        for member, value in vars(public).items() if inspect.isclass(public) else ():
            if not member.startswith("_") and isinstance(value, METHODS):
                assert f"qdrant_rerank.{name}.{member} " in names, (name, member)


def test_every_error_has_a_heading_to_link_to():
    """Errors carry the address."""
    ids = read(SITE / "errors.html").ids
    for name in errors.__all__:
        kind = getattr(errors, name)
        if issubclass(kind, errors.QdrantRerankError):
            assert kind.help_url.rpartition("#")[2] in ids, name
