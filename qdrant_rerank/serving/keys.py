"""Who may ask: bearer keys, compared in constant time."""

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from qdrant_rerank.errors import InvalidInputError

__all__ = ["Keys", "read_keys"]

FEWEST_CHARACTERS = 16  # of a key; shorter ones can be guessed


class Keys:
    """The keys of a server. Only their digests are kept.

    Args:
        keys: any number; without keys everybody may ask.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.strip().encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def allow(self, authorization: bytes | None) -> bool:
        """Return whether a header Authorization has one of the keys.

        The time it takes tells neither how much of a key is right nor which key it is.
        """
        if not self._digests:
            return True
        scheme, _, key = (authorization or b"").partition(b" ")
        given = _digest(key.strip())
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, given)
        return found and scheme.lower() == b"bearer"


def read_keys(path: str | Path) -> tuple[str, ...]:
    """Read a file with one key per line; blank lines and lines that start with # do not count.

    Raises:
        InvalidInputError: the file cannot be read or has no key, or a key is too short or has
            blanks or characters that no header can hold. No message shows a key.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidInputError(f"The key file {path} cannot be read: {reason}.") from None
    keys = []
    for number, line in enumerate(lines, start=1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if len(key) < FEWEST_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
            raise InvalidInputError(
                f"Line {number} of the key file {path} is no key: expected at least "
                f"{FEWEST_CHARACTERS} ASCII characters without blanks, such as the output of "
                "'openssl rand -hex 32'."
            )
        keys.append(key)
    if not keys:
        raise InvalidInputError(f"The key file {path} has no key; expected one per line.")
    return tuple(keys)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
