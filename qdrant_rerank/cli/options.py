"""The options that several commands share, and what they were given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

import click

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER, DEFAULT_RERANKER

__all__ = [
    "AUTO",
    "NONE",
    "ONE_OR_MORE",
    "Source",
    "as_one",
    "batch_size_option",
    "document_states_option",
    "json_option",
    "language_option",
    "model",
    "optional_source_options",
    "require_candidates",
    "reranker_option",
    "source_options",
    "text_option",
    "text_source",
]

NONE = "none"  # instead of the name of a model
AUTO = "auto"  # instead of the payload field that has the text
ONE_OR_MORE = click.IntRange(min=1)
Command = Callable[..., None]

batch_size_option = click.option(
    "--batch-size", type=ONE_OR_MORE, default=256, show_default=True, help="Documents per request."
)
document_states_option = click.option(
    "--document-states",
    type=click.Choice(["int8", "float16", "pq"]),
    help="Store what the reranker makes of each document: see 'states'. Else as the collection "
    "before.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
text_option = click.option(
    "--text",
    "text",
    multiple=True,
    default=(AUTO,),
    show_default=True,
    help="Payload field with the text, a template such as '{title} {body}', langchain, "
    "llama-index, haystack or mcp; auto finds it. Repeatable.",
)
language_option = click.option(
    "--language",
    help="Language of BM25, such as german; else the one that the collection records, or english.",
)
PLACE_OPTIONS = (
    click.option("--url", help="URL of a server; else QDRANT_URL. Its key: QDRANT_API_KEY."),
    click.option("--path", help="Directory of an embedded Qdrant; else QDRANT_PATH."),
    text_option,
    click.option(
        "--embedder",
        default=DEFAULT_EMBEDDER,
        show_default=True,
        help="Dense encoder: a bundled or hub name, a directory, or 'none'.",
    ),
    language_option,
)


@dataclass(frozen=True, slots=True)
class Source:
    """The collection that a command works on, and how its texts are read and embedded.

    Attributes:
        collection: its name; "" if no name was given, where the command allows that.
        url: of a server; None for the environment's, or a directory.
        path: of an embedded Qdrant; None for the environment's, or a server.
        text: payload fields, or one template, preset, or "auto".
        embedder: a name, a directory, or "none".
        language: of BM25; None for the collection's.
    """

    collection: str
    url: str | None
    path: str | None
    text: tuple[str, ...]
    embedder: str
    language: str | None


def as_one(
    kind: type, name: str, options: Sequence[Callable[[Command], Command]]
) -> Callable[[Command], Command]:
    """Return a decorator that adds options to a command, and hands them over as one object.

    Args:
        kind: a dataclass with one field per option.
        name: the command's argument for it.
        options: the options, in the order of the help text.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_object(**given: Any) -> None:
            made = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
            command(**{name: made}, **given)

        decorated: Command = with_object
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def source_options(command: Command) -> Command:
    """Add the options of a :class:`Source`, which the command gets as ``source``."""
    required = click.option("--collection", required=True, help="Name of the collection.")
    return as_one(Source, "source", (required, *PLACE_OPTIONS))(command)


def optional_source_options(command: Command) -> Command:
    """Add the same options, of which the command needs no collection."""
    optional = click.option("--collection", default="", help="Name of the collection, if any.")
    return as_one(Source, "source", (optional, *PLACE_OPTIONS))(command)


def reranker_option(others: str = "or a path") -> Callable[[Command], Command]:
    """Return the option for the cross-encoder; ``others`` says what it takes besides a name."""
    return click.option(
        "--reranker",
        default=DEFAULT_RERANKER,
        show_default=True,
        help=f"Cross-encoder: a name from 'models', {others}.",
    )


def require_candidates(candidates: int, limit: int) -> None:
    """Raise InvalidInputError if there are fewer candidates than hits to return."""
    if candidates < limit:
        raise InvalidInputError(
            f"--candidates is {candidates} and --limit {limit}; expected candidates of at least "
            "limit, since only candidates can be returned."
        )


def model(name: str) -> str | None:
    """Return the name of a model as the package takes it: None for 'none'."""
    return None if name == NONE else name


def text_source(text: Sequence[str]) -> str | list[str]:
    """Return one field, template or preset, "auto", or several fields."""
    return text[0] if len(text) == 1 else list(text)
