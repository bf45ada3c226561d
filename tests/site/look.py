"""A headless Chromium looks at the site: make docs-look.

Three pages at two widths, light and dark: nothing to scroll sideways, nothing asked of another
machine, and text with a contrast of at least 4.5 (3 for large text), as axe-core measures it.
"""

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest

Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="make docs-look").Axe
sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
SITE = Path(__file__).parents[2] / "site"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
PAGES = ("start.html", "choose.html", "reference/search.html")
SHOTS = os.environ.get("SHOTS")  # folder for pictures


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "no Chromium was found; name one: make docs-look CHROMIUM=/path"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


def opened(browser, width, scheme, url, asked):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url, wait_until="load")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_can_be_read(browser, address, name, width, scheme):
    """Also on a phone, also at night."""
    asked = []
    page = opened(browser, width, scheme, f"{address}/{name}", asked)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    chosen = page.evaluate("document.body.getAttribute('data-md-color-scheme')")
    assert chosen == ("slate" if scheme == "dark" else "default")
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SHOTS) / f"{Path(name).stem}-{width}-{scheme}.png")
    found = Axe().run(page, options={"runOnly": ["color-contrast"]}).response
    assert [
        (node["target"], node["any"][0]["message"])
        for rule in found["violations"]
        for node in rule["nodes"]
    ] == []
    assert sum(len(rule["nodes"]) for rule in found["passes"]) > 20
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    page.close()


@pytest.mark.parametrize("place", ["server", "folder"])
def test_the_search_finds(browser, address, place):
    """On a server, and in a folder without one."""
    url = f"{address}/index.html" if place == "server" else (SITE / "index.html").as_uri()
    asked = []
    page = opened(browser, 1280, "light", url, asked)
    page.locator("input.md-search__input").click()
    page.locator("input.md-search__input").press_sequentially("calibrator")
    page.wait_for_selector("a.md-search-result__link", timeout=20_000)
    assert page.locator("a.md-search-result__link").count() >= 2
    assert [
        url
        for url in asked
        if "127.0.0.1" not in url and not url.startswith(("file:", "data:", "blob:"))
    ] == []
    page.close()
