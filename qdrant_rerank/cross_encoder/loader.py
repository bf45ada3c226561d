"""A cross-encoder's files -> its tokenizer and its scorer, each loaded once, when first used."""

import functools
import logging
import threading
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import Any
from weakref import WeakSet

from qdrant_rerank.cross_encoder.activations import Activation
from qdrant_rerank.cross_encoder.document_cache import SplitRuntime
from qdrant_rerank.cross_encoder.heads import Label
from qdrant_rerank.cross_encoder.model_config import ModelConfig
from qdrant_rerank.cross_encoder.prompts import PromptTemplate, PromptTokenizer, choose_prompt
from qdrant_rerank.cross_encoder.score_cache import ScoreCache, model_fingerprint
from qdrant_rerank.cross_encoder.scorer import PairScorer
from qdrant_rerank.cross_encoder.windows import PairReader, Windows
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.locate import ModelFiles
from qdrant_rerank.hub.onnx_files import external_files
from qdrant_rerank.hub.precision import Conversion, RunPrecision, choose_conversion
from qdrant_rerank.inference.conversion.dequantize import dequantized
from qdrant_rerank.inference.conversion.gpu import Encoder, convert_for_gpu, packed_beside
from qdrant_rerank.inference.conversion.int8 import quantized
from qdrant_rerank.inference.conversion.split import split
from qdrant_rerank.inference.cpu import int8_weights
from qdrant_rerank.inference.providers import CPU, Placement, runs_on_gpu
from qdrant_rerank.inference.runtime import Runtime
from qdrant_rerank.inference.sessions import import_onnxruntime
from qdrant_rerank.inference.tokenization import PairTokenizer
from qdrant_rerank.inference.tokenizer_files import TOKENIZER_FILES
from qdrant_rerank.utils.fork import in_child

__all__ = ["EncoderLoader"]

logger = logging.getLogger(__name__)

_loaders: "WeakSet[EncoderLoader]" = WeakSet()


@dataclass(eq=False, repr=False)
class EncoderLoader:
    """Loads a cross-encoder, once under concurrent first uses too.

    A pickled copy has loaded nothing: sessions, threads and locks stay in their process.

    Attributes:
        files: of the model.
        artifacts: directory for files that are made from them.
        asked: the precision that was asked for.
        running: the other arguments of a ``Runtime``, by name.

        The rest are arguments of
        :class:`~qdrant_rerank.cross_encoder.text_cross_encoder.TextCrossEncoder`.

    Raises:
        ModelFileError: a configuration file cannot be read.
        InvalidInputError: the prompt of a language model is not known, or an instruction is given
            for a model that takes none.
    """

    files: ModelFiles
    _: KW_ONLY
    artifacts: Path
    asked: RunPrecision
    running: dict[str, Any]
    max_length: int | None
    activation: Activation
    label: Label | None
    windows: Windows | None
    instruction: str | None
    prompt: PromptTemplate | None
    score_cache: ScoreCache | None
    document_cache: int | None
    config: ModelConfig = field(init=False)
    loaded_reader: PairReader | None = field(init=False, default=None)
    loaded_scorer: PairScorer | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.config = ModelConfig.read(self.files.tokenizer)
        self.prompt = choose_prompt(self.prompt, self.config, self.files.spec)
        if self.instruction is not None and self.prompt is None:
            raise InvalidInputError(
                f"instruction is {self.instruction!r:.80}, but {self.files.name} reads plain "
                "pairs. Instructions are for language models; leave it out."
            )
        if self.document_cache is not None and self.asked == "fp16":
            raise InvalidInputError(
                "document_cache runs a model in two parts, which are not made in fp16. Leave out "
                "one of document_cache and precision='fp16'."
            )
        names = [each.name for each in fields(Placement)]
        self._placement = Placement(**{name: self.running[name] for name in names})
        self._lock = threading.Lock()
        _loaders.add(self)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_lock": None, "loaded_reader": None, "loaded_scorer": None}
        state.pop("conversion", None)  # it depends on the cards of the machine
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        _loaders.add(self)

    @functools.cached_property
    def conversion(self) -> Conversion:
        """What is made of the model's file.

        Raises:
            InvalidInputError: int8 is asked for on a card.
        """
        placement = self._placement
        for_gpu = self.running["engine"] != "openvino" and (
            placement.wants_gpu
            or (placement.names_gpu and runs_on_gpu(import_onnxruntime(), placement))
        )
        return choose_conversion(self.files.precision, self.asked, for_gpu=for_gpu)

    @property
    def precision(self) -> RunPrecision:
        """What the model is run in; of a file that does not tell, fp32."""
        return self.conversion.precision

    @property
    def weights(self) -> str:
        """Their precision, for people."""
        if self.conversion.dequantizes:
            return f"{self.precision} (int8 weights)"
        if self.conversion.quantizes:
            return f"{self.precision} ({int8_weights()})"
        return self.precision

    def reader(self) -> PairReader:
        """What tokenises, without the ONNX file."""
        if self.loaded_reader is None:
            with self._lock:
                if self.loaded_reader is None:
                    self.loaded_reader = PairReader(self._tokenizer(), self.windows)
        return self.loaded_reader

    def scorer(self) -> PairScorer:
        """The model, ready to score."""
        reader = self.reader()
        if self.loaded_scorer is None:
            with self._lock:
                if self.loaded_scorer is None:
                    runtime = self._runtime()
                    if self.precision == "fp16" and runtime.provider == CPU:
                        _say_slower(self.files.name)
                    self.loaded_scorer = PairScorer(
                        reader,
                        runtime,
                        self.config,
                        activation=self.activation,
                        label=self.label,
                        cache=self.score_cache,
                        model=self._fingerprint(reader, runtime),
                        precision=self.weights,
                    )
        return self.loaded_scorer

    def _tokenizer(self) -> PairTokenizer | PromptTokenizer:
        directory = self.files.tokenizer
        if self.prompt is None:
            return PairTokenizer.from_directory(directory, max_length=self.max_length)
        return PromptTokenizer.from_directory(
            directory, self.prompt, instruction=self.instruction, max_length=self.max_length
        )

    def _runtime(self) -> Runtime:
        on_card = self._on_card()  # before anything is made: what is asked for may not be there
        conversion = self.conversion
        data = self.files.external_data  # before anything reads it
        with ExitStack() as stack:
            model = self.files.model
            options = {
                **self.running,
                "precision": self.precision,
                "first_position": self.config.first_position,
                "artifacts": self.artifacts,
            }
            if conversion.dequantizes:
                model = stack.enter_context(dequantized(model, data, self.artifacts))
                data = external_files(model)
            if conversion.quantizes:
                model = stack.enter_context(quantized(model, data, self.artifacts))
            elif self.precision in {"fp32", "fp16"} and self.document_cache is None:
                # Fused, it takes a text's length for its mask: padding has to be on the right.
                fuses = on_card and self.reader().tokenizer.padding_side == "right"
                encoder = Encoder.read(self.files.tokenizer) if fuses else None
                made = convert_for_gpu(
                    model,
                    data,
                    self.artifacts,
                    encoder=encoder,
                    half=self.precision == "fp16",
                    from_half=conversion.source == "fp16",
                )
                model = stack.enter_context(made)
            if self.precision == "int8" and not self._placement.asks_for_provider:
                options["cuda"] = False  # a card has no kernels for it
            if self.document_cache is None:
                packed = packed_beside(model) if model != self.files.model else None
                return Runtime(model, fallback=self.files.model, packed=packed, **options)
            own = [] if conversion.quantizes else data
            parts = stack.enter_context(split(model, own, self.artifacts))
            return SplitRuntime(*parts, max_bytes=self.document_cache, options=options)

    def _on_card(self) -> bool:
        """Whether the model is going to run on a card.

        Raises:
            InvalidInputError: it was to, and cannot.
        """
        if self.running["engine"] == "openvino" or (
            self.precision == "int8" and not self._placement.asks_for_provider
        ):
            return False
        return runs_on_gpu(import_onnxruntime(), self._placement)

    def _fingerprint(self, reader: PairReader, runtime: Runtime) -> bytes:
        """Of all that makes a logit; neither the activation nor the label does."""
        if self.score_cache is None:
            return b""  # no need to read a model of gigabytes again
        return model_fingerprint(
            [
                self.files.model,
                *self.files.external_data,
                *(self.files.tokenizer / name for name in TOKENIZER_FILES),
            ],
            {
                "provider": runtime.provider,
                "split": self.document_cache is not None,
                "weights": self.weights,
                "max_length": reader.tokenizer.max_length,
                "windows": reader.windows,
                "prompt": self.prompt,
                "instruction": self.instruction,
            },
        )


@functools.cache
def _say_slower(model: str) -> None:
    """Once a model and process."""
    logger.warning(
        "%s runs in fp16 on a CPU, which is slower there than fp32: most of its operators compute "
        "in fp32, with a conversion before and after. precision='fp32' or 'int8' is faster.",
        model,
    )


@in_child
def _unlock() -> None:
    for loader in list(_loaders):  # another thread of the parent may have held its lock
        loader._lock = threading.Lock()
