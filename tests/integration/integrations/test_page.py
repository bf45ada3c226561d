"""The blocks of docs/frameworks.md, on stores that the frameworks filled."""

import pytest
from qdrant_client import QdrantClient

from tests.integration.integrations.frameworks import QUERY, TEXTS, embed, needed
from tests.integration.test_readme import (
    ROOT,
    blocks_of,
    printed_by,
    require_same,
    require_sound,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def langchain():
    """A store of langchain-qdrant."""
    needed("langchain_qdrant")
    from tests.integration.integrations.test_langchain import stored

    store = stored()
    return {"store": store}, store.client.close


def llama_index():
    """A client whose collection LlamaIndex filled."""
    store_module = needed("llama_index.vector_stores.qdrant")
    from llama_index.core.schema import TextNode

    client = QdrantClient(":memory:")
    nodes = [TextNode(text=t, embedding=v) for t, v in zip(TEXTS, embed(TEXTS), strict=True)]
    store_module.QdrantVectorStore(collection_name="docs", client=client).add(nodes)
    return {"client": client}, client.close


def haystack():
    """A store of qdrant-haystack."""
    store_module = needed("haystack_integrations.document_stores.qdrant")
    from haystack import Document

    store = store_module.QdrantDocumentStore(
        ":memory:", index="docs", embedding_dim=256, progress_bar=False
    )
    store.write_documents(
        [Document(content=t, embedding=v) for t, v in zip(TEXTS, embed(TEXTS), strict=True)]
    )
    return {"store": store}, store.close


@pytest.mark.parametrize(
    ("heading", "made"),
    [("LangChain", langchain), ("LlamaIndex", llama_index), ("Haystack", haystack)],
    ids=["langchain", "llama-index", "haystack"],
)
def test_the_page_prints_what_it_shows(heading, made, tmp_path):
    """One section, its blocks one after the other."""
    names, close = made()
    names |= {"question": QUERY, "embedding": embed}
    text = (ROOT / "docs" / "frameworks.md").read_text("utf-8")
    section = tmp_path / "frameworks.md"
    section.write_text(text.split(f"\n## {heading}\n")[1].split("\n## ")[0], "utf-8")
    printed, compared = None, 0
    for block in blocks_of(section):
        if block.language == "text":
            require_same(block.code, printed, block.place)
            compared += 1
        else:
            printed = printed_by(block, names, [])
    assert compared
    close()


def test_the_commands_of_the_server_exist():
    """Their options, too."""
    [block] = [b for b in blocks_of(ROOT / "docs" / "frameworks.md") if b.language == "sh"]
    require_sound(block, {})
