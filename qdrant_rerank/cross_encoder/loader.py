"""A cross-encoder's files -> its tokenizer and its scorer, each loaded once, when first used."""

import functools
import logging
import threading
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

from qdrant_rerank.cross_encoder.activations import Activation
from qdrant_rerank.cross_encoder.document_cache import TwoPartRuntime
from qdrant_rerank.cross_encoder.document_states import DIGEST_BYTES, FORMAT
from qdrant_rerank.cross_encoder.heads import Label
from qdrant_rerank.cross_encoder.model_config import ModelConfig
from qdrant_rerank.cross_encoder.modular import MODULES, TOKEN_OUTPUTS, ModularHead
from qdrant_rerank.cross_encoder.prompts import PromptTemplate, PromptTokenizer, choose_prompt
from qdrant_rerank.cross_encoder.score_cache import ScoreCache, model_fingerprint
from qdrant_rerank.cross_encoder.scorer import PairScorer
from qdrant_rerank.cross_encoder.state_quantizer import (
    StateQuantizer,
    quantizer_digest,
    quantizer_file,
)
from qdrant_rerank.cross_encoder.state_scorer import QUERY_SHARE, StateScorer
from qdrant_rerank.cross_encoder.windows import PairReader, Windows
from qdrant_rerank.errors import InvalidInputError, ModelFileError
from qdrant_rerank.hub.locate import ModelFiles
from qdrant_rerank.hub.onnx_files import external_files, input_width, is_quantized
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.inference.conversion.attention import with_fused_attention
from qdrant_rerank.inference.conversion.dequantize import dequantized
from qdrant_rerank.inference.conversion.gpu import Encoder, convert_for_gpu
from qdrant_rerank.inference.conversion.int8 import quantized
from qdrant_rerank.inference.conversion.split import JOINT_PRODUCTS, split
from qdrant_rerank.inference.gpu.devices import CPU
from qdrant_rerank.inference.plan import Plan, make_plan
from qdrant_rerank.inference.request import Request
from qdrant_rerank.inference.runtime import Runtime
from qdrant_rerank.inference.tokenization import PairTokenizer
from qdrant_rerank.inference.tokenizer_files import TOKENIZER_FILES
from qdrant_rerank.types import StatesPrecision
from qdrant_rerank.utils.fork import in_child
from qdrant_rerank.utils.validation import shown

__all__ = ["EncoderLoader"]

logger = logging.getLogger(__name__)

_loaders: "WeakSet[EncoderLoader]" = WeakSet()


@dataclass(eq=False, repr=False)
class EncoderLoader:
    """Loads a cross-encoder once, also if several threads use it first at the same time.

    A pickled copy has loaded nothing: sessions, threads and locks stay in their process.

    Attributes:
        files: of the model.
        artifacts: directory for files that are made of them.
        request: how the user asks for the model to be run.

        The others are arguments of
        :class:`~qdrant_rerank.cross_encoder.text_cross_encoder.TextCrossEncoder`.

    Raises:
        ModelFileError: a configuration file cannot be read.
        InvalidInputError: the prompt of a language model is not known, an instruction is given
            for a model that takes none, or a document cache is asked for in fp16.
    """

    files: ModelFiles
    _: KW_ONLY
    artifacts: Path
    request: Request
    max_length: int | None
    activation: Activation
    label: Label | None
    windows: Windows | None
    instruction: str | None
    prompt: PromptTemplate | None
    score_cache: ScoreCache | None
    document_cache: int | None
    output: str | None = None
    config: ModelConfig = field(init=False)
    loaded_reader: PairReader | None = field(init=False, default=None)
    loaded_scorer: PairScorer | None = field(init=False, default=None)
    scorer_used: bool = field(init=False, default=False)
    loaded_states: StateScorer | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.config = ModelConfig.read(self.files.tokenizer)
        self.prompt = choose_prompt(self.prompt, self.config, self.files.spec)
        if self.instruction is not None and self.prompt is None:
            raise InvalidInputError(
                f"instruction is {shown(self.instruction)}, but {self.files.name} reads plain "
                "pairs. Instructions are for language models; leave it out."
            )
        if self.document_cache is not None and self.request.precision == "fp16":
            raise InvalidInputError(
                "document_cache runs a model in two parts, which are not made in fp16. Leave out "
                "one of document_cache and precision='fp16'."
            )
        if self.document_cache is not None and self.output is not None:
            raise InvalidInputError(
                "document_cache runs a model in two parts, which have no output to choose. Leave "
                "out one of document_cache and output."
            )
        self._lock = threading.Lock()
        _loaders.add(self)

    def __getstate__(self) -> dict[str, Any]:
        loaded = ("loaded_reader", "loaded_scorer", "loaded_states")
        state = self.__dict__ | {"_lock": None} | dict.fromkeys(loaded)
        for name in ("plan", "states_models"):  # they depend on the machine
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        _loaders.add(self)

    @functools.cached_property
    def plan(self) -> Plan:
        """Where and how the model runs on this machine.

        Raises:
            InvalidInputError: what is asked for is not there, or cannot be done with this file.
            MissingDependencyError: onnxruntime or OpenVINO is needed and not installed.
        """
        return make_plan(self.request, self.files.precision)

    @functools.cached_property
    def states_models(self) -> dict[StatesPrecision, bytes]:
        """Digests of what decides the states of a document, 16 bytes, by the states' precision.

        "pq" is there if the model has a quantizer. No model is loaded.
        """
        model = model_fingerprint(
            self._files_of_model(),
            {
                "format": FORMAT,
                "precision": (self.plan.precision, self.plan.conversion.source),
                "max_length": self.reader().tokenizer.max_length,
                "query share": QUERY_SHARE,
                "windows": None if self.windows is None else self.windows.overlap,
                "in passages": self.windows is not None,
            },
        )[:DIGEST_BYTES]
        models: dict[StatesPrecision, bytes] = {"int8": model, "float16": model}
        quantizer = quantizer_file(self.files.model)
        if quantizer.is_file():
            models["pq"] = quantizer_digest(model, quantizer)
        return models

    def reader(self) -> PairReader:
        """Return the reader of texts; the ONNX file is not loaded."""
        if self.loaded_reader is None:
            with self._lock:
                if self.loaded_reader is None:
                    self.loaded_reader = PairReader(self._tokenizer(), self.windows)
        return self.loaded_reader

    def load(self) -> None:
        """Load the model, so that it is known that it can be; nothing is scored yet."""
        self._whole()

    def scorer(self) -> PairScorer:
        """Return the whole model, ready to score."""
        self.scorer_used = True
        return self._whole()

    def loaded(self) -> PairScorer:
        """Return the model as it is loaded, whole or in two parts, to tell of it."""
        if self.loaded_scorer is None:
            with self._lock:  # the parts may be about to take its place
                if self.loaded_states is not None:
                    return self.loaded_states.scorer
        return self._whole()

    def _whole(self) -> PairScorer:
        reader = self.reader()
        scorer = self.loaded_scorer
        if scorer is None:
            with self._lock:
                scorer = self.loaded_scorer
                if scorer is None:
                    runtime = self._runtime(reader)
                    if self.plan.precision == "fp16" and runtime.provider == CPU:
                        _log_slower(self.files.name)
                    modules = self._modules(runtime)
                    self.loaded_scorer = scorer = PairScorer(
                        reader,
                        runtime,
                        self.config,
                        activation=self.activation,
                        label=self.label,
                        cache=self.score_cache,
                        model=self._fingerprint(reader, runtime, modules),
                        precision=self.plan.weights,
                        modules=modules,
                    )
        return scorer

    def states(self, precision: StatesPrecision | None = None) -> StateScorer:
        """Return the model in two parts, ready to encode documents and to score by states.

        They take the place of the whole model, if that has scored nothing: it would hold the same
        weights a second time. It is loaded again when it is first used.

        Args:
            precision: that states are wanted in; None for any that the model has.

        Raises:
            InvalidInputError: its lower layers do not see each text alone, or it has no quantizer
                for the precision.
        """
        reader = self.reader()
        if precision == "pq" and "pq" not in self.states_models:
            raise InvalidInputError(
                "States in 'pq' need a quantizer that was learnt for the model, and "
                f"{self.files.name} has none. Choose 'int8', or {DEFAULT_RERANKER}, which has one."
            )
        if self.loaded_states is None:
            with self._lock:
                if self.loaded_states is None:
                    self.loaded_states = self._state_scorer(reader)
        return self.loaded_states

    def _state_scorer(self, reader: PairReader) -> StateScorer:
        if self.prompt is not None or self._is_modular or self.output is not None:
            raise InvalidInputError(
                "States of documents are for a model that reads plain pairs and has a head, with "
                f"no output to choose; {self.files.name} is loaded otherwise."
            )
        if self.request.precision == "fp16":
            raise InvalidInputError(
                "States of documents need a model in two parts, which are not made in fp16. Pass "
                "another precision."
            )
        length = reader.tokenizer.max_length
        documents = PairReader(self._read_tokenizer(length - length // QUERY_SHARE), self.windows)
        # OpenVINO would compile a graph for each length of a text.
        runtime = self._two_parts(self.plan.without_openvino(), in_floats=True)
        scorer = PairScorer(
            reader,
            runtime,
            self.config,
            activation=self.activation,
            label=self.label,
            precision=self.plan.weights,
        )
        models = self.states_models
        quantizer = StateQuantizer.read(self.files.model) if "pq" in models else None
        return StateScorer(scorer, runtime, documents, models, quantizer)

    def _two_parts(
        self, plan: Plan, *, max_bytes: int | None = None, in_floats: bool = False
    ) -> TwoPartRuntime:
        """Load the model in two parts.

        Args:
            plan: where and how both run.
            max_bytes: memory for states that are kept; None keeps none.
            in_floats: whether the branches compute in floats, whatever the precision, but for the
                layers that attend across the pair.
        """
        position = self.config.first_position
        with ExitStack() as stack:
            model, data = self._converted(plan, stack)
            trunk, branches = stack.enter_context(split(model, data, self.artifacts))
            if in_floats and is_quantized(branches):
                floats = dequantized(branches, [], self.artifacts, kept=JOINT_PRODUCTS)
                branches = stack.enter_context(floats)
            prepared = [self._fused(path, plan, stack) for path in (branches, trunk)]
            if in_floats and not self.scorer_used:  # only now: a model that has no parts stays
                self.loaded_scorer = None
            runtime = TwoPartRuntime(
                branches,
                plan,
                prepared=prepared[0],
                first_position=position,
                trunk=Runtime(trunk, plan, prepared=prepared[1], first_position=position),
                max_bytes=max_bytes,
            )
            # The files may be in a temporary folder, and sessions are opened later, too.
            weakref.finalize(runtime, stack.pop_all().close)
            return runtime

    def _fused(self, path: Path, plan: Plan, stack: ExitStack) -> Path | None:
        """Return the file with fused attention, where the plan has it; it stays with the stack."""
        if not plan.fuses_on_cpu:
            return None
        return stack.enter_context(with_fused_attention(path, self.artifacts))

    def _converted(self, plan: Plan, stack: ExitStack) -> tuple[Path, Sequence[Path]]:
        """Return the model's file and its data in the precision that the plan computes in."""
        model, data = self.files.model, self.files.external_data
        if plan.conversion.dequantizes:
            model = stack.enter_context(dequantized(model, data, self.artifacts))
            data = external_files(model)
        if plan.conversion.quantizes and plan.int8 is not None:
            model = stack.enter_context(quantized(model, data, self.artifacts, plan.int8))
            data = external_files(model)
        return model, data

    def _files_of_model(self) -> list[Path]:
        return [
            self.files.model,
            *self.files.external_data,
            *(self.files.tokenizer / name for name in TOKENIZER_FILES),
        ]

    def _tokenizer(self) -> PairTokenizer | PromptTokenizer:
        width = input_width(self.files.model)  # of an export of a fixed length
        if width is not None and self.max_length is not None and self.max_length > width:
            raise InvalidInputError(
                f"max_length is {self.max_length}, but {self.files.model} was exported for exactly "
                f"{width} tokens. Pass at most {width}, or leave it out."
            )
        tokenizer = self._read_tokenizer(self.max_length)
        if width is not None and tokenizer.max_length > width:
            return self._read_tokenizer(width)
        return tokenizer

    def _read_tokenizer(self, max_length: int | None) -> PairTokenizer | PromptTokenizer:
        directory = self.files.tokenizer
        if self.prompt is None:
            return PairTokenizer.from_directory(directory, max_length=max_length)
        return PromptTokenizer.from_directory(
            directory, self.prompt, instruction=self.instruction, max_length=max_length
        )

    def _modules(self, runtime: Runtime) -> ModularHead | None:
        """Read the head that the ONNX file lacks; None if it has one, or no file tells."""
        if runtime.output not in TOKEN_OUTPUTS or not self._is_modular:
            return None
        return ModularHead.read(self.files.tokenizer)

    @property
    def _is_modular(self) -> bool:
        return (self.files.tokenizer / MODULES).is_file()

    def _runtime(self, reader: PairReader) -> Runtime:
        plan = self.plan  # before anything is made: what is asked for may not be there
        try:
            return self._loaded(plan, reader)
        except ModelFileError as error:
            if plan.engine != "openvino" or plan.required:
                raise
            logger.info("onnxruntime runs the model: %s", error)
            return self._loaded(plan.without_openvino(), reader)

    def _loaded(self, plan: Plan, reader: PairReader) -> Runtime:
        """Make the files that the plan needs, and load them."""
        if self.document_cache is not None:
            return self._two_parts(plan, max_bytes=self.document_cache)
        with ExitStack() as stack:
            model, data = self._converted(plan, stack)
            fallback = model
            if plan.precision in {"fp32", "fp16"}:
                # Fused, it takes a text's length for its mask: padding has to be on the right.
                fuses = plan.on_gpu and reader.tokenizer.padding_side == "right"
                made = convert_for_gpu(
                    model,
                    data,
                    self.artifacts,
                    encoder=Encoder.read(self.files.tokenizer) if fuses else None,
                    half=plan.precision == "fp16",
                    from_half=plan.conversion.source == "fp16",
                )
                model = stack.enter_context(made)
            runtime = Runtime(
                model,
                plan,
                prepared=self._fused(model, plan, stack),
                fallback=fallback,
                first_position=self.config.first_position,
                output=self.output,
                preferred=("logits", *(TOKEN_OUTPUTS if self._is_modular else ())),
            )
            # The files may be in a temporary folder, and sessions are opened later, too.
            weakref.finalize(runtime, stack.pop_all().close)
            return runtime

    def _fingerprint(
        self, reader: PairReader, runtime: Runtime, modules: ModularHead | None
    ) -> bytes:
        """Return a digest of all that makes a logit; the activation and the label do not."""
        if self.score_cache is None:
            return b""  # a model of gigabytes need not be read again
        return model_fingerprint(
            [*self._files_of_model(), *(modules.files if modules is not None else ())],
            {
                "provider": runtime.provider,
                "split": self.document_cache is not None,
                "output": runtime.output,
                "weights": self.plan.weights,
                "max_length": reader.tokenizer.max_length,
                "windows": reader.windows,
                "prompt": self.prompt,
                "instruction": self.instruction,
            },
        )


@functools.cache
def _log_slower(model: str) -> None:
    """Log once per model and process."""
    logger.warning(
        "%s runs in fp16 on a CPU, which is slower there than fp32: most of its operators compute "
        "in fp32, with a conversion before and after. precision='fp32' or 'int8' is faster.",
        model,
    )


@in_child
def _unlock() -> None:
    for loader in list(_loaders):  # another thread of the parent may have held the lock
        loader._lock = threading.Lock()
