"""How known packages store texts in Qdrant: the fields to look at, and presets by name."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.json_object import parse_json
from qdrant_rerank.utils.validation import a_type

__all__ = [
    "AUTO",
    "LLAMA_INDEX",
    "NODE_FIELD",
    "NODE_TEXT",
    "PRESETS",
    "TEXT_FIELDS",
    "nearest_preset",
    "node_text",
    "require_no_misspelling",
]

#: The text source that is chosen from payloads.
AUTO = "auto"
LLAMA_INDEX = "llama-index"
#: Presets: name -> payload field. LlamaIndex's is a field that holds a node as JSON.
PRESETS = {
    "langchain": "page_content",
    LLAMA_INDEX: "_node_content",
    "haystack": "content",
    "mcp": "document",
}
NODE_FIELD = PRESETS[LLAMA_INDEX]
NODE_TEXT = "text"  # where LlamaIndex reads the text of a point without a node
#: Names of fields that hold texts, the most usual first.
TEXT_FIELDS = ("text", "page_content", "content", "document", "body", "chunk", "passage")


def node_text(payload: Mapping[str, Any]) -> str | None:
    """Return the text of a payload that LlamaIndex wrote; None if it has none.

    It is in the node, which is JSON in the field ``_node_content``. Without a node, or in a node
    that is stored without its text, it is in the field ``text``, where LlamaIndex reads it, too.

    Raises:
        ValueError: the field is not a node as JSON.
    """
    content = payload.get(NODE_FIELD)
    node: Any = {}
    if isinstance(content, str):
        node = parse_json(content)
    if not isinstance(node, dict) or not isinstance(content, str | None):
        found = node if isinstance(content, str) else content
        raise ValueError(f"it is {a_type(found)}")
    resource = node.get("text_resource")  # of a Node; a TextNode has the text itself
    inner = resource.get("text") if isinstance(resource, dict) else None
    for text in (node.get("text"), inner, payload.get(NODE_TEXT)):
        if isinstance(text, str) and text.strip():
            return text
    return None


def nearest_preset(name: str) -> str | None:
    """Return the preset that a name is, or nearly is; None for the name of any other field."""
    plain = {_plain(preset): preset for preset in PRESETS}
    long = [one for one in plain if len(one) > 4]
    near = [_plain(name)] if _plain(name) in plain else []
    near = near or difflib.get_close_matches(_plain(name), long, n=1, cutoff=0.85)
    return plain[near[0]] if near else None


def require_no_misspelling(source: str) -> None:
    """Refuse the name of a field that is nearly that of a preset.

    Raises:
        InvalidInputError: it is; the message says how to read a field of that name.
    """
    preset = nearest_preset(source)
    if preset is not None:
        raise InvalidInputError(
            f"text={source!r} is not a preset; expected one of {', '.join(map(repr, PRESETS))}, or "
            f"'auto'. Pass text={preset!r}; for a payload field of that name, text='\"{source}\"'.",
            command=f"--text is {source!r}, which is not a preset; expected one of "
            f"{', '.join(map(repr, PRESETS))}, or 'auto'. Pass --text {preset}.",
        )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]|qdrant|server", "", name.lower())
