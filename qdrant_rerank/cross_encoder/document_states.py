"""States of documents in a model's trunk, as bytes: what a pair's score needs of a document.

A *record* is one document. All numbers are little-endian::

    format, precision, flags, 0    4 x uint8
    width, passages                2 x uint16
    model                          16 bytes, digest of what decides a state
    text                           16 bytes, digest of the text that was read
    tokens, start, end             3 x uint32, for each passage
    token ids                      uint16 or uint32 for each token, as flags say
    scales                         float32 for each token
    states                         tokens x width, int8 or int16, in units of the token's scale
    checksum                       uint32, CRC-32 of all before

So "int8" takes 390 bytes per token of a model that is 384 wide. "float16" takes 774: as many bytes
as a float16, but whole numbers with a scale. On the bundled model their error in a score is a fifth
of a float16's, whose largest, 0.0014, was above the 0.001 that is promised.
"""

import mmap
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Any, get_args, overload

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import DamagedFileError, InvalidInputError, ModelFileError
from qdrant_rerank.types import StatesPrecision
from qdrant_rerank.utils.atomic_files import atomic_binary

__all__ = [
    "DIGEST_BYTES",
    "FORMAT",
    "DocumentStates",
    "Passage",
    "Record",
    "is_current",
    "pack",
    "text_digest",
    "unpack",
]

FORMAT = 1
PRECISIONS: tuple[StatesPrecision, ...] = get_args(StatesPrecision)
TRUNCATED, LONG_IDS = 1, 2
HEAD = Struct("<4B2H16s16s")
PASSAGE = Struct("<3I")
CHECKSUM = Struct("<I")
DIGEST_BYTES = 16
# Of each precision: the dtype of its numbers, and the largest.
NUMBERS = {"int8": ("i1", 127), "float16": ("<i2", 32767)}
SMALLEST_SCALE = np.float32(1e-30)  # of a token whose states are all 0
# A file: this, the number of records, the place of each record's end, the records, a checksum.
MAGIC = b"qdrant-rerank states 1\n"
COUNT = Struct("<Q")


@dataclass(frozen=True, slots=True)
class Passage:
    """What is kept of a document, or of one passage of a long one.

    Attributes:
        ids: shape (tokens,), int64; its segment of a pair, special tokens included.
        states: shape (tokens, width), float32.
        span: start and end character in the text.
    """

    ids: NDArray[np.int64]
    states: NDArray[np.float32]
    span: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read.

    Attributes:
        precision: of the states.
        model: digest of what decides a state.
        text: digest of the text that was read.
        truncated: whether a part of the text was cut off.
        passages: the document, or its passages in order.
    """

    precision: StatesPrecision
    model: bytes
    text: bytes
    truncated: bool
    passages: list[Passage]


def text_digest(model: bytes, text: str) -> bytes:
    """Compute the digest of a text as a model reads it: 16 bytes."""
    encoded = text.encode("utf-8", "surrogatepass")
    return blake2b(encoded, digest_size=DIGEST_BYTES, key=model[:64]).digest()


def pack(
    passages: Sequence[Passage],
    *,
    precision: StatesPrecision,
    model: bytes,
    text: bytes,
    truncated: bool,
) -> bytes:
    """Return the record of a document; its states are rounded to the precision."""
    width = passages[0].states.shape[1]
    ids = np.concatenate([passage.ids for passage in passages])
    states = np.concatenate([passage.states for passage in passages])
    long_ids = bool(ids.max(initial=0) >= 2**16)
    flags = TRUNCATED * truncated | LONG_IDS * long_ids
    parts = [
        HEAD.pack(FORMAT, PRECISIONS.index(precision), flags, 0, width, len(passages), model, text)
    ]
    parts += [PASSAGE.pack(len(each.ids), *each.span) for each in passages]
    parts.append(ids.astype("<u4" if long_ids else "<u2").tobytes())
    dtype, largest = NUMBERS[precision]
    scales = np.maximum(np.abs(states).max(axis=1) / np.float32(largest), SMALLEST_SCALE)
    parts.append(scales.astype("<f4").tobytes())
    parts.append(np.rint(states / scales[:, None]).astype(dtype).tobytes())
    body = b"".join(parts)
    return body + CHECKSUM.pack(zlib.crc32(body))


def is_current(record: bytes, text: str, model: bytes, precision: StatesPrecision) -> bool:
    """Whether a record is whole, and holds the states that a model would make of a text now."""
    wanted = (FORMAT, PRECISIONS.index(precision), model, text_digest(model, text))
    if len(record) < HEAD.size + CHECKSUM.size:
        return False
    number, kind, _, _, _, _, *digests = HEAD.unpack_from(record)
    [checksum] = CHECKSUM.unpack(record[-CHECKSUM.size :])
    return (number, kind, *digests) == wanted and (
        zlib.crc32(memoryview(record)[: -CHECKSUM.size]) == checksum
    )


def unpack(record: bytes | memoryview) -> Record | None:
    """Read a record; None if it is damaged, or of another format."""
    body = memoryview(record)[: -CHECKSUM.size]
    try:
        [checksum] = CHECKSUM.unpack(memoryview(record)[-CHECKSUM.size :])
        fields = HEAD.unpack_from(body)
    except struct.error:
        return None
    number, kind, flags, _, width, count, model, text = fields
    if number != FORMAT or kind >= len(PRECISIONS) or not count or zlib.crc32(body) != checksum:
        return None
    try:
        passages = _passages(body, PRECISIONS[kind], flags, width, count)
    except (ValueError, struct.error):  # lengths that do not fit, written by somebody else
        return None
    return Record(PRECISIONS[kind], model, text, bool(flags & TRUNCATED), passages)


def _passages(
    body: memoryview, precision: StatesPrecision, flags: int, width: int, count: int
) -> list[Passage]:
    places = [PASSAGE.unpack_from(body, HEAD.size + PASSAGE.size * at) for at in range(count)]
    tokens = sum(length for length, _, _ in places)
    at = HEAD.size + PASSAGE.size * count

    def array(dtype: str, size: int) -> NDArray[Any]:
        nonlocal at
        found: NDArray[Any] = np.frombuffer(body, dtype=dtype, count=size, offset=at)
        at += found.nbytes
        return found

    ids = array("<u4" if flags & LONG_IDS else "<u2", tokens).astype(np.int64)
    scales = array("<f4", tokens)
    states = array(NUMBERS[precision][0], tokens * width).reshape(tokens, width) * scales[:, None]
    passages = []
    start = 0
    for length, first, last in places:
        own = slice(start, start + length)
        passages.append(Passage(ids[own], states[own], (first, last)))
        start += length
    return passages


class DocumentStates(Sequence[memoryview]):
    """States of several documents, which ``TextCrossEncoder.rerank`` takes in place of texts.

    It is a sequence of records, one per document; a part of it, ``states[:10]``, is one, too.

    Args:
        records: of the documents, all by the same model and of the same precision.

    Attributes:
        precision: "int8" or "float16"; None if there are no documents.
        model: digest of what decides a state: the model's and the tokenizer's files, the max
            length, how long documents are read; None if there are no documents.

    Raises:
        InvalidInputError: records of several models or precisions.
        DamagedFileError: a record is damaged.

    Examples:
        >>> from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
        >>> encoder = TextCrossEncoder(DEFAULT_RERANKER)
        >>> states = encoder.encode_documents(["Bread is baked.", "Iron melts at 1538 C."])
        >>> scores = encoder.rerank("melting point of iron", states)
        >>> len(states), states.precision, scores[1] > scores[0]
        (2, 'int8', True)
    """

    def __init__(self, records: Iterable[bytes | memoryview]) -> None:
        self._records = [memoryview(record) for record in records]
        kinds = set()
        for number, record in enumerate(self._records):
            if len(record) < HEAD.size or record[0] != FORMAT or record[1] >= len(PRECISIONS):
                raise DamagedFileError(f"Record {number} is not of format {FORMAT}.")
            fields = HEAD.unpack_from(record)
            kinds.add((PRECISIONS[fields[1]], fields[6]))
        if len(kinds) > 1:
            raise InvalidInputError(
                f"The {len(self._records)} records are of {len(kinds)} models or precisions; "
                "expected one. Encode all documents with one encoder."
            )
        self.precision: StatesPrecision | None = None
        self.model: bytes | None = None
        for self.precision, self.model in kinds:
            pass

    @property
    def nbytes(self) -> int:
        """Bytes of all records."""
        return sum(map(len, self._records))

    def save(self, path: str | Path) -> None:
        """Write one file, whole or not at all.

        Raises:
            InvalidInputError: the path cannot be written.
        """
        ends = np.cumsum([len(record) for record in self._records], dtype="<u8").tobytes()
        head = MAGIC + COUNT.pack(len(self._records)) + ends
        checksum = zlib.crc32(head)
        with atomic_binary(path) as file:
            file.write(head)
            for record in self._records:
                file.write(record)
                checksum = zlib.crc32(record, checksum)
            file.write(CHECKSUM.pack(checksum))

    @classmethod
    def load(cls, path: str | Path) -> "DocumentStates":
        """Open a file that :meth:`save` wrote.

        It is mapped into memory: a record is read from the disk when it is scored. The file is read
        once for its checksum.

        Raises:
            ModelFileError: the file cannot be read, or is not one of these.
            DamagedFileError: it is not as it was written.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:  # ValueError: it is empty
            raise ModelFileError(f"{path} cannot be read: {error}.") from error
        if mapped[: len(MAGIC)] != MAGIC:
            raise ModelFileError(
                f"{path} is not a file of DocumentStates of format {FORMAT}. Write it with "
                "encode_documents(...).save(path)."
            )
        damaged = DamagedFileError(f"{path} is damaged: its checksum differs. Write it again.")
        if len(mapped) < len(MAGIC) + COUNT.size + CHECKSUM.size:
            raise damaged
        [checksum] = CHECKSUM.unpack(mapped[-CHECKSUM.size :])
        if zlib.crc32(mapped[: -CHECKSUM.size]) != checksum:
            raise damaged
        [count] = COUNT.unpack_from(mapped, len(MAGIC))
        first = len(MAGIC) + COUNT.size
        ends = np.frombuffer(mapped, dtype="<u8", count=count, offset=first).tolist()
        start = first + 8 * count
        bounds = [0, *ends]
        return cls(mapped[start + bounds[at] : start + bounds[at + 1]] for at in range(len(ends)))

    @overload
    def __getitem__(self, index: int) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> "DocumentStates": ...
    def __getitem__(self, index: int | slice) -> "memoryview | DocumentStates":
        if isinstance(index, slice):
            return DocumentStates(self._records[index])
        return self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self._records)

    def __repr__(self) -> str:
        return f"DocumentStates({len(self)} documents, {self.precision}, {self.nbytes:,} bytes)"
