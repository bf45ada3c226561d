"""Documents -> states, once; a query and states -> scores.

The trunk of the model reads each text alone, and the branches score a pair by the states of both.
Both texts are cut, or split into passages, alone, too: a document as if every query took an eighth
of the max length. So its states serve all queries. A pair that fits the max length, with a query of
up to that eighth, is read as the whole model reads it.

The branches compute in floats: rounded states would change how dynamic quantisation rounds all of
a pair, which costs more of a score than the states' own rounding. Layers that attend across the
pair would take most of the time, so their products stay in integers, with a scale for each token,
which costs less. Every document's states are
rounded, stored or not, so that a score does not depend on what is stored.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.document_cache import TwoPartRuntime
from qdrant_rerank.cross_encoder.document_states import (
    Passage,
    Record,
    kind_of,
    pack,
    text_digest,
    unpack,
)
from qdrant_rerank.cross_encoder.pair_scores import PairScores
from qdrant_rerank.cross_encoder.score_cache import PairOutput
from qdrant_rerank.cross_encoder.scorer import PairScorer
from qdrant_rerank.cross_encoder.state_quantizer import StateQuantizer
from qdrant_rerank.cross_encoder.windows import PairReader
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.inference.batching import Batch
from qdrant_rerank.types import StatesPrecision
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline

__all__ = ["QUERY_SHARE", "STORED_SHARE", "StateScorer", "StateSteps", "StoredText"]

#: Part of the max length that is kept free for the query: 64 of 512 tokens.
QUERY_SHARE = 8
#: Times as fast a document whose states are stored counts. The default's is 16 times, by processor
#: time, and that of ``grown-e5-small-cross-v1`` 3 times (``benchmarks/stored_states.py``).
STORED_SHARE = 20
LETTERS_PER_TOKEN = 4  # of a text, about
PAIRS_PER_STEP = 16  # that take as long, with stored states, as one batch of texts


class StoredText(str):
    """A document's text that comes with its stored states, for the model that made them.

    Any other reranker reads it as the text that it is.

    Attributes:
        model: digest of the model whose states the collection holds.
        precision: of these.
        record: its states, current and of this very text; None if there are none.
    """

    model: bytes
    precision: StatesPrecision
    record: bytes | None

    @classmethod
    def of(cls, text: str, model: bytes, precision: StatesPrecision, record: bytes | None) -> Self:
        """Make one."""
        made = cls(text)
        made.model, made.precision, made.record = model, precision, record
        return made


@dataclass(frozen=True, slots=True)
class Query:
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
        models: digests of what decides a state, 16 bytes, by the precision of the states.
        quantizer: of the states in "pq"; None if ``models`` has no such precision.

    Attributes:
        models: as given.
        scorer: as given.
    """

    def __init__(
        self,
        scorer: PairScorer,
        runtime: TwoPartRuntime,
        documents: PairReader,
        models: Mapping[StatesPrecision, bytes],
        quantizer: StateQuantizer | None,
    ) -> None:
        self.scorer = scorer
        self._runtime = runtime
        self._documents = documents
        self._quantizer = quantizer
        self.models = models

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
                :class:`StoredText` with a record.
            precision: what states of texts that are read now are rounded to.
            deadline: no pair starts after it; pairs are scored in their order.

        Raises:
            InvalidInputError: a record is damaged, or of another model.
            ModelOutputError: the model failed or returned a score that is not finite.
        """
        began = time.perf_counter()
        work = StateSteps(self, pairs, precision)
        spread = self._runtime.has_cores_for(len(pairs))
        work.read()
        rows = list(range(len(pairs)))
        if deadline is NO_DEADLINE:  # those that have to be read first: they take longest
            rows.sort(key=lambda row: self._cost(pairs[row][1]))
        self._runtime.for_each(partial(work.run_one, spread=spread), rows, deadline=deadline)
        return work.scores(time.perf_counter() - began)

    def steps(
        self, pairs: Sequence[tuple[str, str | bytes | memoryview]], precision: StatesPrecision
    ) -> "StateSteps":
        """Return what scores pairs step by step; the arguments are those of :meth:`score`."""
        return StateSteps(self, pairs, precision)

    def query(self, query: str, *, spread: bool = False) -> Query:
        """Read a query."""
        [row] = self.scorer.read.tokenizer([(query, "")])
        ids = row.ids[row.type_ids == 0][None]
        return Query(ids, self._runtime.states(ids, 0, spread=spread), row.truncated)

    def given(self, number: int, document: bytes | memoryview) -> Record:
        """Read the record of a document.

        Raises:
            InvalidInputError: it is damaged, or of another model.
        """
        kind = kind_of(document)
        if kind is not None and kind[1] != self.models.get(kind[0]):
            raise InvalidInputError(
                f"The states of document {number} are of another model, or of another revision, "
                "max length, long_documents= or quantizer of this one. Encode the documents with "
                "this encoder."
            )
        record = self.stored(document)
        if record is None:
            raise InvalidInputError(
                f"The states of document {number} are damaged. Encode the documents again."
            )
        return record

    def stored(self, record: bytes | memoryview) -> Record | None:
        """Read a record of this model; None if it is damaged, or of another format."""
        return unpack(record, self._quantizer)

    def read(self, text: str, precision: StatesPrecision, *, spread: bool = False) -> Record:
        """Read a text now; its states are rounded as stored ones are."""
        made = self.stored(self._record(text, precision, spread))
        assert made is not None
        return made

    def output(self, query: Query, record: Record, *, spread: bool = False) -> PairOutput:
        """Compare a query with a document."""
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

    def of_outputs(self, outputs: Sequence[PairOutput], pairs: int, seconds: float) -> PairScores:
        """Make the scores of pairs, of which the first ones have outputs."""
        return self.scorer.of_outputs(outputs, pairs, seconds)

    @staticmethod
    def _cost(document: str | bytes | memoryview) -> tuple[bool, int]:
        """A sort key: texts without states come first, then long ones."""
        waits = isinstance(document, str) and getattr(document, "record", None) is None
        return not waits, -len(document)

    def _record(self, text: str, precision: StatesPrecision, spread: bool) -> bytes:
        reading = self._documents([("", text)])
        passages = []
        for row, span in zip(reading.rows, reading.spans, strict=True):
            ids = row.ids[row.type_ids == 1]
            states = self._runtime.states(ids[None], 1, spread=spread)
            passages.append(Passage(ids, states[0], span))
        model = self.models[precision]
        return pack(
            passages,
            precision=precision,
            model=model,
            text=text_digest(model, text),
            truncated=any(row.truncated for row in reading.rows),
            quantizer=self._quantizer,
        )


class StateSteps:
    """The steps of pairs that are scored by states; see :class:`~.steps.Steps`.

    Args:
        scorer: the model in two parts.
        pairs: as of :meth:`StateScorer.score`.
        precision: as of that.

    Attributes:
        pairs: see :class:`~.steps.Steps`.
        batches: see there.
        tokens: of each batch, for a measure of its time: of a stored document, one for every
            ``STORED_SHARE`` of its text.
    """

    def __init__(
        self,
        scorer: StateScorer,
        pairs: Sequence[tuple[str, str | bytes | memoryview]],
        precision: StatesPrecision,
    ) -> None:
        self.pairs = len(pairs)
        self.batches: list[Batch] = []
        self.tokens: list[int] = []
        self._given_pairs = pairs
        self._scorer = scorer
        self._precision = precision
        self._queries: dict[str, Query] = {}
        self._records: dict[int, Record] = {}
        self._outputs: dict[int, PairOutput] = {}
        self._stored = np.zeros(len(pairs), dtype=np.bool_)
        self._read = [0] * len(pairs)
        self._run_s: list[float] = []  # of each batch; several threads append

    def read(self) -> bool:
        """Read the queries, and the records that came instead of texts.

        Raises:
            InvalidInputError: a record is damaged, or of another model.
        """
        for row, (query, document) in enumerate(self._given_pairs):
            if not isinstance(document, str):
                self._records[row] = self._scorer.given(row, document)
            if query not in self._queries:
                self._queries[query] = self._scorer.query(query)
        for start in range(0, self.pairs, PAIRS_PER_STEP):
            rows = np.arange(start, min(start + PAIRS_PER_STEP, self.pairs))
            worth = [self._worth(row) for row in rows.tolist()]
            self.batches.append(Batch(rows, max(worth)))
            self.tokens.append(sum(worth))
        return True

    def run(self, batch: Batch, *, spread: bool = False) -> None:
        """Score the pairs of one of ``batches``."""
        began = time.perf_counter()
        for row in batch.rows.tolist():
            self.run_one(row, spread=spread)
        self._run_s.append(time.perf_counter() - began)

    def run_one(self, row: int, *, spread: bool) -> None:
        """Score one pair."""
        query, document = self._given_pairs[row]
        record = self._records.get(row)
        if record is None and isinstance(document, StoredText) and document.record is not None:
            record = self._scorer.stored(document.record)
            width = self._queries[query].states.shape[-1]
            if record is not None and record.passages[0].states.shape[-1] != width:
                record = None  # forged: what decides a state decides its width
        self._stored[row] = record is not None
        if record is None:
            record = self._scorer.read(str(document), self._precision, spread=spread)
            self._read[row] = sum(len(passage.ids) for passage in record.passages)
        self._outputs[row] = self._scorer.output(self._queries[query], record, spread=spread)

    def finish(self) -> PairScores:
        """Return the scores, when all batches have run."""
        return self.scores(sum(self._run_s))

    def scores(self, seconds: float) -> PairScores:
        """Return the scores of the first pairs, up to one that has not run."""
        done = [self._outputs[row] for row in range(self.pairs) if row in self._outputs]
        scores = self._scorer.of_outputs(done, self.pairs, seconds)
        read = sum(self._read) + sum(query.ids.size for query in self._queries.values())
        return replace(
            scores,
            tokens=read,
            padded_tokens=read,
            precision=f"{scores.precision}, states {self._precision}",
            stored=self._stored,
        )

    def _worth(self, row: int) -> int:
        document = self._given_pairs[row][1]
        size = len(document) // LETTERS_PER_TOKEN
        return 1 + (size if getattr(document, "record", None) is None else size // STORED_SHARE)
