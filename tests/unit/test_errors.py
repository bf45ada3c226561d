"""Errors: the tree of their classes, and that no message holds a secret."""

import copy
import inspect
import os
import pickle
import re
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdrant_rerank import errors
from qdrant_rerank.errors import InvalidInputError, QdrantRerankError, redact
from qdrant_rerank.utils.validation import clean_key
from qdrant_rerank.utils.warn import warn_caller
from tests.fault_server import Script, answer, serving

CANARY = "c4nary-K3y.9"
MESSAGES = [
    f"http://me:{CANARY}@host:6333 cannot be reached",
    f"'https://{CANARY}@host' is not a URL",
    f"http://me:{CANARY}/{CANARY}@host:6333/path",
    f"http://me:{CANARY}@{CANARY}@host",
    f"https://host/x?key={CANARY}&wait=true",
    f"https://host/?a=1&api_key={CANARY}#part",
    f"https://host/?access_token={CANARY}.",
    f"Illegal header value b'{CANARY}\\n'",
    f"metadata was invalid: [('api-key', '{CANARY}\\n'), ('user-agent', 'x')]",
    f"{{'authorization': 'Bearer {CANARY}'}}",
    f"authorization: Bearer {CANARY}",
    "authorization: Bearer c4nary",
    "authorization=b'bearer cAnary'",
    "Sent with bearer c4nary-K3y.8 to the server",
    "Sent with bearer cAnaryQwertyUiopAsdfGhjk to the server",
    f"The server answered {CANARY}",  # in QDRANT_API_KEY
    f"The server answered {CANARY + chr(10)!r}",
]
CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, QdrantRerankError)
]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    """A key of the environment, with the newline that a file leaves."""
    monkeypatch.setenv("QDRANT_API_KEY", f"{CANARY}\n")


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("message", MESSAGES)
def test_no_error_shows_a_secret(kind, message):
    """Not as text, in a traceback, in a note, pickled, or copied; the rest stays."""
    error = kind(message)
    error.add_note(message)
    for made in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        shown = "".join(traceback.format_exception(made))
        for text in (str(made), repr(made), repr(made.args), shown, repr(vars(made))):
            assert CANARY not in text
            assert "c4nary" not in text
            assert "cAnary" not in text
        assert "***" in str(made)
        assert type(made) is kind


@pytest.mark.parametrize("message", MESSAGES)
def test_no_warning_shows_a_secret(message):
    """They are redacted where they are shown."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warn_caller(message)
    assert CANARY not in str(seen[0].message)


@pytest.mark.parametrize(
    "text",
    [
        "Qdrant at http://localhost:6333 cannot be reached.",
        "https://host:6333/collections/a@b and https://example.com/@user",
        "its payload has ['author', 'key', 'title']; {'key': 'value', 'author': 'Melville'}",
        "Pass api_key=..., or set QDRANT_API_KEY.",
        "mail to someone@example.com",
        "Must provide an API key or an Authorization bearer token.",
        "The server takes bearer authentication and no basic-authentication.",
        "https://host/?timeout=5&keyboard=de&author=Melville",
    ],
)
def test_ordinary_text_stays_as_it_is(text):
    """Hosts, ports, paths, payloads and advice."""
    assert redact(text) == text
    assert str(InvalidInputError(text)) == text


@given(st.text())
def test_redacting_twice_changes_nothing_more(text):
    """So an error may be made of another one's message."""
    assert redact(redact(text)) == redact(text)


def test_a_secret_that_is_not_in_the_environment_can_be_named():
    """Such as the key that a client was made with; a short one is part of words."""
    assert redact("the s3cr3t-key!", "s3cr3t-key") == "the ***!"
    assert redact("the key", "key", None, "") == "the key"


def test_a_key_is_stripped_and_never_shown():
    """White space around it goes; within it is refused."""
    assert clean_key("QDRANT_API_KEY", f" {CANARY}\r\n") == CANARY
    assert clean_key("QDRANT_API_KEY", " \n") is None
    assert clean_key("QDRANT_API_KEY", None) is None
    for broken in (f"{CANARY}\n{CANARY}", f"{CANARY} {CANARY}", f"{CANARY}é"):
        with pytest.raises(InvalidInputError, match="QDRANT_API_KEY has .* Copy the key") as error:
            clean_key("QDRANT_API_KEY", broken)
        assert CANARY not in str(error.value)


def test_a_search_with_a_key_from_a_file_reaches_the_server():
    """The newline would make a header that no request can have; the output shows no secret."""
    script = Script({"*": [answer(401, f"Wrong key {CANARY}".encode())]})
    with serving(script) as url:
        done = subprocess.run(
            [
                *(sys.executable, "-W", "ignore", "-c"),
                "from qdrant_rerank import HybridSearcher; HybridSearcher('docs').search('iron')",
            ],
            env=os.environ
            | {"QDRANT_API_KEY": f"{CANARY}\n", "QDRANT_URL": url.replace("://", "://me:pAss@")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("qdrant_rerank.errors.QdrantRequestError: ")
    assert CANARY not in last
    assert "pAss" not in last
    assert "Illegal header" not in done.stderr
    assert script.seen


def test_the_tree_of_errors_is_the_one_drawn():
    """Every class, under its parent, at its depth."""
    drawn = {}
    path = []
    for line in errors.__doc__.splitlines():
        words = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ").split()
        if words and words[0].endswith(("Error", "Warning")) and line.startswith("    "):
            depth = (len(line) - len(line.lstrip(" │├└─"))) // 4
            path = [*path[: depth - 1], words[0]]
            drawn[words[0]] = path[-2] if len(path) > 1 else None
    real = {
        name: next((b.__name__ for b in cls.__bases__ if b.__name__ in errors.__all__), None)
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if not name.startswith("_")
    }
    assert drawn == real
    assert set(real) == set(errors.__all__)


MANUAL = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_has_the_address_of_its_remedy(kind):
    """A heading of its own in the manual; a caller's own class has that of its base."""
    page, heading = kind.help_url.removeprefix(errors.MANUAL).split(".html#")
    text = (MANUAL / f"{page}.md").read_text("utf-8")
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    assert heading in {each.lower().replace(" ", "-") for each in headings}
    if kind is not QdrantRerankError:
        assert heading == kind.__name__.lower()
        assert type("Mine", (kind,), {}).help_url == kind.help_url
