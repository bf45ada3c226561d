"""Random work on a collection, from a seed: changes, filters and searches of any client."""

import random
import time
import uuid

import numpy as np
from qdrant_client import models

COLOURS = ("red", "green", "blue")
WORDS = ("iron", "Iron", "ironclad", "ore", "ore,", "melts")
MAX_SIM = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
# None of booleans: with it, a server finds points that should and must_not name alike.
INDEXES = {
    "colour": models.PayloadSchemaType.KEYWORD,
    "tags": models.PayloadSchemaType.KEYWORD,
    "size": models.PayloadSchemaType.INTEGER,
    "price": models.PayloadSchemaType.FLOAT,
    "when": models.PayloadSchemaType.DATETIME,
    "at": models.PayloadSchemaType.GEO,
    "key": models.PayloadSchemaType.UUID,
    "inner[].k": models.PayloadSchemaType.KEYWORD,
}
TEXT = models.TextIndexParams(type="text", tokenizer="word", lowercase=True)
OPERATIONS = (
    "upsert",
    "update_vectors",
    "delete_vectors",
    "set_payload",
    "overwrite_payload",
    "delete_payload",
    "clear_payload",
    "delete",
)
NAMES = ("dense", "multi", "sparse")
# Vectors that collections get later, and lose again.
LATE = {
    "late": models.DenseVectorNameConfig(dense=models.DenseVectorConfig(size=3, distance="Dot")),
    "late sparse": models.SparseVectorNameConfig(sparse=models.SparseVectorConfig()),
}


class Scenario:
    """What is done and asked, in an order that the seed decides.

    Args:
        seed: of the random numbers.
        texts: whether filters match texts, which local mode does otherwise than a server.
    """

    def __init__(self, seed, *, texts):
        self.random = random.Random(seed)
        self.texts = texts
        self.ids = [
            *range(1, 13),
            *(str(uuid.UUID(int=self.random.getrandbits(128))) for _ in "12"),
        ]
        distance = self.random.choice(["Cosine", "Dot", "Euclid", "Manhattan"])
        self.config = {
            "vectors_config": {
                "dense": models.VectorParams(size=4, distance=distance),
                "multi": models.VectorParams(size=2, distance="Dot", multivector_config=MAX_SIM),
            },
            "sparse_vectors_config": {"sparse": models.SparseVectorParams()},
        }
        self.indexes = set()
        self.late = set()

    # --- points

    def some_ids(self, least=1):
        """Ids of points that may be there."""
        return self.random.sample(self.ids, self.random.randint(least, 4))

    def vector(self, name):
        """A vector of a kind."""
        number = self.random.uniform
        if name == "dense":
            return [round(number(-1, 1), 4) for _ in range(4)]
        if name == "late":
            return [round(number(-1, 1), 4) for _ in range(3)]
        if name == "multi":
            rows = self.random.randint(1, 3)
            return [[round(number(-1, 1), 4) for _ in range(2)] for _ in range(rows)]
        # The same indices each time: the index of a server, and so the engine's, still finds the
        # former values of a vector at indices that it does not have any more.
        values = [round(number(0, 2), 4) for _ in range(4)]
        return models.SparseVector(indices=[1, 3, 4, 7], values=values)

    def vectors(self):
        """Some vectors of a point."""
        names = self.random.choice([NAMES, NAMES, ("dense", "sparse"), ("multi",), ("dense",), ()])
        late = [name for name in sorted(self.late) if self.random.random() < 0.5]
        return {name: self.vector(name) for name in (*names, *late)}

    def payload(self):
        """A payload with some of the fields."""
        pick, number = self.random.choice, self.random.randint
        fields = {
            "colour": pick(COLOURS),
            "size": number(0, 9),
            "price": number(0, 40) / 4,
            "flag": pick([True, False]),
            "tags": [pick(COLOURS) for _ in range(number(0, 3))],
            "when": f"2026-0{number(1, 9)}-1{number(0, 9)}T12:00:00Z",
            "at": {"lon": number(-179, 179) + 0.5, "lat": number(-80, 80) + 0.5},
            "key": str(uuid.UUID(int=number(0, 3))),
            "text": " ".join(pick(WORDS) for _ in range(number(1, 4))),
            "inner": [{"k": pick(COLOURS), "n": number(0, 5)} for _ in range(number(0, 3))],
            "nothing": None,
        }
        return {name: value for name, value in fields.items() if self.random.random() < 0.8}

    def point(self, point_id):
        """A point."""
        return models.PointStruct(id=point_id, vector=self.vectors(), payload=self.payload())

    # --- filters

    def condition(self, depth):
        """A condition; of filters in filters, up to so many."""
        pick, number = self.random.choice, self.random.randint
        kinds = ["value", "any", "except", "range", "time", "radius", "box", "polygon", "count"]
        kinds += ["empty", "null", "id", "vector", "nested", "flag", "key"]
        kinds += ["text"] * 2 if self.texts else []
        kinds += ["filter"] * 4 if depth else []
        low = number(0, 9)
        match pick(kinds):
            case "value":
                return field(pick(["colour", "tags"]), match=models.MatchValue(value=pick(COLOURS)))
            case "flag":
                return field("flag", match=models.MatchValue(value=pick([True, False])))
            case "key":
                return field("key", match=models.MatchValue(value=str(uuid.UUID(int=number(0, 3)))))
            case "any":
                wanted = self.random.sample([0, 3, 5, 7], 2)
                return pick(
                    [
                        field("tags", match=models.MatchAny(any=["red", "blue"])),
                        field("size", match=models.MatchAny(any=wanted)),
                    ]
                )
            case "except":
                return field("colour", match=models.MatchExcept(**{"except": [pick(COLOURS)]}))
            case "range":
                bounds = {pick(["gt", "gte"]): low, pick(["lt", "lte"]): low + number(0, 6)}
                return field(pick(["size", "price", "inner[].n"]), range=models.Range(**bounds))
            case "time":
                bounds = {pick(["gt", "lte"]): f"2026-0{number(1, 9)}-15T00:00:00Z"}
                return field("when", range=models.DatetimeRange(**bounds))
            case "radius":
                centre = models.GeoPoint(lon=number(-180, 180), lat=number(-80, 80))
                return field(
                    "at", geo_radius=models.GeoRadius(center=centre, radius=number(1, 9) * 1e6)
                )
            case "box":
                north, south = sorted((number(-89, 89), number(-89, 89)), reverse=True)
                west, east = sorted((number(-180, 180), number(-180, 180)))
                return field(
                    "at",
                    geo_bounding_box=models.GeoBoundingBox(
                        top_left=models.GeoPoint(lon=west, lat=north),
                        bottom_right=models.GeoPoint(lon=east, lat=south),
                    ),
                )
            case "polygon":
                west, south = number(-170, 60), number(-80, 20)
                corners = [(0, 0), (60, 0), (90, 50), (0, 50), (0, 0)]
                points = [models.GeoPoint(lon=west + x, lat=south + y) for x, y in corners]
                return field(
                    "at",
                    geo_polygon=models.GeoPolygon(exterior=models.GeoLineString(points=points)),
                )
            case "count":
                return field("tags", values_count=models.ValuesCount(gte=number(0, 2)))
            case "empty":
                key = pick(["tags", "nothing", "colour", "inner"])
                return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
            case "null":
                key = pick(["nothing", "colour"])
                return models.IsNullCondition(is_null=models.PayloadField(key=key))
            case "id":
                return models.HasIdCondition(has_id=self.some_ids())
            case "vector":
                return models.HasVectorCondition(has_vector=pick(NAMES))
            case "nested":
                inner = models.Filter(
                    must=[
                        field("k", match=models.MatchValue(value=pick(COLOURS))),
                        field("n", range=models.Range(gte=number(0, 4))),
                    ]
                )
                return models.NestedCondition(nested=models.Nested(key="inner", filter=inner))
            case "text":
                words = " ".join(pick(WORDS) for _ in range(number(1, 2)))
                match = pick(
                    [
                        models.MatchText(text=words),
                        models.MatchTextAny(text_any=words),
                        models.MatchPhrase(phrase=words),
                    ]
                )
                if isinstance(match, models.MatchPhrase) and "text" in self.indexes:
                    match = models.MatchText(text=words)  # an index without phrases
                return field("text", match=match)
        return self.filter(depth - 1)

    def filter(self, depth=3):
        """A filter, nested up to three deep."""
        number = self.random.randint
        parts = {}
        for name in ("must", "should", "must_not"):
            chosen = self.random.random()
            if chosen < 0.4:
                parts[name] = [self.condition(depth) for _ in range(number(1, 2))]
            elif chosen < 0.5:
                parts[name] = []
            elif chosen < 0.6:
                parts[name] = self.condition(depth)
        if self.random.random() < 0.15:
            some = [self.condition(depth) for _ in range(3)]
            parts["min_should"] = models.MinShould(conditions=some, min_count=number(1, 3))
        return models.Filter(**parts)

    def where(self):
        """A filter or none."""
        return self.filter() if self.random.random() < 0.6 else None

    # --- changes

    def change(self, name):
        """A change: what it is called, and a function that makes it with a client."""
        pick = self.random.choice
        kind = pick(
            ["upsert"] * 4
            + ["batch", "upload", "columns", "operations", "operations", "metadata", "alias"]
            + ["modifier", "recreate"]
            + ["update_vectors", "delete_vectors", "set_payload", "overwrite_payload"]
            + [
                "delete_payload",
                "clear_payload",
                "delete",
                "index",
                "index",
                "no index",
                "vector name",
            ]
        )
        points = [self.point(one) for one in self.some_ids()]
        match kind:
            case "upsert":
                conditions = pick(
                    [
                        {},
                        {},
                        {"update_filter": self.filter()},
                        {"update_mode": pick(list(models.UpdateMode))},
                    ]
                )
                return kind, lambda c: c.upsert(name, points, **conditions)
            case "batch":
                batch = models.Batch(
                    ids=[one.id for one in points],
                    vectors={"dense": [self.vector("dense") for _ in points]},
                    payloads=[one.payload for one in points],
                )
                return kind, lambda c: c.upsert(name, batch)
            case "upload":
                return kind, lambda c: c.upload_points(name, points, batch_size=2, wait=True)
            case "columns":
                arrays = {"dense": np.array([self.vector("dense") for _ in points])}
                found = [one.id for one in points]
                payload = [one.payload for one in points]
                return kind, lambda c: c.upload_collection(
                    name, arrays, ids=found, payload=payload, wait=True
                )
            case "operations":
                some = [self.operation() for _ in range(self.random.randint(1, 4))]
                return kind, lambda c: c.batch_update_points(name, some)
            case "metadata":
                metadata = {pick("abc"): self.random.randint(0, 9)}
                return kind, lambda c: c.update_collection(name, metadata=metadata)
            case "alias":
                old, new = self.random.sample([f"{name}-alias", f"{name}-other"], 2)
                create = models.CreateAlias(collection_name=name, alias_name=new)
                rename = models.RenameAlias(old_alias_name=old, new_alias_name=new)
                delete = models.DeleteAlias(alias_name=new)
                operations = [
                    models.CreateAliasOperation(create_alias=create),
                    models.RenameAliasOperation(rename_alias=rename),
                    models.DeleteAliasOperation(delete_alias=delete),
                ]
                some = self.random.choices(operations, weights=[4, 1, 1], k=pick([1, 1, 2]))
                return kind, lambda c: c.update_collection_aliases(some)
            case "modifier":
                return kind, lambda c: there_and_back(c, name)
            case "recreate":
                self.indexes.clear()
                self.late.clear()
                return kind, lambda c: c.recreate_collection(name, **self.config)
            case "vector name":
                late = pick(sorted(LATE))
                self.late ^= {late}
                if late in self.late:
                    return f"new {late}", lambda c: c.create_vector_name(name, late, LATE[late])
                return f"no {late}", lambda c: c.delete_vector_name(name, late)
            case "index":
                key = pick([*INDEXES, "text"])
                self.indexes.add(key)
                schema = INDEXES.get(key, TEXT)
                return f"index {key}", lambda c: c.create_payload_index(
                    name, key, schema, wait=True
                )
            case "no index":
                key = pick([*INDEXES, "text"])
                self.indexes.discard(key)
                return f"no index {key}", lambda c: c.delete_payload_index(name, key, wait=True)
        operation = self.operation(kind)
        if pick([True, False]):
            return kind, direct(name, kind, operation)
        return kind, lambda c: c.batch_update_points(name, [operation])

    def operation(self, kind=None):
        """One of the changes of points that a batch may hold."""
        pick = self.random.choice
        kind = kind or pick(OPERATIONS)
        by_filter = self.random.random() < 0.5
        where, some = self.filter(), self.some_ids()
        selected = {"filter": where} if by_filter else {"points": some}
        selector = (
            models.FilterSelector(filter=where) if by_filter else models.PointIdsList(points=some)
        )
        match kind:
            case "upsert":
                points = models.PointsList(points=[self.point(one) for one in some])
                return models.UpsertOperation(upsert=points)
            case "update_vectors":
                name = pick(NAMES)
                vectors = [
                    models.PointVectors(id=i, vector={name: self.vector(name)}) for i in some
                ]
                return models.UpdateVectorsOperation(
                    update_vectors=models.UpdateVectors(points=vectors)
                )
            case "delete_vectors":
                wanted = models.DeleteVectors(vector=[pick(NAMES)], **selected)
                return models.DeleteVectorsOperation(delete_vectors=wanted)
            case "set_payload":
                key = pick([None, None, "extra", "inner[]"])
                wanted = models.SetPayload(
                    payload={"n": self.random.randint(0, 5)}, key=key, **selected
                )
                return models.SetPayloadOperation(set_payload=wanted)
            case "overwrite_payload":
                wanted = models.SetPayload(payload=self.payload(), **selected)
                return models.OverwritePayloadOperation(overwrite_payload=wanted)
            case "delete_payload":
                keys = [pick(["colour", "inner[].k", "nothing", "tags"])]
                return models.DeletePayloadOperation(
                    delete_payload=models.DeletePayload(keys=keys, **selected)
                )
            case "clear_payload":
                return models.ClearPayloadOperation(clear_payload=selector)
        return models.DeleteOperation(delete=selector)

    # --- searches

    def query(self):
        """Arguments of ``query_points``, and whether its hits are in a random order."""
        pick = self.random.choice
        using = pick([*NAMES, *sorted(self.late)])
        where = self.where()
        limit, offset = self.random.randint(1, 8), pick([None, 0, 2])
        common = {"query_filter": where, "limit": limit, "offset": offset}
        vector, other = self.vector(using), self.vector(using)
        near = models.Prefetch(query=vector, using=using, limit=20, filter=self.where())
        far = models.Prefetch(query=self.vector("dense"), using="dense", limit=20)
        one, two = self.random.sample(self.ids, 2)
        pair = models.ContextPair(positive=other, negative=self.vector(using))
        strategy = pick(
            ["best_score", "sum_scores"] + ["average_vector"] * (using in {"dense", "late"})
        )
        kinds = {
            "nearest": {"query": vector, "using": using},
            "threshold": {"query": vector, "using": using, "score_threshold": 0.2},
            "by id": {"query": one, "using": using},
            "all": {"query": None},
            "recommend": {
                "query": models.RecommendQuery(
                    recommend=models.RecommendInput(
                        positive=[vector, one], negative=[two], strategy=strategy
                    )
                ),
                "using": using,
            },
            "discover": {
                "query": models.DiscoverQuery(
                    discover=models.DiscoverInput(target=vector, context=[pair])
                ),
                "using": using,
            },
            "context": {"query": models.ContextQuery(context=[pair]), "using": using},
            "feedback": {
                "query": models.RelevanceFeedbackQuery(
                    relevance_feedback=models.RelevanceFeedbackInput(
                        target=vector,
                        feedback=[
                            models.FeedbackItem(example=one, score=0.9),
                            models.FeedbackItem(example=other, score=0.1),
                        ],
                        strategy=models.NaiveFeedbackStrategy(
                            naive=models.NaiveFeedbackStrategyParams(a=0.4, b=0.5, c=0.6)
                        ),
                    )
                ),
                "using": using,
            },
            "mmr": {
                "query": models.NearestQuery(
                    nearest=self.vector("dense"), mmr=models.Mmr(diversity=0.4, candidates_limit=9)
                ),
                "using": "dense",
            },
            "rrf": {"query": models.FusionQuery(fusion="rrf"), "prefetch": [near, far]},
            "dbsf": {"query": models.FusionQuery(fusion="dbsf"), "prefetch": [near, far]},
            "weights": {
                "query": models.RrfQuery(rrf=models.Rrf(k=5, weights=[1.0, 0.5])),
                "prefetch": [near, far],
            },
            "rescore": {"query": vector, "using": using, "prefetch": [far]},
            "formula": {
                "query": models.FormulaQuery(
                    formula=models.SumExpression(
                        sum=[
                            "$score",
                            models.MultExpression(mult=[0.5, "price"]),
                            self.condition(2),
                        ]
                    ),
                    defaults={"price": 2.0},
                ),
                "prefetch": near,
            },
            "sample": {"query": models.SampleQuery(sample=models.Sample.RANDOM)},
        }
        if "size" in self.indexes:
            order = models.OrderBy(key="size", direction=pick(["asc", "desc"]))
            kinds["order"] = {"query": models.OrderByQuery(order_by=order)}
        if not self.texts and using not in {"dense", "late"}:
            del kinds["feedback"]  # local mode has it for dense vectors alone
        kind = pick(list(kinds))
        if kind == "mmr":  # a server takes the offset off the limit
            common["offset"] = None
        return kind, {**common, **kinds[kind], "with_vectors": pick([False, True, ["dense"]])}


def there_and_back(client, name):
    """Turn IDF on, and off again: it counts what was deleted, until that is cleared away."""
    for modifier in (models.Modifier.IDF, models.Modifier.NONE):
        params = models.SparseVectorParams(modifier=modifier)
        client.update_collection(name, sparse_vectors_config={"sparse": params})
        for _ in range(100):  # a node of a cluster learns of it a little later
            there = client.get_collection(name).config.params.sparse_vectors["sparse"].modifier
            if (there or models.Modifier.NONE) == modifier:
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"{there}; expected {modifier}")


def direct(name, kind, operation):
    """The call that does what an operation of a batch does."""
    [wanted] = (getattr(operation, one) for one in type(operation).model_fields)
    some = getattr(wanted, "points", None) or getattr(wanted, "filter", None)
    match kind:
        case "update_vectors":
            return lambda c: c.update_vectors(name, wanted.points)
        case "delete_vectors":
            return lambda c: c.delete_vectors(name, wanted.vector, some)
        case "set_payload":
            return lambda c: c.set_payload(name, wanted.payload, some, key=wanted.key)
        case "overwrite_payload":
            return lambda c: c.overwrite_payload(name, wanted.payload, some)
        case "delete_payload":
            return lambda c: c.delete_payload(name, wanted.keys, some)
        case "clear_payload":
            return lambda c: c.clear_payload(name, wanted)
    return lambda c: c.delete(name, wanted)


def field(key, **kind):
    """A condition on a payload field."""
    return models.FieldCondition(key=key, **kind)
