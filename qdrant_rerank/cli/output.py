"""How the commands print: results on stdout, warnings and errors as one line each on stderr."""

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console

from qdrant_rerank.errors import (
    CollectionError,
    MissingTextWarning,
    QdrantError,
    QdrantRerankError,
    redact,
)
from qdrant_rerank.utils.rendering import Table, json_text, rich_table
from qdrant_rerank.utils.terminal import inert, one_line, shortened

__all__ = [
    "BadInput",
    "Commands",
    "console",
    "counted",
    "documents_are",
    "opening",
    "print_json",
    "print_table",
    "say",
]

INTERRUPTED = 130  # the exit code of a command that Ctrl-C ended, by the shells' convention
LONGEST_CELL = 100  # characters of a text in a table


class BadInput(click.ClickException):
    """One line on stderr, exit code 2."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(redact(one_line(message)))


class Commands(click.Group):
    """A group of commands that shows our errors and warnings as one line each."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the arguments of the group itself."""
        with _inert_usage_errors():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # for a terminal that lacks a character
        # Its thread compares versions, and may end after us. `client_for` and doctor say the same.
        warnings.filterwarnings("ignore", module=r"qdrant_client\.")
        with warnings.catch_warnings():
            warnings.showwarning = _shown_once()
            try:
                with _inert_usage_errors():
                    return super().invoke(ctx)
            except BrokenPipeError:  # the reader of the output has ended
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise SystemExit(0) from None
            except KeyboardInterrupt:
                say("Interrupted.", err=True)
                raise SystemExit(INTERRUPTED) from None
            except (QdrantRerankError, OSError) as error:
                raise BadInput(_with_help(error)) from error


@contextmanager
def _inert_usage_errors() -> Iterator[None]:
    """Let no name that click repeats drive the terminal."""
    try:
        yield
    except click.UsageError as error:
        message = error.format_message()
        if message != inert(message):
            raise click.UsageError(inert(message), error.ctx) from None
        raise


def _shown_once() -> Callable[..., None]:
    """Make a ``warnings.showwarning`` that prints a line on stderr, once per kind of warning."""
    shown: set[object] = set()

    def show(message: Warning | str, *where: Any) -> None:
        line = _in_one_line(message)
        kind = type(message) if isinstance(message, MissingTextWarning) else line
        if kind not in shown:
            shown.add(kind)
            click.echo(f"Warning: {redact(line)}", err=True)

    return show


def _with_help(error: QdrantRerankError | OSError) -> str:
    """Return the message in one line; if it is about Qdrant, with the page that explains it.

    Messages about models end with a command to copy.
    """
    line = _in_one_line(error)
    if isinstance(error, QdrantError | CollectionError):
        line = f"{line.rstrip()} See {error.help_url}"
    return line


def _in_one_line(shown: BaseException | str) -> str:
    """Return the message of an error or a warning, with options instead of Python's arguments."""
    message = getattr(shown, "command_message", "")
    return one_line(message or " ".join([str(shown), *getattr(shown, "__notes__", [])]))


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the group, as with everything else that is printed."""
        raise BrokenPipeError


def console() -> Console:
    """Return what results are printed on."""
    return _Output()


def say(text: object, *, err: bool = False) -> None:
    """Print a text on stdout or stderr, such that no name in it can drive the terminal."""
    click.echo(inert(str(text)), err=err)


def print_table(table: Table) -> None:
    """Print a table on stdout."""
    console().print(rich_table(table))


def print_json(content: Any) -> None:
    """Print JSON on stdout."""
    click.echo(json_text(content))


def opening(text: str | None) -> str:
    """Return the opening of a text for a cell of a table, on one line; "" for no text."""
    return shortened(one_line(text or ""), LONGEST_CELL)


def counted(number: int, what: str) -> str:
    """Write a number with its noun.

    >>> counted(1, "document"), counted(1200, "hit")
    ('1 document', '1,200 hits')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"


def documents_are(number: int) -> str:
    """Write a number of documents as the subject of a sentence.

    >>> documents_are(1), documents_are(2)
    ('1 document is', '2 documents are')
    """
    return f"{counted(number, 'document')} {'is' if number == 1 else 'are'}"
