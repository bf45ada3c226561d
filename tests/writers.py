"""Payloads as these packages wrote them: langchain-qdrant 1.1.0, llama-index-vector-stores-qdrant
0.10.4 (a ``TextNode`` and a ``Node``), qdrant-haystack 13.1.0, mcp-server-qdrant 0.8.1, and
qdrant-client's former ``add``.
"""

import json

IRON = "Iron melts at 1538 degrees Celsius."
META = {"source": "metals.txt", "title": "A title that is longer than the text itself, by far"}

#: Writer -> the text source that is found.
WRITTEN = {
    "langchain": "page_content",
    "llama-index": "llama-index",
    "llama-index-node": "llama-index",
    "haystack": "content",
    "mcp": "document",
    "fastembed": "document",
}


def written(writer, text):
    """The payload of one text with metadata."""
    match writer:
        case "langchain":
            return {"page_content": text, "metadata": META}
        case "llama-index":
            return _node(text=text, mimetype="text/plain", class_name="TextNode")
        case "llama-index-node":
            resource = {"embeddings": None, "text": text, "path": None, "mimetype": None}
            return _node(text_resource=resource, image_resource=None, class_name="Node")
        case "haystack":
            return {
                "id": "5b7bbc587f08dd23921f1809831c30476c23fbf13f9ad856f955cd089695dc2d",
                "content": text,
                "blob": None,
                "meta": META,
                "score": None,
                "sparse_embedding": None,
            }
        case "mcp":
            return {"document": text, "metadata": META}
        case "fastembed":
            return {"document": text, **META}


def _node(**fields):
    """The fields of a LlamaIndex node as its Qdrant store writes them."""
    related = {"node_id": "439a6566", "node_type": "4", "metadata": META, "hash": "3c0e9f4a7f06"}
    content = {
        "id_": "10a16983-0c97-4840-becb-1a8583eb564b",
        "embedding": None,
        "metadata": META,
        "excluded_embed_metadata_keys": [],
        "excluded_llm_metadata_keys": [],
        "relationships": {"1": related},
        "metadata_template": "{key}: {value}",
        "metadata_separator": "\n",
        "text_template": "{metadata_str}\n\n{content}",
        **fields,
    }
    document = "439a6566-42b2-421f-8b98-320cd13e29db"
    return {
        **META,
        "_node_content": json.dumps(content),
        "_node_type": fields["class_name"],
        "document_id": document,
        "doc_id": document,
        "ref_doc_id": document,
    }
