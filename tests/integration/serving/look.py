"""A headless Chromium uses the page: make serving-look.

A query is typed, both orders are shown, a payload that is a script stays a text, and the page can
be read in light and dark, on a phone and on a desk.
"""

import os
import shutil
from pathlib import Path

import pytest

from qdrant_rerank import HybridSearcher
from qdrant_rerank.qdrant.transport.client import connect
from tests.serving import served

Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="make serving-look").Axe
sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SHOTS = os.environ.get("SHOTS")  # folder for pictures
ATTACK = (
    "<script>document.title='attacked'</script>"
    "<img src=x onerror=\"document.title='attacked'\"> iron </li></ol>"
)
TEXTS = [
    "Bread is baked in an oven.",
    "Iron is a metal, which people have made tools of for 3,000 years.",
    f"Iron {ATTACK}",
    "The melting point of iron is 1538 C.",
    "Copper melts at 1085 C.",
]
QUERY = "melting point of iron"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = tmp_path_factory.mktemp("qdrant") / "db"
    client = connect(path=str(path))
    HybridSearcher("docs", client=client).add(TEXTS, progress=False)
    client.close()
    with served(collections=["docs"], path=str(path)) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "no Chromium was found; name one: make serving-look CHROMIUM=/path"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser, url):
    """Opens the page; at the end nothing was asked of others, and no error was logged."""
    problems, pages = [], []

    def open_page(scheme, width):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        page.on("console", lambda told: problems.append(told.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda one: one.url.startswith(url) or problems.append(one.url))
        page.goto(url, wait_until="networkidle")
        return page

    yield open_page
    assert problems == []
    for page in pages:
        assert page.title() == "qdrant-rerank"
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_search_shows_both_orders(opened, scheme, width):
    """With the places that each hit has won or lost, and Qdrant's payload as a text."""
    page = opened(scheme, width)
    page.locator("input[name=query]").press_sequentially(QUERY)
    assert not page.locator("textarea").is_visible()  # it is for documents without a collection
    page.locator("button").click()
    page.wait_for_selector("#after li")
    before = page.locator("#before li").all_inner_texts()
    after = page.locator("#after li").all_inner_texts()
    assert len(before) == len(after) == len(TEXTS)
    assert "1538" in after[0]
    assert sorted(text.splitlines()[-1] for text in before) == sorted(
        text.splitlines()[-1] for text in after
    )
    assert any(f"Iron {ATTACK}" in text for text in after)
    assert page.locator("#orders script, #orders img").count() == 0
    assert "reranking" in page.locator("#times").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate(
        "getComputedStyle(document.documentElement).colorScheme + matchMedia("
        "'(prefers-color-scheme: dark)').matches"
    )
    assert background == f"light dark{str(scheme == 'dark').lower()}"
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SHOTS) / f"serve-{width}-{scheme}.png")
    found = Axe().run(page, options={"runOnly": ["color-contrast", "label"]}).response
    assert [
        (node["target"], node["any"][0]["message"])
        for rule in found["violations"]
        for node in rule["nodes"]
    ] == []
    assert sum(len(rule["nodes"]) for rule in found["passes"]) > 10


def test_documents_of_the_user_are_ranked(opened):
    """Without a collection: one per line."""
    page = opened("light", 1280)
    page.locator("select").select_option(label="the documents below")
    page.locator("textarea").fill("\n".join(TEXTS))
    page.locator("input[name=query]").fill(QUERY)
    page.locator("input[name=query]").press("Enter")
    page.wait_for_selector("#after li")
    first = page.locator("#after li").first
    assert first.inner_text().startswith("1. ▲ 3")
    assert "1538" in first.inner_text()
    assert page.locator("#before li").first.inner_text().endswith(TEXTS[0])
    assert page.locator("#orders script, #orders img").count() == 0
