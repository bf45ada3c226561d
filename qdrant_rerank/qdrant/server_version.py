"""Features that a request needs, and the first server version that has them. No I/O.

A server that does not know a query answers with a parser's message about an untagged enum. The
errors here say before the request is sent what is missing, and which version has it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.utils.client_models import RelevanceFeedbackQuery, TextQuery, optional_field

__all__ = [
    "FEATURES",
    "TEXT_INDEX",
    "Feature",
    "Version",
    "needs",
    "parse_version",
    "require_version",
]

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that servers can do from some version on.

    Attributes:
        what: its name in errors.
        since: the first version that has it.
        instead: advice for an older server; "" if there is none.
    """

    what: str
    since: Version
    instead: str = ""


TEXT_INDEX = Feature(
    "ranking by a payload index (TextIndex, TextQuery)",
    (1, 20, 0),
    "pass sparse='Qdrant/bm25' with a sparse vector",
)
# By the model of qdrant-client that asks for it; the versions are those of Qdrant's documentation.
# The client's own oldest server, 1.19, would do for most; older ones are in use all the same.
FEATURES: Mapping[type[BaseModel], Feature] = {
    models.FormulaQuery: Feature("formula queries (FormulaQuery)", (1, 14, 0)),
    models.Mmr: Feature("Mmr inside Qdrant", (1, 15, 0), "pass SearchOptions(diversity=...)"),
    models.Document: Feature(
        "making vectors from text (models.Document)",
        (1, 15, 3),
        "pass sparse='Qdrant/bm25', which is computed here",
    ),
    models.RrfQuery: Feature("Rrf with its own k", (1, 16, 0), "pass fusion='rrf'"),
    models.ShardKeyWithFallback: Feature("ShardKeyWithFallback", (1, 16, 0), "pass one shard key"),
    models.AcornSearchParams: Feature("the ACORN search (SearchParams.acorn)", (1, 16, 0)),
    RelevanceFeedbackQuery: Feature("RelevanceFeedbackQuery", (1, 17, 0)),
    TextQuery: TEXT_INDEX,
    models.HasVectorCondition: Feature("HasVectorCondition", (1, 13, 0)),
    models.MatchPhrase: Feature("MatchPhrase", (1, 15, 0), "pass MatchText"),
    models.MatchTextAny: Feature("MatchTextAny", (1, 16, 0), "pass several MatchText in should"),
}
WEIGHTED_RRF = Feature("Rrf with weights", (1, 17, 0), "pass Rrf without weights, or fusion='rrf'")


def needs(requests: Iterable[BaseModel]) -> list[Feature]:
    """Return the features of requests that not every server has, the newest first.

    Args:
        requests: models such as ``QueryRequest``, which are searched with all that they hold.
    """
    found = {feature for request in requests for feature in _features(request)}
    return sorted(found, key=lambda feature: (feature.since, feature.what), reverse=True)


def _features(value: Any) -> Iterator[Feature]:
    if isinstance(value, list | tuple):
        # A vector, or the ids of a filter, are long and of one kind; the first element shows that.
        if value and not isinstance(value[0], int | float | str):
            for element in value:
                yield from _features(element)
        return
    if not isinstance(value, BaseModel):
        return
    if type(value) in FEATURES:
        yield FEATURES[type(value)]
    if isinstance(value, models.Rrf) and optional_field(value, "weights") is not None:
        yield WEIGHTED_RRF
    if not isinstance(value, models.SparseVector):
        for name in type(value).model_fields:
            yield from _features(getattr(value, name))


def parse_version(said: str) -> Version | None:
    """Return the numbers of a version such as "1.17.0-dev"; None for any other text."""
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", said)
    if match is None:
        return None
    major, minor, patch = match.groups()
    return int(major), int(minor), int(patch or 0)


def require_version(features: Iterable[Feature], server: Version, where: str) -> None:
    """Raise an error unless the server is new enough.

    Args:
        features: what requests need.
        server: version of the server.
        where: name of the server in errors.

    Raises:
        QdrantRequestError: the server lacks a feature; the message has both versions.
    """
    for feature in features:
        if server < feature.since:
            raise QdrantRequestError(
                f"{where} is of version {_shown(server)}, which lacks {feature.what}; expected "
                f"{_shown(feature.since)} or newer."
                + (f" Upgrade it, or {feature.instead}." if feature.instead else " Upgrade it.")
            )


def _shown(version: Version) -> str:
    return ".".join(map(str, version))
