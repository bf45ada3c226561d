"""The script that a text is written in, such as Cyrillic."""

import unicodedata
from collections import Counter
from functools import lru_cache

__all__ = ["foreign_script"]

LOOKED_AT = 400  # characters; enough to see what a text is mostly written in


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    """Return the first word of a letter's name in Unicode, which is its script's."""
    return unicodedata.name(letter, "UNKNOWN").split(" ")[0].split("-")[0]


def foreign_script(text: str) -> str | None:
    """Return the script of a text that is mostly not in Latin letters; None for any other text.

    >>> foreign_script("Как горячо должно быть железо?"), foreign_script("a naïve reader")
    ('Cyrillic', None)
    >>> foreign_script("鉄の融点は何度ですか"), foreign_script("1538")
    ('CJK', None)
    """
    if text.isascii():
        return None
    scripts = Counter(_script(letter) for letter in text[:LOOKED_AT] if letter.isalpha())
    if 2 * scripts["LATIN"] >= scripts.total():
        return None
    [(most, _)] = scripts.most_common(1)
    return most if most == "CJK" else most.capitalize()
