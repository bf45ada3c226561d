"""JSON objects that others wrote: each field is checked when it is read."""

import gc
import json
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qdrant_rerank.errors import ModelFileError

__all__ = ["JsonObject", "parse_json", "uncollected"]


@dataclass(frozen=True, slots=True)
class JsonObject:
    """The fields of a JSON object, with the name of their file for errors.

    A field that is absent or null reads as None.

    Attributes:
        source: the file, or the name of the answer that holds the object.
        fields: name -> value.
        advice: last sentence of an error.
    """

    source: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    advice: str = "Fetch the file again, or correct it."

    @classmethod
    def read(cls, path: Path) -> "JsonObject":
        """Read a file; an empty object if there is no such file.

        Raises:
            ModelFileError: the file is not readable, or not a JSON object.
        """
        try:
            content = parse_json(path.read_bytes().decode("utf-8"))
        except FileNotFoundError:
            return cls(str(path))
        except (OSError, ValueError) as error:
            raise ModelFileError(
                f"{path} is not readable JSON ({error}). Fetch it again, or delete it: only "
                "tokenizer.json and the ONNX file are required."
            ) from error
        return cls.of(content, str(path))

    @classmethod
    def of(cls, content: object, source: str, advice: str = advice) -> "JsonObject":
        """Wrap a parsed value.

        Raises:
            ModelFileError: the value is not an object.
        """
        if not isinstance(content, dict):
            raise ModelFileError(
                f"{source} holds a {type(content).__name__}, expected a JSON object. {advice}"
            )
        return cls(source, content, advice)

    def text(self, name: str) -> str | None:
        """Return a string."""
        value = self.fields.get(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def whole(self, name: str) -> int | None:
        """Return a whole number."""
        value = self.fields.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.wrong(name, "a whole number")
        return value

    def number(self, name: str) -> int | float | None:
        """Return a number."""
        value = self.fields.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise self.wrong(name, "a number")
        return value

    def list_of(self, name: str, kind: type) -> list[Any]:
        """Return a list of values of one type; an empty one if it is absent."""
        value = self.fields.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, kind) for each in value):
            raise self.wrong(name, f"a list of {kind.__name__}")
        return value

    def object(self, name: str) -> "JsonObject":
        """Return an object inside this one; an empty one if it is absent."""
        value = self.fields.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return JsonObject(f"{self.source}: {name}", value or {}, self.advice)

    def wrong(self, name: str, expected: str) -> ModelFileError:
        """Return the error that says what a field holds and what was expected."""
        return ModelFileError(
            f"{self.source}: {name} is {reprlib.repr(self.fields.get(name))}; expected {expected}. "
            f"{self.advice}"
        )


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage meanwhile: JSON that is nested too deep leads to the end of the stack.

    A finalizer that runs there fails, and what it should have closed stays open.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def parse_json(text: str | bytes) -> Any:
    """Parse JSON, of text or UTF-8.

    Raises:
        ValueError: the text is not JSON, or is nested too deep.
    """
    try:
        with uncollected():
            return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
