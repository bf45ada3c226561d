"""ONNX sessions: which device, and how many runs at once.

On a CPU one session with one intra-op thread serves all workers: ``InferenceSession.run`` is
thread-safe and releases the GIL, and one run a core beats one run over all cores by half,
because nothing waits at the barriers inside an operator. Where there are fewer pairs than cores to
run them, a second session, opened when it is first needed, spreads each run over several cores.
On a GPU there is one session a card.

Another engine stands behind the same calls: see :mod:`~qdrant_rerank.inference.openvino`.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from qdrant_rerank.hub.onnx_files import DYNAMIC_QUANTIZATION, names_any
from qdrant_rerank.hub.precision import RunPrecision
from qdrant_rerank.inference import openvino as runtime_openvino
from qdrant_rerank.inference.conversion.attention import with_fused_attention
from qdrant_rerank.inference.cpu import LONG_PAIR, TOKENS_PER_BATCH, available_cores
from qdrant_rerank.inference.gpu.autotune import GpuPlan, open_gpus
from qdrant_rerank.inference.gpu.devices import (
    Provider,
)
from qdrant_rerank.inference.gpu.pool import WIDTH_MULTIPLE, GpuPool
from qdrant_rerank.inference.inputs import STATES, Inputs
from qdrant_rerank.inference.providers import (
    CPU,
    Placement,
    choose_providers,
    gpu_facts,
    runs_on_gpu,
)
from qdrant_rerank.inference.sessions import Session, import_onnxruntime, open_session, weight
from qdrant_rerank.inference.threads import Workers, for_each, shared_pool
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline
from qdrant_rerank.utils.validation import require_choice

__all__ = ["Engine", "Provider", "Runtime"]

#: What runs a model.
Engine = Literal["auto", "onnxruntime", "openvino"]

Item = TypeVar("Item")

# Padded tokens of a run from which several cores are used. They wait for one another at each
# operator: on 2 cores, runs of 8 to 64 tokens took as long as on one.
SPREAD_TOKENS = 128
TRIAL_IDS = 98  # more tokens than that are in every vocabulary
# Weights up to which a second session may hold them again.
SPREAD_BYTES = 500_000_000
# Reads lengths from the sum of the mask, as if all padding were on the right.
IGNORES_LEFT_PADDING = (b"GroupQueryAttention",)


class Runtime:
    """An ONNX file, loaded, with the threads that drive it. Safe to use from many threads.

    Args:
        path: the ``.onnx`` file.
        threads: runs at once on a CPU; None for one a core.
        providers: onnxruntime's execution providers, in order; excludes ``cuda=True``.
        cuda: True, False, or "auto" (CUDA where a card can be used).
        device_ids: CUDA devices, one session each.
        device: the same in a word: "auto", "cpu", "cuda" or "cuda:1".
        gpu_mem_limit: most bytes that a session's arena may take of its card.
        engine: "onnxruntime"; "openvino", on the CPU, for files that are not quantised; "auto":
            OpenVINO where it is installed and keeps the precision, no GPU is there to be used
            instead, and no provider is asked for.
        precision: what to run the model in; only OpenVINO can run an fp32 file in bf16.
        first_position: position of the first token, where the file takes position_ids.
        fallback: the file for pairs that do not fit a card, where ``path`` is made for cards alone.
        packed: the file with attention that skips padding, which a card may run faster.
        artifacts: folder for the model with fused attention, for onnxruntime on a CPU; None to run
            the file as it is.

    Attributes:
        inputs: names of the inputs that the file takes.
        workers: runs that go on at once.
        pairs_per_batch: 1 where batch-mates would change a score or cost time, else None.
        width_multiple: what the width of a run is best a multiple of.
        provider: name of the execution provider that runs the model, or "OpenVINO fp32".

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        ModelFileError: the file is missing, truncated, or not a text encoder.
        InvalidInputError: an argument is wrong, or a provider is not available.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        cuda: bool | str = "auto",
        device_ids: Sequence[int] | None = None,
        device: str | None = None,
        gpu_mem_limit: int | None = None,
        engine: Engine = "onnxruntime",
        precision: RunPrecision = "auto",
        first_position: int = 0,
        fallback: Path | None = None,
        packed: Path | None = None,
        artifacts: Path | None = None,
    ) -> None:
        require_choice("engine", engine, Engine)
        placement = Placement(
            providers=providers,
            cuda=cuda,
            device_ids=device_ids,
            device=device,
            gpu_mem_limit=gpu_mem_limit,
        )
        self.path = path
        self._artifacts = artifacts
        self._first_position = first_position
        cores = available_cores() if threads is None else threads
        self._choice: list[Provider] = [CPU]
        sessions: list[Session] = []
        if engine == "openvino" or (
            engine == "auto"
            and runtime_openvino.is_installed()
            and not runs_on_gpu(import_onnxruntime(), placement)
        ):
            found = runtime_openvino.open_session(
                path,
                precision,
                cores,
                required=engine == "openvino",
                provider_asked_for=placement.asks_for_provider,
            )
            sessions = [] if found is None else [found]
        with_openvino = bool(sessions)
        if precision == "bf16" and not with_openvino:
            raise InvalidInputError(
                "precision is 'bf16', which onnxruntime does not run on a CPU. Pass "
                "engine='openvino' with pip install \"qdrant-rerank[openvino]\", or another "
                "precision."
            )
        if not with_openvino:
            ort = import_onnxruntime()
            choices = choose_providers(ort, placement)
            self._choice = list(choices[0])
            with self._file(ort) as file:
                sessions = [
                    open_session(ort, file, choice, required=not placement.allows_cpu)
                    for choice in choices
                ]
        session = sessions[0]
        self.provider: str = session.get_providers()[0]
        on_cpu = with_openvino or self.provider == CPU

        self._feed = Inputs(session.get_inputs(), path)
        self.inputs = self._feed.names
        outputs = [node.name for node in session.get_outputs()]
        self._output = "logits" if "logits" in outputs else outputs[0]
        alone = self._feed.one_row or names_any(path, DYNAMIC_QUANTIZATION + IGNORES_LEFT_PADDING)
        self.pairs_per_batch = 1 if alone or with_openvino else None
        self.width_multiple = 1
        if with_openvino and not alone:
            self.width_multiple = runtime_openvino.WIDTH_MULTIPLE

        self._lock = threading.Lock()
        self._threads: Workers | None = None
        self._under_way = 0
        self._spreading: Any = None
        self._loaded = _state(path)
        # Serves all threads at once; a card's sessions, one each at a time, are with the pool.
        self._session: Any = session if on_cpu else None
        self._cards: GpuPool | None = None
        if not on_cpu:
            self._cards = open_gpus(
                ort,
                GpuPlan(path, choices, self._output, artifacts, gpu_facts(ort, placement), packed),
                sessions=sessions,
                open_session=lambda chosen, file: open_session(ort, file, chosen, required=True),
                open_fallback=lambda: open_session(ort, fallback or path, [CPU], cores),
                feed_of=self._trial,
            )
            self.width_multiple = WIDTH_MULTIPLE
        self.workers = cores if self._cards is None else self._cards.workers
        self._may_spread = self.provider == CPU and self.workers > 1

    @property
    def tokens_per_batch(self) -> int:
        """Padded tokens that a run should hold."""
        return TOKENS_PER_BATCH if self._cards is None else self._cards.tokens_per_batch

    @property
    def long_pair(self) -> int | None:
        """Tokens of a pair beyond which it is a run of its own; None for no limit."""
        return LONG_PAIR if self._cards is None else None

    @property
    def on_gpu(self) -> bool:
        """Whether a run is a tensor for a card, and not one of several side by side."""
        return self._cards is not None

    def run(
        self,
        input_ids: NDArray[np.int64],
        attention_mask: NDArray[np.int64],
        token_type_ids: NDArray[np.int64],
        *,
        last_position: bool = False,
        spread: bool = False,
        states: NDArray[np.float32] | None = None,
        fell_back: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Run the model once.

        Args:
            input_ids: shape (n, width), int64.
            attention_mask: same shape, 1 on tokens and 0 on padding.
            token_type_ids: same shape; left out where the model has no such input.
            last_position: of an output (n, width, size), keep only the last position.
            spread: use several cores, if the run is long enough; see :meth:`has_cores_for`.
            states: shape (n, width, size), for the branches of a split model; else None.
            fell_back: told how many pairs a CPU ran, since they did not fit the card.

        Returns:
            The output ``logits``, or the first where none has that name; float32, shape (n, ...).

        Raises:
            ModelOutputError: the run failed.
        """
        feed = self._feed(input_ids, attention_mask, token_type_ids, self._first_position)
        if states is not None:
            feed = {**feed, STATES: states}
        spreads = spread and input_ids.size >= SPREAD_TOKENS
        session = self._spread() if spreads else self._session
        with self._lock:
            self._under_way += 1
        try:
            if self._cards is None:
                output = session.run([self._output], feed)[0]
            else:
                ran = self._cards.run(feed)
                output = ran.output
                if ran.on_cpu and fell_back is not None:
                    fell_back(ran.on_cpu)
        except Exception as error:  # onnxruntime's errors share no base
            raise ModelOutputError(
                f"{self.path} failed on {input_ids.shape[0]} pair(s) of {input_ids.shape[1]} "
                f"tokens: {error}. If an index is out of bounds, the tokenizer beside the model is "
                "another model's (token ids beyond its embeddings), or max_length is more than "
                "its positions."
            ) from error
        finally:
            with self._lock:
                self._under_way -= 1
        array = np.asarray(output)
        if last_position and array.ndim == 3:
            array = array[:, -1]  # before the copy: a vocabulary's logits are large
        return array.astype(np.float32, copy=False)

    def has_cores_for(self, runs: int) -> bool:
        """Whether so many runs leave half of the cores idle, so that each may use several."""
        return self._may_spread and 0 < 2 * (self._under_way + runs) <= self.workers

    def for_each(
        self,
        function: Callable[[Item], None],
        items: Iterable[Item],
        pool: Workers | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> int:
        """Call ``function`` on each item, ``workers`` at a time; the first error stops the rest.

        So does a :class:`~qdrant_rerank.utils.deadline.Cancellation` of the calling context.

        Args:
            function: called from worker threads.
            items: begun in order. Of a sequence, one item is done in the calling thread; from an
                iterator the next is drawn there while the workers run.
            pool: other threads to use than those that all models share.
            deadline: no item is begun after it; those under way are finished.

        Returns:
            The number of items done: always the first of them.
        """
        return for_each(function, items, pool or self._pool, deadline)

    def _trial(self, rows: int, width: int, seed: int) -> Mapping[str, NDArray[Any]]:
        """A feed to time a run with, of two texts each; what the tokens are does not matter."""
        shape = (1 if self._feed.one_row else rows, width)
        ids = np.random.default_rng(seed).integers(1, TRIAL_IDS, shape, dtype=np.int64)
        # Lengths as among pairs that were sorted by length: 8 % are padding.
        lengths = width - (seed + np.arange(len(ids))) % max(1, width // 6)
        mask = (np.arange(width) < lengths[:, None]).astype(np.int64)
        types = (np.arange(width) >= width // 3 + seed).astype(np.int64) * mask
        return self._feed(ids, mask, types, self._first_position)

    @property
    def _pool(self) -> Workers:
        if self._threads is None or not self._threads.alive:
            self._threads = shared_pool(self.workers)
        return self._threads

    def _spread(self) -> Any:
        """The session that uses several cores for one run.

        It is the first, on one core, where the file has changed since or is too large.
        """
        with self._lock:
            if self._spreading is None and (
                _state(self.path) != self._loaded or weight(self.path) > SPREAD_BYTES
            ):
                self._spreading = self._session
            if self._spreading is None:
                ort = import_onnxruntime()
                with self._file(ort) as file:
                    self._spreading = open_session(ort, file, self._choice, self.workers)
            return self._spreading

    @contextmanager
    def _file(self, ort: ModuleType) -> Iterator[Path]:
        """What to load: on a CPU, the model with fused attention."""
        if self._artifacts is None or self._choice != [CPU]:
            yield self.path
            return

        def open_model(model: Path | bytes) -> Any:
            options = ort.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = 4  # what fails here is left as it is
            source = model if isinstance(model, bytes) else str(model)
            return ort.InferenceSession(source, options, providers=[CPU])

        version = str(ort.__version__)
        with with_fused_attention(self.path, self._artifacts, version, open_model) as file:
            yield file

    def __repr__(self) -> str:
        return f"Runtime({str(self.path)!r}, {self.provider}, workers={self.workers})"


def _state(path: Path) -> tuple[int, int] | None:
    """What changes with a file: its size and time; None where there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns
