"""The documents of an ``add`` as they were given: looked at before they are taken."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.qdrant.documents import Document, PointBuilder
from qdrant_rerank.types import PointId

__all__ = ["GivenDocuments"]

Item = TypeVar("Item")


class Ahead(Iterator[Item], Generic[Item]):
    """An iterator whose next items can be looked at before they are taken.

    Args:
        items: any iterable; it is read once.

    Attributes:
        failure: what the iterable raised while it was read ahead; it is raised again where the
            iterable raised it.

    >>> numbers = Ahead(iter("abc"))
    >>> numbers.peek(2), list(numbers)
    (['a', 'b'], ['a', 'b', 'c'])
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._rest = iter(items)
        self._read: deque[Item] = deque()
        self.failure: Exception | None = None

    def peek(self, count: int) -> list[Item]:
        """Return the next items, or fewer if there are no more, or the iterable fails."""
        try:
            while self.failure is None and len(self._read) < count:
                self._read.append(next(self._rest))
        except StopIteration:
            pass
        except Exception as error:
            self.failure = error
        return list(islice(self._read, count))

    def __next__(self) -> Item:
        if self._read:
            return self._read.popleft()
        if self.failure is not None:
            raise self.failure
        return next(self._rest)


class GivenDocuments:
    """The documents of an ``add`` and their ids.

    Args:
        documents: any iterable. An iterator is read once; others are read more often.
        ids: as many as documents, or None to make them.

    Attributes:
        documents: all documents, those that were looked at included.
        ids: their ids, or None.

    Raises:
        InvalidInputError: there is another number of ids than of documents.
    """

    documents: Iterable[Document]
    ids: Sequence[PointId] | Ahead[PointId] | None

    def __init__(self, documents: Iterable[Document], ids: Iterable[PointId] | None) -> None:
        self.count = len(documents) if isinstance(documents, Collection) else None
        if self.count is not None and isinstance(ids, Sequence) and len(ids) != self.count:
            raise InvalidInputError(
                f"{len(ids)} ids for {self.count} documents; expected one id per document."
            )
        self.documents = documents if self.count is not None else Ahead(documents)
        self.ids = ids if ids is None or isinstance(ids, Sequence) else Ahead(ids)

    def sample(self, count: int) -> Iterable[Any]:
        """Return all documents if they can be read twice, or the next ones of an iterator."""
        return self.documents.peek(count) if isinstance(self.documents, Ahead) else self.documents

    def check(self, builder: PointBuilder, batch_size: int) -> None:
        """Check all documents if they can be read twice, or the first batch of an iterator.

        Raises:
            InvalidInputError: a document or an id is wrong; and as :meth:`PointBuilder.point`.
            Exception: what an iterator raises before its first item.
        """
        if not isinstance(self.documents, Ahead):
            if isinstance(self.ids, Ahead):
                self.ids = self.ids.peek((self.count or 0) + 1)
            builder.check(self.documents, self.ids)
            return
        some, failure = self.documents.peek(batch_size), self.documents.failure
        ids = self.ids
        if ids is not None:
            # More ids than documents are seen where the documents end.
            count = len(some) + (len(some) < batch_size and failure is None)
            ids = ids.peek(count) if isinstance(ids, Ahead) else ids[:count]
            if isinstance(self.ids, Ahead) and self.ids.failure is not None:
                some, failure = some[: len(ids)], self.ids.failure
        if failure is not None and not some:
            raise failure
        builder.check(some, ids)
