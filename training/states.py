"""What a frozen trunk says of a text, computed once: int8 states a token, and one vector a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from encoders import WIDTH, Encoder, pooled
from numpy.typing import NDArray
from torch import Tensor

BATCH_TOKENS = 4096  # that the encoder reads at once
FEW_TOKENS = 1024  # likewise, of few texts
STEP = 16  # widths are multiples of it, so that kernels are reused
HEADROOM = 1.15  # of the largest value that the first texts have in a channel


@dataclass(frozen=True, slots=True)
class States:
    """States of many texts, one after the other.

    Attributes:
        offsets: of each text's first token, and the end, (n + 1,), int64.
        lower: after the lower layers, (tokens, WIDTH), int8.
        top: after the last layer, (tokens, WIDTH), int8.
        scales: of both, a channel, (2, WIDTH), float32.
        vectors: mean of the last states, of length 1, (n, WIDTH), float32.
        ids: token ids with the special ones, (tokens,), int32.
    """

    offsets: NDArray[np.int64]
    lower: NDArray[np.int8]
    top: NDArray[np.int8]
    scales: NDArray[np.float32]
    vectors: NDArray[np.float32]
    ids: NDArray[np.int32]


def cached_states(
    encoder: Encoder,
    texts: Sequence[NDArray[np.int32]],
    lower: int,
    folder: Path,
    scales: NDArray[np.float32] | None = None,
) -> States:
    """Compute the states of texts into a folder, or read them from there.

    Args:
        encoder: the trunk, in bfloat16.
        texts: token ids with the special ones.
        lower: layers below the states that are kept beside the last ones.
        folder: a text that an earlier run finished is not computed again.
        scales: of the int8 states; None to take them from the first texts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.concatenate(texts).astype(np.int32)
    order = np.argsort(lengths, kind="stable")
    mode = "r+" if (folder / "lower.npy").is_file() else "w+"
    shape = (int(offsets[-1]), WIDTH)
    files = [
        np.lib.format.open_memmap(folder / f"{name}.npy", mode, np.int8, shape)
        for name in ("lower", "top")
    ]
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", mode, np.float32, (len(texts), WIDTH)
    )
    progress = folder / "done.txt"
    done = int(progress.read_text()) if progress.is_file() else 0
    kept = folder / "scales.npy"
    if scales is None and kept.is_file():
        scales = np.load(kept)
    if scales is None:
        seen = np.random.default_rng(0).choice(len(texts), min(256, len(texts)), replace=False)
        scales = channel_scales(encoder, [texts[row] for row in seen], lower)
    np.save(kept, scales)
    inverse = torch.from_numpy(1 / scales)
    run = encoder.states
    while done < len(order):
        width = -(-int(lengths[order[done]]) // STEP) * STEP
        rows = order[done : done + max(1, BATCH_TOKENS // width)]
        width = -(-int(lengths[rows[-1]]) // STEP) * STEP
        count = max(1, BATCH_TOKENS // width)
        rows = rows[:count]
        tokens, mask = padded([texts[row] for row in rows], width, count)
        with torch.inference_mode():
            found = run(tokens, mask, lower)
            mean = pooled(found[1].float(), mask.float())[: len(rows)]
            vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy()
            for file, states, scale in zip(files, found, inverse, strict=True):
                rounded = torch.round(states.float() * scale).clamp(-127, 127).to(torch.int8)
                values = rounded.numpy()
                for at, row in enumerate(rows):
                    file[offsets[row] : offsets[row + 1]] = values[at, : lengths[row]]
        before, done = done, done + len(rows)
        if done // 500 != before // 500 or done == len(order):
            progress.write_text(str(done))
            print(f"  {folder.name}: {done:,} of {len(order):,} texts", flush=True)
    return States(offsets, files[0], files[1], scales, vectors, ids)


@torch.inference_mode()
def states_of(
    encoder: Encoder,
    texts: Sequence[NDArray[np.int32]],
    lower: int,
    scales: NDArray[np.float32],
) -> States:
    """The same of a few texts, kept nowhere; without vectors."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    kept = [np.empty((int(offsets[-1]), WIDTH), dtype=np.int8) for _ in scales]
    inverse = torch.from_numpy(1 / scales)
    order = np.argsort(lengths, kind="stable")
    done = 0
    while done < len(order):
        left = lengths[order[done:]]
        fits = left * np.arange(1, len(left) + 1) <= FEW_TOKENS
        rows = order[done : done + max(1, int(fits.sum()))]
        done += len(rows)
        width = -(-int(lengths[rows[-1]]) // STEP) * STEP
        tokens, mask = padded([texts[row] for row in rows], width)
        found = encoder.states(tokens, mask, lower)
        for into, states, scale in zip(kept, found, inverse, strict=True):
            values = torch.round(states.float() * scale).clamp(-127, 127).to(torch.int8).numpy()
            for at, row in enumerate(rows):
                into[offsets[row] : offsets[row + 1]] = values[at, : lengths[row]]
    ids = np.concatenate(texts).astype(np.int32)
    vectors = np.zeros((len(texts), 0), dtype=np.float32)
    return States(offsets, kept[0], kept[1], scales, vectors, ids)


@torch.inference_mode()
def channel_scales(
    encoder: Encoder, texts: Sequence[NDArray[np.int32]], lower: int
) -> NDArray[np.float32]:
    """What one int8 step stands for in each channel of both states: (2, WIDTH)."""
    most = torch.zeros(2, WIDTH)
    for text in texts:
        tokens = torch.from_numpy(text.astype(np.int64)).unsqueeze(0)
        for kind, states in enumerate(encoder.states(tokens, torch.ones_like(tokens), lower)):
            most[kind] = torch.maximum(most[kind], states.float().abs().amax((0, 1)))
    scales: NDArray[np.float32] = (most * HEADROOM / 127).numpy()
    return scales


@torch.inference_mode()
def vectors_of(
    encoder: Encoder, texts: Sequence[NDArray[np.int32]], stored: Path, *, first: bool = False
) -> NDArray[np.float32]:
    """Unit vectors of texts by a bi-encoder, kept in a file: (n, WIDTH)."""
    if not stored.is_file():
        vectors = np.zeros((len(texts), WIDTH), dtype=np.float32)
        lengths = np.array([len(text) for text in texts])
        order = np.argsort(lengths, kind="stable")
        run = encoder.states
        done = 0
        while done < len(order):
            width = -(-int(lengths[order[done]]) // STEP) * STEP
            rows = order[done : done + max(1, BATCH_TOKENS // width)]
            width = -(-int(lengths[rows[-1]]) // STEP) * STEP
            count = max(1, BATCH_TOKENS // width)
            rows = rows[:count]
            tokens, mask = padded([texts[row] for row in rows], width, count)
            top = run(tokens, mask, 0)[1].float()
            mean = top[:, 0] if first else pooled(top, mask.float())
            vectors[rows] = torch.nn.functional.normalize(mean, dim=-1)[: len(rows)].numpy()
            before, done = done, done + len(rows)
            if done // 4000 != before // 4000:
                print(f"  {stored.name}: {done:,} of {len(order):,} texts", flush=True)
        unfinished = stored.with_suffix(".part.npy")
        np.save(unfinished, vectors)
        unfinished.rename(stored)
    found: NDArray[np.float32] = np.load(stored)
    return found


def padded(
    texts: Sequence[NDArray[np.int32]], width: int, count: int | None = None
) -> tuple[Tensor, Tensor]:
    """Ids and mask, (count or n, width), int64; rows that only fill repeat the first text."""
    filled = list(texts) + [texts[0]] * ((count or len(texts)) - len(texts))
    ids = np.zeros((len(filled), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for at, text in enumerate(filled):
        ids[at, : len(text)] = text
        mask[at, : len(text)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
