"""The findings of ``qdrant-rerank doctor``.

``doctor_machine``, ``doctor_server`` and ``doctor_model`` have the checks that make them. All of it
is pure: the command collects what the checks look at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from qdrant_rerank.errors import MANUAL, redact

__all__ = [
    "MANY",
    "Finding",
    "Kind",
    "name_list",
]

Kind = Literal[
    "collection",
    "environment",
    "filters",
    "gpus",
    "model",
    "packages",
    "schema",
    "server",
    "states",
    "strict mode",
    "text",
]

#: Page of the manual that explains findings of a kind.
PAGES: Mapping[Kind, str] = MappingProxyType(
    {
        "collection": "search.html#use-a-collection-that-exists",
        "environment": "reference/settings.html",
        "filters": "search.html#filter-skip-cut",
        "gpus": "gpu.html",
        "model": "models.html#files-of-a-model",
        "packages": "install.html#extras",
        "schema": "search.html#sparse-vectors-of-others",
        "server": "qdrant.html#a-server",
        "states": "states.html#what-a-search-does-when-states-are-missing",
        "strict mode": "errors.html#errors",
        "text": "text.html",
    }
)
#: Least share of points without text, or of truncated texts, that counts as wrong.
MANY = 0.05
SHOWN = 5  # names in a message


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check has seen. Its texts have no secrets, whatever a server said.

    Attributes:
        about: what was looked at.
        wrong: whether results suffer; if not, it is a note, or all is well.
        seen: what was found.
        fix: what to do; "" if there is nothing to do.
    """

    about: Kind
    wrong: bool
    seen: str
    fix: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", redact(self.seen))
        object.__setattr__(self, "fix", redact(self.fix))

    @property
    def page(self) -> str:
        """Address of the page that explains it."""
        return MANUAL + PAGES[self.about]


def name_list(names: Sequence[str], most: int = SHOWN) -> str:
    """Return the first names for a message, and the number of the others.

    >>> name_list(["a", "b", "c"], 2)
    "'a', 'b' and 1 more"
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
