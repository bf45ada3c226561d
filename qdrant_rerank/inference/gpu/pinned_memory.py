"""Memory of the host that a card reads by itself: page-locked, so that a copy is one transfer.

https://docs.nvidia.com/cuda/cuda-runtime-api, cudaHostRegister. Where it fails, on a CPU or under
a low ``ulimit -l``, the memory is ordinary, and a copy takes a little longer.
"""

import ctypes
import functools
import sys
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PinnedBuffer", "use_card"]

PAGE = 4_096  # bytes
PORTABLE = 1  # cudaHostRegisterPortable: for every card of the process
SUCCESS = 0  # cudaError_t


class PinnedBuffer:
    """A place for one array at a time, which grows to the largest.

    Args:
        cuda_version: of the CUDA runtime to lock it with, as in "13.0"; None for ordinary memory.
        number: of the card.

    Attributes:
        locked: whether the present memory is page-locked.
    """

    def __init__(self, cuda_version: str | None, number: int = 0) -> None:
        self._cuda_version = cuda_version
        self._number = number
        self._memory = np.empty(0, dtype=np.uint8)
        self.locked = False

    def holding(self, array: NDArray[Any]) -> NDArray[Any]:
        """Copy an array into the memory; the copy, until the next call."""
        if array.nbytes > self._memory.nbytes:
            self._grow(array.nbytes)
        copy = self._memory[: array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy

    def _grow(self, size: int) -> None:
        pages = -(-size // PAGE) + 1
        memory = np.empty(pages * PAGE, dtype=np.uint8)
        memory = memory[-memory.ctypes.data % PAGE :][: (pages - 1) * PAGE]  # from a page on
        cuda = None if self._cuda_version is None else _cuda_runtime(self._cuda_version)
        here = use_card(self._cuda_version, self._number)
        self.locked = cuda is not None and here and _lock(cuda, memory)
        self._memory = memory


def use_card(cuda_version: str | None, number: int) -> bool:
    """Let the calling thread's calls of CUDA be of this card; else they are of the first.

    Args:
        cuda_version: of the CUDA runtime, as in "13.0"; None where there is none.
        number: of the card.

    Returns:
        Whether they are.
    """
    cuda = None if cuda_version is None else _cuda_runtime(cuda_version)
    return cuda is not None and bool(cuda.cudaSetDevice(number) == SUCCESS)


def _lock(cuda: ctypes.CDLL, memory: NDArray[np.uint8]) -> bool:
    address = ctypes.c_void_p(memory.ctypes.data)
    if cuda.cudaHostRegister(address, ctypes.c_size_t(memory.nbytes), PORTABLE) != SUCCESS:
        cuda.cudaGetLastError()  # else the next call of the process would report it
        return False
    # Not at exit, when CUDA may be gone before.
    weakref.finalize(memory, cuda.cudaHostUnregister, address).atexit = False
    return True


@functools.cache
def _cuda_runtime(version: str) -> ctypes.CDLL | None:
    """The CUDA runtime that onnxruntime has loaded."""
    major = version.split(".", maxsplit=1)[0]
    name = f"cudart64_{major}.dll" if sys.platform == "win32" else f"libcudart.so.{major}"
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
