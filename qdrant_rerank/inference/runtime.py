"""A model that is loaded as its plan says, and the threads that drive it.

On a CPU one session with one intra-op thread serves all workers: ``InferenceSession.run`` is
thread-safe and releases the GIL, and one batch per core is half as fast again as one batch over all
cores, because nothing waits at the barriers inside an operator. If there are fewer batches than
cores, a second session, opened when it is first needed, spreads each batch over several cores. On
GPUs there is one session per GPU.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from qdrant_rerank.hub.onnx_files import DYNAMIC_QUANTIZATION, names_any
from qdrant_rerank.inference import openvino
from qdrant_rerank.inference.cpu import LONG_PAIR, TOKENS_PER_BATCH
from qdrant_rerank.inference.gpu.devices import CPU, CUDA, Provider, name_of
from qdrant_rerank.inference.gpu.pool import WIDTH_MULTIPLE, BoundSession, GpuPool
from qdrant_rerank.inference.inputs import STATES, Inputs
from qdrant_rerank.inference.plan import Plan
from qdrant_rerank.inference.sessions import (
    Session,
    import_onnxruntime,
    open_session,
    shared_session,
    size_of,
    state_of,
)
from qdrant_rerank.inference.threads import Workers, for_each, shared_pool
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline

__all__ = ["Runtime"]

Item = TypeVar("Item")

# Padded tokens of a batch from which several cores are used. They wait for one another at each
# operator: on 2 cores, batches of 8 to 64 tokens took as long as on one.
SPREAD_TOKENS = 128
# Weights up to which a second session may hold them again.
SPREAD_BYTES = 500_000_000
# Reads lengths from the sum of the mask, as if all padding were on the right.
IGNORES_LEFT_PADDING = (b"GroupQueryAttention",)


class Runtime:
    """A loaded ONNX file with the threads that drive it. Safe to use from many threads.

    Args:
        path: the model's ``.onnx`` file, which errors name.
        plan: where and how it runs.
        prepared: the file that was made of it for this plan, which has to stay as long as the
            runtime; None to load the model's file itself.
        fallback: the file for pairs that do not fit a GPU, if ``prepared`` runs only there.
        first_position: position of the first token, if the file takes position_ids.
        output: name of the output to return; None for the first of ``preferred`` that the file
            has, or else the file's first output.
        preferred: names of outputs.

    Attributes:
        path: as given.
        inputs: names of the inputs that the file takes.
        output: name of the output that is returned.
        fixed_width: tokens of every row, if the file takes rows of one length only; else None.
        workers: batches that run at the same time.
        pairs_per_batch: 1 if other pairs in the batch would change a score or cost time, else None.
        width_multiple: number whose multiples are the best widths of a batch.
        provider: name of the execution provider that runs the model, or "OpenVINO fp32".

    Raises:
        MissingDependencyError: onnxruntime or OpenVINO is not installed.
        ModelFileError: the file is missing, truncated, or not a text encoder.
        InvalidInputError: a provider that the plan requires does not start, or the file has no
            such output.
    """

    def __init__(
        self,
        path: Path,
        plan: Plan,
        *,
        prepared: Path | None = None,
        fallback: Path | None = None,
        first_position: int = 0,
        output: str | None = None,
        preferred: Sequence[str] = ("logits",),
    ) -> None:
        self.path = path
        self._plan = plan
        self._file = prepared or path
        self._first_position = first_position
        with_openvino = plan.engine == "openvino"
        sessions: list[Session] = []
        if with_openvino:
            session = openvino.OpenVinoSession(
                self._file, precision=plan.precision, streams=plan.threads
            )
            sessions.append(session)
        else:
            ort = import_onnxruntime()
            sessions += [
                shared_session(
                    ort,
                    self._file,
                    providers,
                    required=plan.required,
                    cpu_arena=plan.cpu_arena,
                )
                for providers in plan.providers
            ]
        first = sessions[0]
        self.provider: str = first.get_providers()[0]

        self._inputs = Inputs(first.get_inputs(), path)
        self.inputs = self._inputs.names
        self.output = _choose_output([node.name for node in first.get_outputs()], output, preferred)
        self.fixed_width = self._inputs.fixed_width
        alone = self._inputs.one_row or names_any(path, DYNAMIC_QUANTIZATION + IGNORES_LEFT_PADDING)
        self.pairs_per_batch = 1 if alone or with_openvino else None
        self.width_multiple = openvino.WIDTH_MULTIPLE if with_openvino and not alone else 1

        self._lock = threading.Lock()
        self._threads: Workers | None = None
        self._under_way = 0
        self._spreading: Session | None = None
        self._loaded = state_of(self._file)
        # Serves all threads at once. The sessions on GPUs, one batch at a time, are in the pool.
        self._session = first
        self._gpus: GpuPool | None = None
        self.workers = plan.threads
        if not with_openvino and self.provider != CPU:
            self._gpus = self._open_pool(sessions, fallback or path)
            self.workers = self._gpus.workers
            self.width_multiple = WIDTH_MULTIPLE
        self._may_spread = self.provider == CPU and self.workers > 1

    @property
    def tokens_per_batch(self) -> int:
        """Padded tokens that a batch should hold."""
        return TOKENS_PER_BATCH if self._gpus is None else self._gpus.tokens_per_batch

    @property
    def long_pair(self) -> int | None:
        """Tokens beyond which a pair is a batch of its own; None for no limit."""
        return LONG_PAIR if self._gpus is None else None

    @property
    def on_gpu(self) -> bool:
        """Whether a batch is one tensor on a GPU, and not one of several on the cores of a CPU."""
        return self._gpus is not None

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
        """Run the model on one batch.

        Args:
            input_ids: shape (n, width), int64.
            attention_mask: shape (n, width), int64; 1 on tokens and 0 on padding.
            token_type_ids: shape (n, width), int64; ignored if the model has no such input.
            last_position: whether to keep only the last position of an output (n, width, size).
            spread: use several cores if the batch is long enough; see :meth:`has_cores_for`.
            states: shape (n, width, size), for the branches of a split model; else None.
            fell_back: called with the number of pairs that a CPU ran because they did not fit the
                GPU.

        Returns:
            The output of the name ``output``; float32, shape (n, ...).

        Raises:
            ModelOutputError: the model failed.
        """
        inputs = self._inputs(input_ids, attention_mask, token_type_ids, self._first_position)
        if states is not None:
            inputs = {**inputs, STATES: states}
        spreads = spread and input_ids.size >= SPREAD_TOKENS
        session = self._spread() if spreads else self._session
        with self._lock:
            self._under_way += 1
        try:
            if self._gpus is None:
                output = session.run([self.output], inputs)[0]
            else:
                found = self._gpus.run(inputs)
                output = found.array
                if found.on_cpu and fell_back is not None:
                    fell_back(found.on_cpu)
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

    def has_cores_for(self, batches: int) -> bool:
        """Whether so many batches leave half of the cores idle, so that each may use several."""
        return self._may_spread and 0 < 2 * (self._under_way + batches) <= self.workers

    def for_each(
        self,
        function: Callable[[Item], None],
        items: Iterable[Item],
        pool: Workers | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> int:
        """Call ``function`` on each item, ``workers`` at a time.

        See :func:`~qdrant_rerank.inference.threads.for_each`; without a ``pool``, the threads are
        those that all models share.
        """
        return for_each(function, items, pool or self._pool, deadline)

    def _open_pool(self, sessions: list[Session], fallback: Path) -> GpuPool:
        """Put the sessions on GPUs behind one queue."""
        ort = import_onnxruntime()

        def open_fallback() -> Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]:
            session = open_session(
                ort, fallback, [CPU], self._plan.threads, cpu_arena=self._plan.cpu_arena
            )

            def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
                found: NDArray[Any] = session.run([self.output], dict(inputs))[0]
                return found

            return run

        bound = [
            BoundSession(ort, session, self.output, _arena(providers[0]))
            for session, providers in zip(sessions, self._plan.providers, strict=True)
        ]
        return GpuPool(bound, open_fallback=open_fallback)

    @property
    def _pool(self) -> Workers:
        if self._threads is None or not self._threads.alive:
            self._threads = shared_pool(self.workers)
        return self._threads

    def _spread(self) -> Session:
        """Return the session that uses several cores for one batch.

        It is the first session, on one core, if the file has changed since or is too large.
        """
        with self._lock:
            if self._spreading is None:
                self._spreading = self._session
                if self._may_be_opened_again():
                    self._spreading = open_session(
                        import_onnxruntime(),
                        self._file,
                        self._plan.providers[0],
                        self.workers,
                        cpu_arena=self._plan.cpu_arena,
                    )
            return self._spreading

    def _may_be_opened_again(self) -> bool:
        try:
            return state_of(self._file) == self._loaded and size_of(self._file) <= SPREAD_BYTES
        except OSError:  # the weights beside the file are gone
            return False

    def __repr__(self) -> str:
        return f"Runtime({str(self.path)!r}, {self.provider}, workers={self.workers})"


def _choose_output(outputs: Sequence[str], wanted: str | None, preferred: Sequence[str]) -> str:
    if wanted is None:
        return next((name for name in preferred if name in outputs), outputs[0])
    if wanted not in outputs:
        raise InvalidInputError(
            f"output is {wanted!r}; the ONNX file has the outputs {', '.join(outputs)}. Pass one "
            "of them, or leave output out."
        )
    return wanted


def _arena(provider: Provider) -> str:
    """Where a provider's memory is, in onnxruntime's words."""
    if name_of(provider) != CUDA:
        return "cpu:0"
    options = {} if isinstance(provider, str) else provider[1]
    return f"gpu:{int(options.get('device_id', 0))}"
