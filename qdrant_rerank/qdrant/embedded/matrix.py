"""How near the points of a sample are to each other: ``search_matrix_pairs`` and ``_offsets``."""

from qdrant_client import models

from qdrant_rerank.qdrant.embedded.checks import as_list, as_model, require_one
from qdrant_rerank.qdrant.embedded.search import PointSearch
from qdrant_rerank.types import PointId

__all__ = ["nearest_of_sample"]


def nearest_of_sample(
    search: PointSearch,
    collection: str,
    given: models.Filter | None,
    *,
    limit: int,
    sample: int,
    using: str | None,
) -> dict[PointId, list[models.ScoredPoint]]:
    """Return the points of a random sample, each with the nearest others of the sample.

    Args:
        search: reads the collection.
        collection: its name.
        given: a filter that all points of the sample pass.
        limit: of the nearest points of each.
        sample: points of the sample, which have the vector; nothing is returned for fewer than 2.
        using: name of the vector; None for the unnamed one.

    Returns:
        Nearest points by id, in the order of the ids: integers first.

    Raises:
        QdrantRequestError: a number is too small, or there is no such vector.
    """
    require_one("limit", limit)
    require_one("sample", sample, least=2)
    search.require_vector(collection, using)
    given = as_model(models.Filter, given) or models.Filter()
    has_vector = models.HasVectorCondition(has_vector=using or "")
    where = given.model_copy(update={"must": [*as_list(given.must), has_vector]})
    random = models.QueryRequest.model_construct(
        query=models.SampleQuery(sample=models.Sample.RANDOM),
        filter=where,
        limit=sample,
        with_payload=False,
        with_vector=[using] if using else True,
    )
    [found] = search.query(collection, [random])
    if len(found.points) < 2:
        return {}
    points = sorted(found.points, key=lambda one: (isinstance(one.id, str), one.id))
    requests = []
    for point in points:
        others = [one.id for one in points if one.id != point.id]
        by_name = point.vector
        vector = by_name[using or ""] if isinstance(by_name, dict) else by_name
        requests.append(
            models.QueryRequest.model_construct(
                query=vector,
                using=using,
                filter=models.Filter(must=models.HasIdCondition(has_id=others)),
                limit=limit,
                with_payload=False,
            )
        )
    answers = search.query(collection, requests)
    return {point.id: answer.points for point, answer in zip(points, answers, strict=True)}
