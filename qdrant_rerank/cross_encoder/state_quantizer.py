"""Product quantisation of a trunk's states: a byte for each group of numbers of a state.

The mean of a text is taken off its states, and so is what the embedding of each token predicts. The
rest is turned by a matrix, so that errors count as scores weigh them, and its columns are cut into
groups. Of each group the nearest of 256 centroids is kept (Jegou et al. 2011). Matrices and
centroids are learnt by ``training/quantizer.py``. The centroids that are used most come first, and
a rare one has to be nearer by what Huffman's code takes for it (Chou et al. 1989).
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.hub.onnx_files import external_array

__all__ = ["CENTROIDS", "StateQuantizer", "quantizer_digest", "quantizer_file"]

CENTROIDS = 256  # of a group: as many as a byte has values
MEAN_LARGEST = 127  # of the whole numbers of a text's mean
SMALLEST_SCALE = np.float32(1e-30)  # of a mean that is the mean of means
# Names of the trunk's embeddings in the ONNX file: whole numbers, and a scale for each row.
ROWS, ROW_SCALES = "trunk.encoder.words.rows", "trunk.encoder.words.scales"
# Matrices of the file, each int8 with scales that are multiplied with it; the others are floats.
MATRICES = ("project", "expand", "decode", "centroids")
FLOATS = ("centre", "penalties")


def quantizer_file(model: Path) -> Path:
    """Return where the quantizer of a model is, if it has one: beside its ONNX file."""
    return model.with_name(f"{model.stem}.pq.npz")


def quantizer_digest(model: bytes, file: Path) -> bytes:
    """Return a digest, as long as the model's, of what decides the states that are quantized."""
    return blake2b(file.read_bytes(), digest_size=len(model), key=model).digest()


@dataclass(frozen=True, eq=False)
class StateQuantizer:
    """Turns states into bytes and back. Safe to call from many threads.

    Attributes:
        rows: the trunk's embedding of each token, shape (vocabulary, width), int8.
        row_scales: of its rows, shape (vocabulary, 1), float32.
        project: turns an embedding into what predicts a state, shape (width, rank), float32.
        expand: turns that into columns, shape (rank, width), float32.
        decode: turns columns into a state, shape (width, width), float32.
        centroids: of all groups side by side, shape (256, width), float32.
        penalties: of the centroids of each group, shape (256,), float32: added to the squared
            distance.
        centre: mean of the means of texts, shape (width,), float32.
        groups: bounds of the groups among the columns, ascending from 0.
    """

    rows: NDArray[np.int8]
    row_scales: NDArray[np.float32]
    project: NDArray[np.float32]
    expand: NDArray[np.float32]
    decode: NDArray[np.float32]
    centroids: NDArray[np.float32]
    penalties: NDArray[np.float32]
    centre: NDArray[np.float32]
    groups: tuple[int, ...]

    @classmethod
    def read(cls, model: Path) -> Self:
        """Read the quantizer of a model, and map the embeddings of its ONNX file into memory.

        Raises:
            ModelFileError: it cannot be read, or its arrays do not fit each other.
        """
        path = quantizer_file(model)
        try:
            with path.open("rb") as file, np.load(file) as kept:
                arrays = {name: kept[name].astype(np.float32) for name in (*MATRICES, *FLOATS)}
                for name in MATRICES:
                    arrays[name] *= kept[f"{name}_scales"].astype(np.float32)
                groups = tuple(kept["groups"].tolist())
            width = arrays["decode"].shape[1]
            rows = external_array(model, ROWS, "i1").reshape(-1, width)
            scales = external_array(model, ROW_SCALES, "<f4").reshape(-1, 1)
            made = cls(rows=rows, row_scales=scales, groups=groups, **arrays)
            fits = made._fits()
        except Exception as error:  # numpy and its unpacker raise many kinds for wrong bytes
            raise ModelFileError(
                f"{path} cannot be read: {error}. Install the package again, or make the file with "
                "training/quantizer.py."
            ) from error
        if not fits:
            raise ModelFileError(
                f"{path} holds arrays that do not fit each other or {model.name}. Make it again "
                "with training/quantizer.py."
            )
        return made

    def _fits(self) -> bool:
        width, groups = self.width, self.groups
        return (
            self.rows.dtype == np.int8
            and self.rows.shape == (len(self.row_scales), width)
            and self.row_scales.shape[1:] == (1,)
            and self.project.shape == self.expand.shape[::-1]
            and self.expand.shape[1:] == self.centre.shape == (width,)
            and self.decode.shape == (width, width)
            and self.centroids.shape == (CENTROIDS, width)
            and self.penalties.shape == (CENTROIDS,)
            and (groups[0], groups[-1]) == (0, width)
            and all(start < end for start, end in pairwise(groups))
        )

    @property
    def width(self) -> int:
        """Numbers of a state."""
        return len(self.centre)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of the codes of a state."""
        return len(self.groups) - 1

    def knows(self, ids: NDArray[np.int64]) -> bool:
        """Whether all ids are of tokens of the model."""
        return bool(ids.max(initial=0) < len(self.rows))

    @cached_property
    def _encode(self) -> NDArray[np.float32]:
        return np.linalg.inv(self.decode)

    def encode(
        self, ids: NDArray[np.int64], states: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int8], np.float32]:
        """Encode a text.

        Args:
            ids: shape (tokens,).
            states: shape (tokens, width).

        Returns:
            Codes, (tokens, bytes_per_token), and the text's mean less the mean of means, (width,),
            whole numbers in units of the scale that comes last.
        """
        columns = (states - states.mean(0)) @ self._encode - self._projected(ids) @ self.expand
        codes = np.empty((len(ids), self.bytes_per_token), dtype=np.uint8)
        for group, (start, end) in enumerate(pairwise(self.groups)):
            own = self.centroids[:, start:end]
            costs = (own * own).sum(1) + self.penalties - 2 * columns[:, start:end] @ own.T
            codes[:, group] = costs.argmin(1)
        # The mean makes good what the codes lose of it.
        mean = (states - self._without_mean(ids, codes)).mean(0) - self.centre
        scale = max(np.abs(mean).max() / np.float32(MEAN_LARGEST), SMALLEST_SCALE)
        return codes, np.rint(mean / scale).astype(np.int8), scale

    def decoded(
        self,
        ids: NDArray[np.int64],
        codes: NDArray[np.uint8],
        mean: NDArray[np.int8],
        scale: np.float32,
    ) -> NDArray[np.float32]:
        """Decode a text, of which :meth:`encode` returned these: shape (tokens, width)."""
        whole = mean.astype(np.float32) * scale + self.centre
        return self._without_mean(ids, codes) + whole

    def _projected(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """What predicts the states of a text's tokens: (tokens, rank)."""
        embeddings = self.rows[ids].astype(np.float32) * self.row_scales[ids]
        embeddings -= embeddings.mean(0)
        return np.asarray(embeddings @ self.project, dtype=np.float32)

    def _without_mean(
        self, ids: NDArray[np.int64], codes: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        table, decode, expand = self._decoder
        places: NDArray[np.intp] = codes + np.arange(0, len(table), CENTROIDS)
        found = table.take(places, axis=0).reshape(len(codes), -1) @ decode
        found += self._projected(ids) @ expand
        return np.asarray(found, dtype=np.float32)

    @cached_property
    def _decoder(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Centroids of one group below the other, and what turns them and a prediction into states.

        All groups are as wide as the widest, filled up with 0: rows are faster to gather than
        numbers.
        """
        widest = max(np.diff(self.groups))
        table = np.zeros((self.bytes_per_token, CENTROIDS, widest), dtype=np.float32)
        decode = np.zeros((self.bytes_per_token, widest, self.width), dtype=np.float32)
        for group, (start, end) in enumerate(pairwise(self.groups)):
            table[group, :, : end - start] = self.centroids[:, start:end]
            decode[group, : end - start] = self.decode[start:end]
        return (
            table.reshape(-1, widest),
            decode.reshape(-1, self.width),
            np.asarray(self.expand @ self.decode, dtype=np.float32),
        )
