"""Formulas: qdrant-client's models to qdrant-edge's. Pure: no I/O."""

from collections.abc import Callable
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.utils.client_models import AcoshExpression, MaxExpression, MinExpression

__all__ = ["to_expression"]


def to_expression(  # noqa: PLR0912 - a line for each kind
    given: Any, condition: Callable[[Any], Any]
) -> edge.Expression:
    """Convert a formula, or a part of one.

    Args:
        given: one of ``models.Expression``.
        condition: converts the conditions in the formula.

    Raises:
        QdrantRequestError: a part cannot be computed, or the engine does not know it.
    """

    def inner(part: Any) -> edge.Expression:
        return to_expression(part, condition)

    E = edge.Expression  # noqa: N806 - a line for each kind
    match given:
        case bool() | None:
            raise QdrantRequestError(
                f"{given!r} cannot be part of a formula; expected a number, a payload field or an "
                "expression."
            )
        case int() | float():
            return E.Constant(float(given))
        case str():
            return E.Variable(given)
        case models.MultExpression():
            return E.Mult([inner(part) for part in given.mult])
        case models.SumExpression():
            return E.Sum([inner(part) for part in given.sum])
        case MaxExpression():
            return E.Max([inner(part) for part in given.max])
        case MinExpression():
            return E.Min([inner(part) for part in given.min])
        case models.NegExpression():
            return E.Neg(inner(given.neg))
        case models.AbsExpression():
            return E.Abs(inner(given.abs))
        case AcoshExpression():
            return E.Acosh(inner(given.acosh))
        case models.SqrtExpression():
            return E.Sqrt(inner(given.sqrt))
        case models.ExpExpression():
            return E.Exp(inner(given.exp))
        case models.LnExpression():
            return E.Ln(inner(given.ln))
        case models.Log10Expression():
            return E.Log10(inner(given.log10))
        case models.PowExpression():
            return E.Pow(inner(given.pow.base), inner(given.pow.exponent))
        case models.DivExpression():
            parts = given.div
            return E.Div(inner(parts.left), inner(parts.right), parts.by_zero_default)
        case models.DatetimeExpression():
            return E.Datetime(given.datetime)
        case models.DatetimeKeyExpression():
            return E.DatetimeKey(given.datetime_key)
        case models.GeoDistance():
            origin = given.geo_distance.origin
            return E.GeoDistance(
                edge.GeoPoint(lon=origin.lon, lat=origin.lat), given.geo_distance.to
            )
        case models.LinDecayExpression():
            return _decay(edge.DecayKind.Lin, given.lin_decay, inner)
        case models.ExpDecayExpression():
            return _decay(edge.DecayKind.Exp, given.exp_decay, inner)
        case models.GaussDecayExpression():
            return _decay(edge.DecayKind.Gauss, given.gauss_decay, inner)
        case _:
            return E.Condition(condition(given))


def _decay(
    kind: edge.DecayKind,
    given: models.DecayParamsExpression,
    inner: Callable[[Any], edge.Expression],
) -> edge.Expression:
    return edge.Expression.Decay(
        kind,
        inner(given.x),
        target=None if given.target is None else inner(given.target),
        midpoint=given.midpoint,
        scale=given.scale,
    )
