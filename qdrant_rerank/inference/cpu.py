"""The CPU as far as this process may use it: how many cores, and which int8 arithmetic."""

import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LONG_PAIR", "TOKENS_PER_BATCH", "Int8Weights", "available_cores", "int8_weights"]

ROOT = Path("/")
# Files of a cgroup that hold its quota and its period.
VERSION_2, VERSION_1 = ["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
# Flags of /proc/cpuinfo: products of unsigned and signed bytes are summed in 32 bits.
DOT_PRODUCTS = {"amx_int8": "AMX", "avx512_vnni": "VNNI", "avx_vnni": "VNNI"}

TOKENS_PER_BATCH = 512  # padded tokens; fastest on a CPU for a 384-wide encoder

# A longer pair is a batch of its own on a CPU: two of them together gain less than attention
# without a mask does. Since it always is, its score never depends on other pairs.
LONG_PAIR = TOKENS_PER_BATCH // 3  # tokens


@dataclass(frozen=True, slots=True)
class Int8Weights:
    """The kind of int8 weights that a CPU multiplies best.

    Attributes:
        signed: whether they are int8, else uint8.
        because: the instructions that decide, in words.
    """

    signed: bool
    because: str

    def __str__(self) -> str:
        return f"{'signed' if self.signed else 'unsigned'} weights for {self.because}"


def available_cores(root: Path = ROOT) -> int:
    """Return the cores that this process may use: its CPU affinity, cut by its cgroups' quota.

    A quota of one and a half cores counts as two cores, which share it: one core would leave a
    third of it unused.

    Args:
        root: where ``/proc`` and ``/sys`` are.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    return max(1, min([cores, *_quotas(root)]))


def int8_weights(root: Path = ROOT, machine: str | None = None) -> Int8Weights:
    """Return signed weights if the CPU multiplies them exactly; there they are faster, too.

    On x86 without VNNI, onnxruntime adds pairs of products with signed weights in 16 bits, where
    they may overflow (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html,
    "When and why do I need to try U8U8?"); unsigned weights do not overflow.

    Args:
        root: where ``/proc`` is.
        machine: architecture; None for this one.
    """
    if (machine or platform.machine()).lower() in {"arm64", "aarch64"}:
        return Int8Weights(signed=True, because="ARM")
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not on macOS and Windows
        lines = []
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    for flag, name in DOT_PRODUCTS.items():
        if flag in flags:
            return Int8Weights(signed=True, because=name)
    return Int8Weights(signed=False, because="a CPU without VNNI")


def _quotas(root: Path) -> Iterator[int]:
    """Yield the quota in cores of each cgroup of this process, outer ones included."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in [*lines, "0::/"]:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2, on a hybrid system beside version 1
            files, places = VERSION_2, (mount, mount / "unified")
        elif "cpu" in controllers.split(","):
            files, places = VERSION_1, (mount / "cpu", mount / controllers)
        else:
            continue
        for place in places:
            # In a container the path may be the host's, of which only the root is visible.
            inner = place / path.lstrip("/")
            for folder in (inner, *inner.parents):
                if not folder.is_relative_to(place):
                    break
                with suppress(OSError, ValueError):  # "max" and -1 are no quota
                    text = " ".join((folder / name).read_text() for name in files)
                    quota, period = map(int, text.split())
                    if quota > 0 and period > 0:
                        yield -(-quota // period)
