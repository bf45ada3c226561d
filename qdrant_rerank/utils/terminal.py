"""Text from elsewhere -> text that is safe to print in a terminal.

A document, an id, a file name or an error of another program may hold escape sequences, which
move the cursor, change the title or write to the clipboard, and direction controls, which show a
line in another order than it has.
"""

import re

__all__ = ["inert", "one_line", "shortened"]

# Control characters but tab and newline, line and paragraph separators, halves of surrogate pairs.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def inert(text: str) -> str:
    r"""Remove what could drive a terminal or reorder a line; keep tabs and newlines.

    Control characters and halves of surrogate pairs become spaces; direction controls go.

    >>> inert("a\x1b[2Jb\nc\u202ed")
    'a [2Jb\ncd'
    """
    return BIDI_CONTROLS.sub("", CONTROLS.sub(" ", text))


def one_line(text: str) -> str:
    r"""Put a text on one line, without what could drive a terminal or reorder the line.

    >>> one_line("a\x1b[2J \r\n b")
    'a [2J b'
    """
    return " ".join(inert(text).split())


def shortened(text: str, length: int) -> str:
    """Cut a text to at most ``length`` characters, with an ellipsis for the rest.

    >>> shortened("iron ore", 6)
    'iron…'
    """
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
