"""Documents -> states, once; a query and states -> scores.

The trunk of the model reads each text alone, and the branches score a pair by the states of both.
Both texts are cut, or split into passages, alone, too: a document as if every query took an eighth
of the max length. So its states serve all queries. A pair that fits the max length, with a query of
up to that eighth, is read as the whole model reads it.

The branches compute in floats: rounded states would change how dynamic quantisation rounds all of
a pair, which costs more of a score than the states' own rounding. Every document's states are
rounded, stored or not, so that a score does not depend on what is stored.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.document_cache import TwoPartRuntime
from qdrant_rerank.cross_encoder.document_states import (
    Passage,
    Record,
    is_current,
    pack,
    text_digest,
    unpack,
)
from qdrant_rerank.cross_encoder.pair_scores import PairScores
from qdrant_rerank.cross_encoder.score_cache import PairOutput
from qdrant_rerank.cross_encoder.scorer import PairScorer
from qdrant_rerank.cross_encoder.windows import PairReader
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.types import StatesPrecision
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline

__all__ = ["QUERY_SHARE", "StateScorer", "StoredText"]

#: Part of the max length that is kept free for the query: 64 of 512 tokens.
QUERY_SHARE = 8


class StoredText(str):
    """A document's text that comes with its stored states, for the model that made them.

    Any other reranker reads it as the text that it is.

    Attributes:
        model: digest of the model whose states the collection holds.
        precision: of these.
        record: the states; None if none are stored of this document.
    """

    model: bytes
    precision: StatesPrecision
    record: bytes | None

    @classmethod
    def of(
        cls, text: str, model: bytes, precision: StatesPrecision, record: bytes | None
    ) -> "StoredText":
        """Make one."""
        made = cls(text)
        made.model, made.precision, made.record = model, precision, record
        return made


@dataclass(frozen=True, slots=True)
class _Query:
    """A query as the trunk reads it: ids (1, tokens), states (1, tokens, width)."""

    ids: NDArray[np.int64]
    states: NDArray[np.float32]
    truncated: bool


class StateScorer:
    """Encodes documents, and scores pairs by states. Safe to call from many threads.

    Args:
        scorer: made with a :class:`TwoPartRuntime` and the reader of queries.
        runtime: that runtime.
        documents: reads documents, with the share of the query taken off the max length.
        model: digest of what decides a state, 16 bytes.

    Attributes:
        model: as given.
    """

    def __init__(
        self, scorer: PairScorer, runtime: TwoPartRuntime, documents: PairReader, model: bytes
    ) -> None:
        self._scorer = scorer
        self._runtime = runtime
        self._documents = documents
        self.model = model

    def encode(self, texts: Sequence[str], precision: StatesPrecision) -> list[bytes]:
        """Return the record of each text, in order.

        Raises:
            ModelOutputError: the model failed.
        """
        records: list[bytes] = [b""] * len(texts)

        def encode_one(row: int, *, spread: bool) -> None:
            records[row] = self._record(texts[row], precision, spread)

        spread = self._runtime.has_cores_for(len(texts))
        # The longest first, so that no core waits long for another at the end.
        rows = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        self._runtime.for_each(partial(encode_one, spread=spread), rows)
        return records

    def score(
        self,
        pairs: Sequence[tuple[str, str | bytes | memoryview]],
        precision: StatesPrecision,
        deadline: Deadline = NO_DEADLINE,
    ) -> PairScores:
        """Score pairs.

        Args:
            pairs: a query and a document: a record; or a text, which is read now unless it is a
                :class:`StoredText` whose record is of this very text.
            precision: what states of texts that are read now are rounded to.
            deadline: no pair starts after it; pairs are scored in their order.

        Raises:
            InvalidInputError: a record is damaged, or of another model.
            ModelOutputError: the model failed or returned a score that is not finite.
        """
        began = time.perf_counter()
        rows = range(len(pairs))
        records = {
            row: self._given(number, document)
            for number, row in enumerate(rows)
            if not isinstance(document := pairs[row][1], str)
        }
        spread = self._runtime.has_cores_for(len(pairs))
        queries = {
            query: self._query(query, spread) for query in dict.fromkeys(q for q, _ in pairs)
        }
        outputs: dict[int, PairOutput] = {}
        stored = np.zeros(len(pairs), dtype=np.bool_)
        tokens = [0] * len(pairs)

        def score_one(row: int) -> None:
            query, document = pairs[row]
            record = records.get(row)
            if record is None:
                assert isinstance(document, str)
                record = self._stored(document, precision)
                stored[row] = record is not None
            else:
                stored[row] = True
            if record is None:
                made = unpack(self._record(str(document), precision, spread))
                assert made is not None
                record = made
                tokens[row] = sum(len(passage.ids) for passage in record.passages)
            outputs[row] = self._output(queries[query], record, spread)

        if deadline is NO_DEADLINE:  # those that have to be read first: they take longest
            rows_in_order: Iterable[int] = sorted(rows, key=lambda row: self._cost(pairs[row][1]))
        else:
            rows_in_order = rows
        self._runtime.for_each(score_one, list(rows_in_order), deadline=deadline)
        done = [outputs[row] for row in rows if row in outputs]
        scores = self._scorer.of_outputs(done, len(pairs), time.perf_counter() - began)
        read = sum(tokens) + sum(query.ids.size for query in queries.values())
        return replace(
            scores,
            tokens=read,
            padded_tokens=read,
            precision=f"{scores.precision}, states {precision}",
            stored=stored,
        )

    @staticmethod
    def _cost(document: str | bytes | memoryview) -> tuple[bool, int]:
        """A sort key: texts without states come first, then long ones."""
        waits = isinstance(document, str) and getattr(document, "record", None) is None
        return not waits, -len(document)

    def _given(self, number: int, document: bytes | memoryview) -> Record:
        record = unpack(document)
        if record is None:
            raise InvalidInputError(
                f"The states of document {number} are damaged. Encode the documents again."
            )
        if record.model != self.model:
            raise InvalidInputError(
                f"The states of document {number} are of another model, or of another revision, "
                "max length or long_documents= of this one. Encode the documents with this encoder."
            )
        return record

    def _stored(self, document: str, precision: StatesPrecision) -> Record | None:
        """Return a text's stored states, if they are those that would be made now."""
        kept = document.record if isinstance(document, StoredText) else None
        if kept is None or not is_current(kept, document, self.model, precision):
            return None
        return unpack(kept)

    def _record(self, text: str, precision: StatesPrecision, spread: bool) -> bytes:
        reading = self._documents([("", text)])
        passages = []
        for row, span in zip(reading.rows, reading.spans, strict=True):
            ids = row.ids[row.type_ids == 1]
            states = self._runtime.states(ids[None], 1, spread=spread)
            passages.append(Passage(ids, states[0], span))
        return pack(
            passages,
            precision=precision,
            model=self.model,
            text=text_digest(self.model, text),
            truncated=any(row.truncated for row in reading.rows),
        )

    def _query(self, query: str, spread: bool) -> _Query:
        [row] = self._scorer.read.tokenizer([(query, "")])
        ids = row.ids[row.type_ids == 0][None]
        return _Query(ids, self._runtime.states(ids, 0, spread=spread), row.truncated)

    def _output(self, query: _Query, record: Record, spread: bool) -> PairOutput:
        logits = []
        for passage in record.passages:
            ids = np.concatenate([query.ids, passage.ids[None]], 1)
            types = np.zeros_like(ids)
            types[:, query.ids.size :] = 1
            states = np.concatenate([query.states, passage.states[None]], 1)
            mask = np.ones_like(ids)
            logits.append(self._runtime.run(ids, mask, types, spread=spread, states=states))
        return PairOutput(
            np.concatenate(logits).reshape(len(logits), -1),
            record.truncated or query.truncated,
            tuple(passage.span for passage in record.passages),
        )
