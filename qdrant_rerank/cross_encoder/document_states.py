"""States of documents in a model's trunk, as bytes: what a pair's score needs of a document.

A *record* is one document. All numbers are little-endian::

    format, precision, flags, 0    4 x uint8
    width, passages                2 x uint16
    model                          16 bytes, digest of what decides a state
    text                           16 bytes, digest of the text that was read
    scale                          float32; of "pq", one for each passage
    tokens, start, end             3 x uint32, for each passage
    token ids                      uint16 or uint32 for each token, as flags say
    states                         tokens x width, int8 or int16, in units of the scale, deflated
    checksum                       uint32, CRC-32 of all before

The states of "int8" are whole numbers of up to 80. Most are near 0, so Huffman's code takes three
quarters of a byte for one: 289 bytes per token of a model that is 384 wide, where 127 instead of 80
takes 320 and keeps the order no better (Kendall's tau with exact states 0.997 and 0.998).
"float16" takes about 750: as many bytes as a float16 has, but whole numbers with a scale, whose
error in a score is a fifth of a float16's.

The states of "pq" are the mean of each passage, width numbers of int8, then the codes of each
token, uint8, deflated together; there is a scale for each passage. See
:mod:`~qdrant_rerank.cross_encoder.state_quantizer`.
"""

import mmap
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from struct import Struct
from typing import Any, get_args, overload

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.state_quantizer import StateQuantizer
from qdrant_rerank.errors import DamagedFileError, InvalidInputError, ModelFileError
from qdrant_rerank.types import StatesPrecision
from qdrant_rerank.utils.atomic_files import atomic_binary
from qdrant_rerank.utils.validation import as_path

__all__ = [
    "DIGEST_BYTES",
    "FORMAT",
    "DocumentStates",
    "Passage",
    "Record",
    "is_current",
    "kind_of",
    "pack",
    "text_digest",
    "unpack",
]

FORMAT = 2
PRECISIONS: tuple[StatesPrecision, ...] = get_args(StatesPrecision)
TRUNCATED, LONG_IDS = 1, 2
HEAD = Struct("<4B2H16s16s")
PASSAGE = Struct("<3I")
CHECKSUM = Struct("<I")
DIGEST_BYTES = 16
SCALE = Struct("<f")
# Of each precision without a quantizer: the dtype of its numbers, and the largest.
NUMBERS = {"int8": ("i1", 80), "float16": ("<i2", 32767)}
SMALLEST_SCALE = np.float32(1e-30)  # of a document whose states are all 0
RAW_DEFLATE = -15  # no header, since a checksum is there
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
    quantizer: StateQuantizer | None = None,
) -> bytes:
    """Return the record of a document; its states are rounded to the precision.

    Args:
        passages: of the document.
        precision: "pq" needs a quantizer.
        model: digest of what decides a state.
        text: digest of the text.
        truncated: whether a part of the text was cut off.
        quantizer: of the model's states.
    """
    width = passages[0].states.shape[1]
    ids = np.concatenate([passage.ids for passage in passages])
    long_ids = bool(ids.max(initial=0) >= 2**16)
    flags = TRUNCATED * truncated | LONG_IDS * long_ids
    if precision == "pq":
        assert quantizer is not None
        scales, numbers = _quantized(passages, quantizer)
    else:
        scales, numbers = _rounded(passages, *NUMBERS[precision])
    deflate = zlib.compressobj(wbits=RAW_DEFLATE, strategy=zlib.Z_HUFFMAN_ONLY)
    parts = [
        HEAD.pack(FORMAT, PRECISIONS.index(precision), flags, 0, width, len(passages), model, text),
        scales,
        *(PASSAGE.pack(len(each.ids), *each.span) for each in passages),
        ids.astype("<u4" if long_ids else "<u2").tobytes(),
        deflate.compress(numbers),
        deflate.flush(),
    ]
    body = b"".join(parts)
    return body + CHECKSUM.pack(zlib.crc32(body))


def _rounded(passages: Sequence[Passage], dtype: str, largest: int) -> tuple[bytes, bytes]:
    """Return the scale of a document and its states as whole numbers."""
    states = np.concatenate([passage.states for passage in passages])
    scale = max(np.abs(states).max(initial=0) / np.float32(largest), SMALLEST_SCALE)
    return SCALE.pack(scale), np.rint(states / scale).astype(dtype).tobytes()


def _quantized(passages: Sequence[Passage], quantizer: StateQuantizer) -> tuple[bytes, bytes]:
    """Return the scales of passages, and their means and codes."""
    made = [quantizer.encode(passage.ids, passage.states) for passage in passages]
    scales = b"".join(SCALE.pack(scale) for _, _, scale in made)
    means = b"".join(mean.tobytes() for _, mean, _ in made)
    return scales, means + b"".join(codes.tobytes() for codes, _, _ in made)


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


def kind_of(record: bytes | memoryview) -> tuple[StatesPrecision, bytes] | None:
    """Return the precision of a record and the digest of its model; None if it is no record."""
    if len(record) < HEAD.size or record[0] != FORMAT or record[1] >= len(PRECISIONS):
        return None
    fields = HEAD.unpack_from(record)
    return PRECISIONS[fields[1]], fields[6]


def unpack(record: bytes | memoryview, quantizer: StateQuantizer | None = None) -> Record | None:
    """Read a record; None if it is damaged, of another format, or in "pq" without a quantizer."""
    body = memoryview(record)[: -CHECKSUM.size]
    try:
        [checksum] = CHECKSUM.unpack(memoryview(record)[-CHECKSUM.size :])
        fields = HEAD.unpack_from(body)
    except struct.error:
        return None
    number, kind, flags, _, _, count, model, text = fields
    if number != FORMAT or kind >= len(PRECISIONS) or not count or zlib.crc32(body) != checksum:
        return None
    precision = PRECISIONS[kind]
    try:
        passages = _passages(body, quantizer if precision == "pq" else NUMBERS[precision])
    except (ValueError, struct.error, zlib.error):  # lengths that do not fit, by another writer
        return None
    return Record(precision, model, text, bool(flags & TRUNCATED), passages)


def _passages(body: memoryview, states: StateQuantizer | tuple[str, int] | None) -> list[Passage]:
    """Read the passages of a record.

    Args:
        body: the record without its checksum.
        states: what reads the states: a quantizer, or the dtype of whole numbers.
    """
    _, _, flags, _, width, count, _, _ = HEAD.unpack_from(body)
    of_passage = isinstance(states, StateQuantizer)
    scales = np.frombuffer(body, "<f4", count if of_passage else 1, HEAD.size)
    first = HEAD.size + scales.nbytes
    places = [PASSAGE.unpack_from(body, first + PASSAGE.size * at) for at in range(count)]
    bounds = [0, *np.cumsum([length for length, _, _ in places]).tolist()]
    own = [slice(*bound) for bound in pairwise(bounds)]
    kind, start = "<u4" if flags & LONG_IDS else "<u2", first + PASSAGE.size * count
    ids = np.frombuffer(body, kind, bounds[-1], start).astype(np.int64)
    deflated = body[start + bounds[-1] * np.dtype(kind).itemsize :]
    if not np.isfinite(scales).all():
        raise ValueError("not what pack writes")
    if isinstance(states, StateQuantizer):
        if states.width != width or not states.knows(ids) or not all(np.diff(bounds)):
            raise ValueError("not what the quantizer writes")
        shapes = (count, width), (bounds[-1], states.bytes_per_token)
        means, codes = _inflated(deflated, "u1", *shapes)
        read = zip(own, means.view(np.int8), scales, strict=True)
        found = [states.decoded(ids[at], codes[at], mean, scale) for at, mean, scale in read]
    elif states is not None:
        [numbers] = _inflated(deflated, states[0], (bounds[-1], width))
        whole = numbers * np.float32(scales[0])
        found = [whole[at] for at in own]
    else:
        raise ValueError("needs a quantizer")
    return [
        Passage(ids[at], states_of, (begin, end))
        for at, states_of, (_, begin, end) in zip(own, found, places, strict=True)
    ]


def _inflated(deflated: memoryview, dtype: str, *shapes: tuple[int, int]) -> list[NDArray[Any]]:
    """Read arrays of these shapes, one after the other."""
    sizes = [rows * columns * np.dtype(dtype).itemsize for rows, columns in shapes]
    size = sum(sizes)
    # Huffman's code takes a bit of a byte at least: a small record cannot fill the memory.
    if not 0 < size <= 8 * len(deflated):
        raise ValueError("not what pack writes")
    # One byte more than there should be tells of states that are too long.
    numbers = zlib.decompressobj(RAW_DEFLATE).decompress(deflated, size + 1)
    if len(numbers) != size:
        raise ValueError("not what pack writes")
    starts = [0, *np.cumsum(sizes).tolist()]
    return [
        np.frombuffer(numbers[start:end], dtype).reshape(shape)
        for (start, end), shape in zip(pairwise(starts), shapes, strict=True)
    ]


class DocumentStates(Sequence[memoryview]):
    """States of several documents, which ``TextCrossEncoder.rerank`` takes in place of texts.

    It is a sequence of records, one per document; a part of it, ``states[:10]``, is one, too.

    Args:
        records: of the documents, all by the same model and of the same precision.

    Attributes:
        precision: "int8", "float16" or "pq"; None if there are no documents.
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
            kind = kind_of(record)
            if kind is None:
                raise DamagedFileError(
                    f"Record {number} is damaged, or not of format {FORMAT}. Encode the documents "
                    "again."
                )
            kinds.add(kind)
        if len(kinds) > 1:
            raise InvalidInputError(
                f"The {len(self._records)} records are of {len(kinds)} models or precisions; "
                "expected one. Encode all documents with one encoder."
            )
        self.precision: StatesPrecision | None = None
        self.model: bytes | None = None
        for self.precision, self.model in kinds:
            pass

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy the bytes, also of a file that is mapped into memory."""
        return DocumentStates, ([bytes(record) for record in self._records],)

    @property
    def nbytes(self) -> int:
        """Bytes of all records."""
        return sum(map(len, self._records))

    def save(self, path: str | Path) -> None:
        """Write one file, whole or not at all.

        Raises:
            InvalidInputError: ``path`` is no path, or cannot be written.
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
            InvalidInputError: ``path`` is no path.
            ModelFileError: the file cannot be read, or is not one of these.
            DamagedFileError: it is not as it was written.
        """
        path = as_path("path", path)
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
        start = first + 8 * count
        if start > len(mapped) - CHECKSUM.size:  # a checksum says nothing of who wrote it
            raise damaged
        bounds = [0, *np.frombuffer(mapped, dtype="<u8", count=count, offset=first).tolist()]
        if bounds != sorted(bounds) or bounds[-1] != len(mapped) - CHECKSUM.size - start:
            raise damaged
        return cls(mapped[start + one : start + end] for one, end in pairwise(bounds))

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
