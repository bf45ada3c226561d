"""Filters: qdrant-client's models to qdrant-edge's. Pure: no I/O.

A server finds a text in a field without a text index as a run of characters, and so does this.
"""

import math
from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.qdrant.embedded.checks import as_list, as_model, require_finite
from qdrant_rerank.qdrant.embedded.points import to_id
from qdrant_rerank.utils.client_models import MatchPrefix, MatchSubstring, SliceCondition

__all__ = ["excluding", "to_condition", "to_filter"]

WIDEST_BOX = 90.0  # degrees of longitude
OVERLAP = 0.01


def excluding(given: models.Filter | None, ids: Sequence[Any]) -> models.Filter | None:
    """Return the filter without the points that a query names, which Qdrant leaves out."""
    if not ids:
        return given
    not_these = models.HasIdCondition(has_id=list(ids))
    if given is None:
        return models.Filter(must_not=[not_these])
    return models.Filter(must=[given], must_not=[not_these])


def to_filter(given: Any, indexed: Container[str]) -> edge.Filter | None:
    """Convert a filter; empty lists in it are absent, as on a server.

    Args:
        given: the filter, as a model or as a mapping; None for all points.
        indexed: payload fields with a text index.

    Raises:
        QdrantRequestError: the engine does not know a condition, or a number is not finite.
    """
    given = as_model(models.Filter, given)
    if given is None:
        return None
    require_finite(given, "The filter")
    return _filter(given, indexed)


def _filter(given: models.Filter, indexed: Container[str]) -> edge.Filter:
    def conditions(some: Any) -> list[Any] | None:
        return [to_condition(one, indexed) for one in as_list(some)] or None

    at_least = given.min_should
    return edge.Filter(
        must=conditions(given.must),
        should=conditions(given.should),
        must_not=conditions(given.must_not),
        min_should=None
        if at_least is None
        else edge.MinShould(conditions(at_least.conditions) or [], at_least.min_count),
    )


def to_condition(given: Any, indexed: Container[str]) -> Any:
    """Convert one condition of a filter.

    Raises:
        QdrantRequestError: the engine does not know it.
    """
    match given:
        case models.Filter():
            return _filter(given, indexed)
        case models.FieldCondition():
            return _field_condition(given, indexed)
        case models.IsEmptyCondition():
            return edge.IsEmptyCondition(given.is_empty.key)
        case models.IsNullCondition():
            return edge.IsNullCondition(given.is_null.key)
        case models.HasIdCondition():
            return edge.HasIdCondition({to_id(one) for one in given.has_id})
        case models.HasVectorCondition():
            return edge.HasVectorCondition(given.has_vector)
        case SliceCondition():
            return edge.SliceCondition(  # type: ignore[attr-defined]  # not in its stubs
                total=given.slice.total, index=given.slice.index
            )
        case models.NestedCondition():
            within = given.nested.key.removesuffix("[]") + "[]."
            return edge.NestedCondition(
                given.nested.key, _filter(given.nested.filter, _Within(indexed, within))
            )
        case _:
            raise QdrantRequestError(
                f"The embedded Qdrant does not know the condition {type(given).__name__}."
            )


class _Within:
    """The fields of an object of a list, by their names in it.

    Args:
        fields: by their whole path.
        path: of the list.
    """

    def __init__(self, fields: Container[str], path: str) -> None:
        self._fields = fields
        self._path = path

    def __contains__(self, field: object) -> bool:
        return f"{self._path}{field}" in self._fields


def _field_condition(given: models.FieldCondition, indexed: Container[str]) -> Any:
    parts = _parts(given, indexed)
    if parts is not None:
        fields = [_field_condition(part, indexed) for part in parts]
        return edge.Filter(should=fields) if fields else edge.HasIdCondition(set())
    box, radius, polygon = given.geo_bounding_box, given.geo_radius, given.geo_polygon
    count = given.values_count
    return edge.FieldCondition(
        given.key,
        match=_match(given.match, is_indexed=given.key in indexed),
        range=_range(given.range),
        geo_bounding_box=None
        if box is None
        else edge.GeoBoundingBox(_place(box.top_left), _place(box.bottom_right)),
        geo_radius=None if radius is None else edge.GeoRadius(_place(radius.center), radius.radius),
        geo_polygon=None
        if polygon is None
        else edge.GeoPolygon(
            [_place(point) for point in polygon.exterior.points],
            [[_place(point) for point in line.points] for line in polygon.interiors or []],
        ),
        values_count=None
        if count is None
        else edge.ValuesCount(lt=count.lt, gt=count.gt, lte=count.lte, gte=count.gte),
        is_empty=given.is_empty,
        is_null=given.is_null,
    )


def _parts(
    given: models.FieldCondition, indexed: Container[str]
) -> list[models.FieldCondition] | None:
    """Return conditions of which one has to hold, where the engine answers the whole wrongly.

    These are any word of a text in a field without a text index, which a server finds as a run of
    characters, and a box so wide that the engine's index of places finds nothing in it.
    """
    if isinstance(given.match, models.MatchTextAny) and given.key not in indexed:
        words = dict.fromkeys(given.match.text_any.split())
        return [_with(given, match=MatchSubstring(substring=word)) for word in words]
    box = given.geo_bounding_box
    if box is None:
        return None
    west, east = box.top_left.lon, box.bottom_right.lon
    wide = (east - west) % 360 or (0.0 if east == west else 360.0)
    if wide <= WIDEST_BOX:
        return None
    number = math.ceil(wide / WIDEST_BOX)
    starts = [west + wide * at / number for at in range(number)]
    # They overlap, since a place on the edge of a box is not in it.
    ends = [*(start + OVERLAP for start in starts[1:]), east]
    return [
        _with(
            given,
            geo_bounding_box=models.GeoBoundingBox(
                top_left=models.GeoPoint(lon=_longitude(start), lat=box.top_left.lat),
                bottom_right=models.GeoPoint(lon=_longitude(end), lat=box.bottom_right.lat),
            ),
        )
        for start, end in zip(starts, ends, strict=True)
    ]


def _with(given: models.FieldCondition, **changed: Any) -> models.FieldCondition:
    return given.model_copy(update=changed)


def _longitude(degrees: float) -> float:
    """Return a longitude from -180 to 180."""
    return degrees - 360 if degrees > 180 else degrees


def _match(given: Any, *, is_indexed: bool) -> Any:
    match given:
        case None:
            return None
        case models.MatchValue(value=bool() as value):
            # The engine takes Python's own for the numbers 0 and 1.
            return edge.MatchValue(np.bool_(value))  # type: ignore[arg-type]
        case models.MatchValue():
            return edge.MatchValue(given.value)
        # Without an index, a server finds these as a run of characters.
        case models.MatchText():
            return edge.MatchText(given.text) if is_indexed else edge.MatchSubstring(given.text)
        case models.MatchPhrase():
            if is_indexed:
                return edge.MatchPhrase(given.phrase)
            return edge.MatchSubstring(given.phrase)
        case models.MatchTextAny():
            return edge.MatchTextAny(given.text_any)
        case MatchPrefix():
            return edge.MatchPrefix(given.prefix)
        case MatchSubstring():
            return edge.MatchSubstring(given.substring)
        case models.MatchAny():
            return edge.MatchAny(given.any)
        case _:
            return edge.MatchExcept(given.except_)


def _range(given: Any) -> Any:
    if given is None:
        return None
    limits = {name: getattr(given, name) for name in ("gte", "gt", "lte", "lt")}
    if isinstance(given, models.DatetimeRange):
        dates = {n: None if v is None else v.isoformat() for n, v in limits.items()}
        return edge.RangeDateTime(**dates)
    return edge.RangeFloat(**limits)


def _place(point: models.GeoPoint) -> edge.GeoPoint:
    return edge.GeoPoint(lon=point.lon, lat=point.lat)
