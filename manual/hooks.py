"""Hooks of MkDocs: pages and plots that are made, and links to files of the repository."""

import posixpath
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mkdocs.structure.files import File  # noqa: E402

from manual.pages import MADE  # noqa: E402

SOURCE = "https://github.com/qdrant-rerank/qdrant-rerank/blob/main/"
SHIM = "https://unpkg.com/iframe-worker/shim"


def on_files(files, config):
    """Add what is made of code and records."""
    for name, make in MADE.items():
        files.append(File.generated(config, name, content=make()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead links to files that are not pages to the repository."""
    folder = posixpath.dirname(page.file.src_uri)
    # The two texts that are kept elsewhere have links from there.
    home = {"reference/changes.md": "", "reference/benchmarks.md": "benchmarks"}.get(
        page.file.src_uri
    )

    def target(found):
        link, _, heading = found[2].partition("#")
        if not link or "://" in link or link.startswith("mailto:"):
            return found[0]
        if files.get_file_from_path(posixpath.normpath(posixpath.join(folder, link))):
            return found[0]
        start = posixpath.join("docs", folder) if home is None else home
        path = posixpath.normpath(posixpath.join(start, link))
        if not (ROOT / path).exists():
            return found[0]  # MkDocs says that it leads nowhere
        return f"{found[1]}({SOURCE}{path}{'#' + heading if heading else ''})"

    return re.sub(r"(\])\(([^)\s]+)\)", target, markdown)


def on_post_build(config):
    """Load the worker of the search from the site itself, not from a content network."""
    site = Path(config.site_dir)
    for path in site.rglob("*.html"):
        text = path.read_text("utf-8")
        up = "../" * (len(path.relative_to(site).parts) - 1)
        path.write_text(text.replace(SHIM, f"{up}assets/iframe-worker.js"), "utf-8")
