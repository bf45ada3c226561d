"""An onnxruntime session with buffers of its own: page-locked inputs, and recorded launches.

Arrays are copied into memory that the card can read by itself (page-locked), and bound to the
session (https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html). A small run that
comes again in the same shape is replayed as one CUDA graph, since launching its kernels one by one
takes longer than running them; a graph reads from and writes to fixed addresses.

On a CPU the same calls work, without page-locking and without graphs.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.inference.gpu.graph_capture import recording, working
from qdrant_rerank.inference.gpu.pinned_memory import PinnedBuffer, use_card

__all__ = ["GRAPH_TOKENS", "MOST_GRAPHS", "BoundSession"]

logger = logging.getLogger(__name__)

# Padded tokens up to which launches, not arithmetic, take the time: not measured yet.
GRAPH_TOKENS = 4_096
# Each has device memory for its inputs and output, and onnxruntime frees none before the session.
MOST_GRAPHS = 64
MOST_FAILURES = 3  # of recordings, after which no other shape is tried
SHRINKAGE = "memory.enable_memory_arena_shrinkage"  # of RunOptions
GRAPH_ID = "gpu_graph_id"  # of RunOptions: which graph to record or replay
NO_GRAPH = "-1"
SILENT = 4  # of RunOptions: failures arrive as exceptions, and some are expected


@dataclass(frozen=True, slots=True)
class _Graph:
    """A shape's own inputs and output on the card, and what runs them."""

    inputs: Mapping[str, Any]
    output: Any
    binding: Any
    options: Any


class BoundSession:
    """One session, one run at a time: callers take turns, as :class:`GpuPool` makes them.

    Args:
        ort: onnxruntime.
        session: its ``InferenceSession``.
        output: name of the output to return.
        device: where the session runs.
        number: of the card.
        graphs: whether the session was opened with ``enable_cuda_graph``.
    """

    def __init__(
        self,
        ort: ModuleType,
        session: Any,
        output: str,
        *,
        device: Literal["cuda", "cpu"] = "cuda",
        number: int = 0,
        graphs: bool = False,
    ) -> None:
        self._ort = ort
        self._session = session
        self._output = output
        self._device = device
        self._number = number
        self._cuda = getattr(ort, "cuda_version", None) if device == "cuda" else None
        self._staging = {
            node.name: PinnedBuffer(self._cuda, number) for node in session.get_inputs()
        }
        self._plain = self._options({GRAPH_ID: NO_GRAPH} if graphs else {})
        # By shape; None for one that came once, or whose recording failed.
        self._graphs: dict[tuple[int, ...], _Graph | None] = {}
        self._failed: set[tuple[int, ...]] = set()
        # CUDA keeps a recorded graph with the thread that recorded it.
        self._thread = ThreadPoolExecutor(1, "qdrant-rerank-graph") if graphs else None

    def run(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The output of one run, in memory of the host.

        Args:
            feed: every input, of the types that the model declares.

        Raises:
            Exception: onnxruntime's own.
        """
        if self._thread is None:
            return self._plainly(feed)
        if feed["input_ids"].size > GRAPH_TOKENS:
            return self._thread.submit(self._plainly, feed).result()
        return self._thread.submit(self._replayed, feed).result()

    def give_back(self, feed: Mapping[str, NDArray[Any]]) -> None:
        """Run a small feed, and return to the card what memory is then not used.

        Nothing is done where graphs are recorded: their addresses have to stay.
        """
        if self._thread is not None:
            return
        place = f"gpu:{self._number}" if self._device == "cuda" else f"cpu:{self._number}"
        with working():
            self._bound(feed, self._options({SHRINKAGE: place}))

    def _plainly(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        with working():
            return self._bound(feed, self._plain)

    def _bound(self, feed: Mapping[str, NDArray[Any]], options: Any) -> NDArray[Any]:
        use_card(self._cuda, self._number)
        binding = self._session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, self._staging[name].holding(array))
        binding.bind_output(self._output, "cpu")
        self._session.run_with_iobinding(binding, options)
        found: NDArray[Any] = binding.copy_outputs_to_cpu()[0]
        return found

    def _replayed(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Through the graph of its shape, which is recorded when the shape comes again."""
        rows = len(feed["input_ids"])
        feed = _padded(feed, 1 << (rows - 1).bit_length())
        shape = feed["input_ids"].shape
        if self._graphs.get(shape) is None and not self._may_record(shape):
            self._graphs.setdefault(shape)
            return self._plainly(feed)[:rows]
        graph = self._graphs[shape]
        if graph is None:
            try:
                with recording():
                    graph = self._record(feed)
            except Exception as error:
                # Another library may have called CUDA meanwhile, or memory was wanted, which while
                # recording cannot be had. What is really amiss, the plain run says.
                logger.info("Runs of shape %s are not replayed: %s", shape, error)
                self._failed.add(shape)
                return self._plainly(feed)[:rows]
            self._graphs[shape] = graph
        with working():
            use_card(self._cuda, self._number)
            for name, value in graph.inputs.items():
                value.update_inplace(self._staging[name].holding(feed[name]))
            self._session.run_with_iobinding(graph.binding, graph.options)
            # A copy: the next run of this shape writes to the same memory.
            return np.array(graph.output.numpy()[:rows])

    def _may_record(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape comes for the second time, and there is room for one more."""
        recorded = sum(graph is not None for graph in self._graphs.values())
        return (
            shape in self._graphs
            and shape not in self._failed
            and len(self._failed) < MOST_FAILURES
            and recorded < MOST_GRAPHS
        )

    def _record(self, feed: Mapping[str, NDArray[Any]]) -> _Graph:
        """Fixed addresses for a shape, and the runs that record its graph.

        Before it is recorded the arena has to have all memory of such a run: onnxruntime counts
        its own warm-up runs a thread, not a graph.
        """
        for _ in range(2):
            made = self._bound(feed, self._plain)
        value = self._ort.OrtValue
        inputs = {
            name: value.ortvalue_from_numpy(array, self._device, self._number)
            for name, array in feed.items()
        }
        output = value.ortvalue_from_shape_and_type(
            made.shape, made.dtype, self._device, self._number
        )
        binding = self._session.io_binding()
        for name, bound in inputs.items():
            binding.bind_ortvalue_input(name, bound)
        binding.bind_ortvalue_output(self._output, output)
        number = 1 + len(self._failed) + sum(one is not None for one in self._graphs.values())
        graph = _Graph(inputs, output, binding, self._options({GRAPH_ID: str(number)}))
        self._session.run_with_iobinding(binding, graph.options)
        return graph

    def _options(self, entries: Mapping[str, str]) -> Any:
        options = self._ort.RunOptions()
        options.log_severity_level = SILENT
        for name, value in entries.items():
            options.add_run_config_entry(name, value)
        return options


def _padded(feed: Mapping[str, NDArray[Any]], rows: int) -> Mapping[str, NDArray[Any]]:
    """With the last pair repeated up to so many rows, so that few shapes occur."""
    there = len(feed["input_ids"])

    def longer(array: NDArray[Any]) -> NDArray[Any]:
        if there == rows or array.ndim < 2 or len(array) != there:
            return array
        return np.concatenate([array, np.repeat(array[-1:], rows - there, axis=0)])

    return {name: longer(array) for name, array in feed.items()}
