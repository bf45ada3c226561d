"""The blocks of docs/frameworks.md: they run as pasted and print what is shown."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.integration.integrations.frameworks import needed
from tests.page_runs import printed_by, require_sound
from tests.pages import Block, blocks_of, require_same

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "frameworks.md"
#: Heading -> what its blocks need; the page shows the client of mcp 2.
SECTIONS = {
    "LangChain": "langchain_qdrant",
    "LlamaIndex": "llama_index.vector_stores.qdrant",
    "Haystack": "haystack_integrations.document_stores.qdrant",
    "DSPy": "dspy",
    "Model Context Protocol": "mcp.server.mcpserver",
}

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning"
)


def blocks_below(heading, folder):
    """The blocks of a section, or of what stands before the first one."""
    start, *sections = PAGE.read_text("utf-8").split("\n## ")
    part = start if heading is None else dict(s.split("\n", 1) for s in sections)[heading]
    written = folder / "frameworks.md"
    written.write_text(part, "utf-8")
    return blocks_of(written)


def test_each_section_is_run():
    """Those of the page are those that the next test runs."""
    headings = [line[3:] for line in PAGE.read_text("utf-8").splitlines() if line[:3] == "## "]
    assert headings == list(SECTIONS)


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_page_prints_what_it_shows(heading, tmp_path, monkeypatch):
    """The start of the page and one section, in an empty folder."""
    needed(SECTIONS[heading])
    blocks = blocks_below(None, tmp_path) + blocks_below(heading, tmp_path)
    place = tmp_path / "empty"
    place.mkdir()
    monkeypatch.chdir(place)
    commands = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([commands, os.environ["PATH"]]))
    names, printed, compared = {"__name__": "__main__"}, None, 0
    for block in blocks:
        if block.language == "text":
            require_same(block.code, printed, block.place)
            compared += 1
        elif block.language == "json":
            for server in json.loads(block.code)["mcpServers"].values():
                line = " ".join([server["command"], *server["args"]])
                require_sound(Block(block.place, "sh", line, None), {})
        elif block.why is not None:
            require_sound(block, names)
        else:
            printed = printed_by(block, names, [])
    assert compared
