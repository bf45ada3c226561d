"""Score (query, document) pairs with an ONNX cross-encoder: tokenise -> plan -> run -> scores.

``TextCrossEncoder`` has the calls of fastembed's class of that name. A score depends on its
pair alone: batch size, order, padding and threads never change it.
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from qdrant_rerank.cross_encoder.activations import Activation, activation_name, require_activation
from qdrant_rerank.cross_encoder.heads import Label
from qdrant_rerank.cross_encoder.loader import EncoderLoader
from qdrant_rerank.cross_encoder.pair_scores import PairScores
from qdrant_rerank.cross_encoder.prompts import PromptTemplate
from qdrant_rerank.cross_encoder.score_cache import ScoreCache, as_score_cache
from qdrant_rerank.cross_encoder.windows import LongDocuments, as_windows
from qdrant_rerank.errors import DeadlineError, InvalidInputError
from qdrant_rerank.hub.cache import artifact_directory
from qdrant_rerank.hub.locate import locate_convertible
from qdrant_rerank.hub.onnx_files import precision_of
from qdrant_rerank.hub.precision import RunPrecision
from qdrant_rerank.hub.registry import listing, register_model, supported_models
from qdrant_rerank.hub.specs import ModelFile, ModelSource, ModelSpec
from qdrant_rerank.inference.batching import windows_of
from qdrant_rerank.inference.cpu import available_cores
from qdrant_rerank.inference.runtime import Engine, Provider
from qdrant_rerank.inference.threads import shared_pool
from qdrant_rerank.utils.deadline import Deadline
from qdrant_rerank.utils.progress import tqdm
from qdrant_rerank.utils.validation import (
    require_choice,
    require_count,
    require_pairs,
    require_positive,
    require_several,
)

__all__ = ["Activation", "PairScores", "TextCrossEncoder"]

SHOW_AFTER_S = 1  # seconds after which a stream of pairs shows its progress


class TextCrossEncoder:
    """A cross-encoder that scores how well each document answers a query.

    Safe to call from many threads. Differs from fastembed's in that unknown keywords are an
    error, ``rerank`` is eager, and batches never change a score: to the bit in int8, and but for
    the rounding of sums in floats, 1e-5 in fp32.

    Args:
        model_name: a name from ``list_supported_models()`` (any case, owner optional), any hub
            repository with an ONNX file ("owner/name"), or the path of a directory with
            ``model.onnx`` or ``onnx/model.onnx`` and ``tokenizer.json``, or of an ``.onnx`` file.
        cache_dir: where downloads are kept; else ``QDRANT_RERANK_CACHE``, else the hub's own.
        threads: runs at once on a CPU, one core each; None for all that the process may use.
        providers: onnxruntime's execution providers; excludes ``cuda=True``.
        cuda: True, False, or "auto": CUDA where a session runs on a card. What is asked for and not
            there is an error that says what is missing. A model whose file is int8 stays on the CPU
            unless a card is asked for, which has no kernels for it and runs its weights in floats.
        device_ids: CUDA devices, one session each, behind one queue.
        lazy_load: load the model at the first score instead of now.
        device: where to run in a word: "auto", "cpu", "cuda" or "cuda:1".
        gpu_mem_limit: most bytes that a card's arena may take, beside what CUDA itself does.
        revision: a hub branch, tag or commit; None for the commit that was first fetched.
        precision: "auto" is the model's own file as it is: nothing is ever quantised unasked, for
            that changes scores. "fp32", "fp16" and others are the file of that name. So is "int8"
            where there is one, published or beside the model; else the fp32 file is quantised,
            once, into the cache: ``pip install "qdrant-rerank[quantize]"``; likewise "fp16", which
            is for cards: on a CPU it is slower. Of a model that has an int8 file alone, "fp32" and
            "fp16" are its int8 weights in floats, which no longer round what they are multiplied
            by. "bf16" is the fp32 file in bf16 arithmetic, which OpenVINO alone does.
        engine: "onnxruntime"; "openvino", on a CPU, for files that are not int8, with the same
            scores to 1e-4: ``pip install "qdrant-rerank[openvino]"``; "auto": OpenVINO where it is
            installed and keeps the precision, else onnxruntime.
        max_length: window in tokens, special tokens included; None for the model's own.
        activation: "identity" gives raw logits; "sigmoid" maps them to 0..1; "softmax" is the
            share of the relevant label among all; "auto" is what the model's configuration says,
            as sentence-transformers does; or a callable, logits (n,) float32 -> scores (n,)
            float32, such as a :class:`~qdrant_rerank.cross_encoder.calibration.Calibrator`.
        label: the label that is relevance, by name or number, where the model has several; None
            for the only one, or of two the one that the configuration names, else the second.
        long_documents: "truncate" reads what fits the window; "windows" reads all of a document
            in overlapping parts and takes the highest score; ``Windows(...)`` says how.
        instruction: for a language model, what is relevant; None for its prompt's own.
        prompt: for a language model, what it is asked; None for that of its family (Qwen3).
        score_cache: keeps what the model said of pairs, so that the same pair is not scored twice:
            bytes that it may take, or a
            :class:`~qdrant_rerank.cross_encoder.score_cache.ScoreCache`, which several
            encoders may share; None for none.
        document_cache: bytes for what the lower layers of a bundled model say of a text, 3 kB a
            token, so that a document that was read before takes less than half of the time;
            None for none. The model is then run in two parts, which differs from the whole as
            int8 does from fp32; a score does not depend on what was read before.
        local_files_only: never touch the network.
        specific_model_path: a directory to load the named model from instead.

    Raises:
        UnknownModelError: no such name, path or repository.
        ModelFileError: a file is missing, truncated, could not be fetched or does not fit;
            DamagedFileError where its bytes are not those that were published.
        MissingPrecisionError: the model has no file of that precision.
        MissingDependencyError: onnxruntime is not installed, or cachetools for a score cache, or
            the quantiser for int8.
        InvalidInputError: an argument is wrong.

    Examples:
        >>> from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
        >>> encoder = TextCrossEncoder(DEFAULT_RERANKER)
        >>> scores = encoder.rerank("capital of France", ["Berlin is in Germany.",
        ...                                               "Paris is the capital of France."])
        >>> scores[1] > scores[0]
        True
    """

    def __init__(
        self,
        model_name: str | Path,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        cuda: bool | Literal["auto", "cuda", "cpu"] = "auto",
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        *,
        device: str | None = None,
        gpu_mem_limit: int | None = None,
        revision: str | None = None,
        precision: RunPrecision = "auto",
        engine: Engine = "auto",
        max_length: int | None = None,
        activation: Activation = "identity",
        label: Label | None = None,
        long_documents: LongDocuments = "truncate",
        instruction: str | None = None,
        prompt: PromptTemplate | None = None,
        score_cache: ScoreCache | int | None = None,
        document_cache: int | None = None,
        local_files_only: bool = False,
        specific_model_path: str | Path | None = None,
    ) -> None:
        require_choice("precision", precision, RunPrecision)
        require_choice("engine", engine, Engine)
        require_positive("threads", threads)
        require_positive("max_length", max_length)
        require_activation(activation)
        require_positive("document_cache", document_cache)
        windows = as_windows(long_documents)
        cache = as_score_cache(score_cache)
        files = locate_convertible(
            model_name,
            precision="fp32" if precision == "bf16" else precision,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            specific_model_path=specific_model_path,
        )
        self._model = EncoderLoader(
            files,
            artifacts=artifact_directory(cache_dir),
            asked=precision,
            running={
                "threads": threads,
                "providers": providers,
                "cuda": cuda,
                "device_ids": device_ids,
                "device": device,
                "gpu_mem_limit": gpu_mem_limit,
                "engine": engine,
            },
            max_length=max_length,
            activation=activation,
            label=label,
            windows=windows,
            instruction=instruction,
            prompt=prompt,
            score_cache=cache,
            document_cache=document_cache,
        )
        if not lazy_load:
            self._model.scorer()

    @property
    def model_name(self) -> str:
        """The registered name, or the name of the directory or file."""
        return self._model.files.name

    @property
    def precision(self) -> RunPrecision:
        """What the model is run in; of a file that does not tell, fp32."""
        return self._model.precision

    @property
    def provider(self) -> str:
        """Which of onnxruntime's execution providers runs the model, which is loaded for this."""
        return self._model.scorer().runtime.provider

    @property
    def max_length(self) -> int:
        """Window in tokens, special tokens included."""
        return self._model.reader().tokenizer.max_length

    @property
    def score_cache(self) -> ScoreCache | None:
        """What keeps scores, with its hits and misses; None where nothing does."""
        return self._model.score_cache

    @property
    def activation(self) -> str:
        """Name of the activation in use, "auto" resolved; loads the model."""
        return activation_name(self._model.scorer().activation)

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        batch_size: int | None = None,
        *,
        deadline_s: float | None = None,
    ) -> list[float]:
        """Score documents for one query.

        Args:
            query: any text; longer than half of the window, it may be cut.
            documents: texts of any length; what does not fit the window is cut, or read in
                parts, as ``long_documents`` says; ``score_pairs`` tells which were cut.
            batch_size: most pairs a run may hold; None to let the token budget decide. Never
                changes a score.
            deadline_s: seconds that this may take, exceeded by at most one run; None for no
                limit. Documents are then scored in their order.

        Returns:
            One score a document, in input order; higher is more relevant. Raw logits unless an
            activation was chosen. No documents, no scores.

        Raises:
            InvalidInputError: a text is not a str, ``batch_size`` is below 1, or ``deadline_s`` is
                not above 0.
            DeadlineError: time was up before the last document, since the list would not be one
                score a document; its ``scores`` are those of the first ones. ``score_pairs``
                returns them instead.
            ModelOutputError: the model failed or returned a score that is not finite.
        """
        deadline = Deadline.after(deadline_s)
        require_several("documents", documents)
        pairs = [(query, document) for document in documents]
        require_positive("batch_size", batch_size)
        found = self._model.scorer().score(pairs, batch_size, deadline=deadline)
        scores: list[float] = found.scores[found.scored].tolist()
        if len(scores) < len(pairs):
            raise DeadlineError(
                f"{len(scores)} of {len(pairs)} documents were scored in {deadline_s} s. Their "
                "scores are in this error's scores. Give it longer, or fewer documents.",
                scores,
            )
        return scores

    def rerank_pairs(
        self,
        pairs: Iterable[tuple[str, str]],
        batch_size: int | None = None,
        parallel: int | None = None,
        *,
        progress: bool | None = None,
    ) -> Iterator[float]:
        """Score pairs lazily, in bounded memory: a generator of ten million pairs is fine.

        About 1,000 pairs are read ahead, of any queries, and scored together, sorted by length.

        Args:
            pairs: (query, document) texts.
            batch_size: most pairs a run may hold; None to let the token budget decide.
            parallel: runs at once; 0 for one a core, None for the encoder's ``threads``. No
                processes are started. On cards, ``device_ids`` says how many work; each takes the
                next run when it is free.
            progress: a progress bar on stderr once it has taken a second; None for one if stderr
                is a terminal.

        Returns:
            An iterator of one score a pair, in input order.

        Raises:
            InvalidInputError: at this call for a wrong argument; while iterating for a pair
                that is not two texts.
            ModelOutputError: while iterating, the model failed or a score is not finite.
        """
        require_positive("batch_size", batch_size)
        if parallel is not None:
            require_count("parallel", parallel)
        require_several("pairs", pairs)
        source: Any = pairs
        if isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], str):
            source = [source]  # one pair, as fastembed takes it
        total = len(source) if isinstance(source, Sized) else None
        return self._iterate(iter(source), total, batch_size, parallel, progress)

    def score_pairs(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int | None = None,
        *,
        deadline_s: float | None = None,
    ) -> PairScores:
        """Score pairs at once and say what it cost.

        Args:
            pairs: (query, document) texts, of one query or of many.
            batch_size: most pairs a run may hold; None to let the token budget decide.
            deadline_s: seconds that this may take, exceeded by at most one run; None for no
                limit. Pairs are then scored in their order, and ``scored`` of the result says
                which were; the scores of the others are NaN.

        Raises:
            InvalidInputError: a text is not a str, ``batch_size`` is below 1, or ``deadline_s`` is
                not above 0.
            ModelOutputError: the model failed or returned a score that is not finite.
        """
        deadline = Deadline.after(deadline_s)
        require_several("pairs", pairs)
        require_positive("batch_size", batch_size)
        return self._model.scorer().score(list(pairs), batch_size, deadline=deadline)

    def token_count(self, pairs: Iterable[tuple[str, str]], batch_size: int = 1024) -> int:
        """Tokens that scoring these pairs would read, after truncation and without padding.

        Does not load the ONNX file.

        Args:
            pairs: (query, document) texts.
            batch_size: pairs tokenised at a time.

        Raises:
            InvalidInputError: a text is not a str, or ``batch_size`` is below 1.
        """
        require_several("pairs", pairs)
        require_positive("batch_size", batch_size)
        reader = self._model.reader()
        source = iter(pairs)
        total = 0
        while window := list(islice(source, batch_size)):
            require_pairs(window)
            total += sum(len(row) for row in reader(window).rows)
        return total

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """Models known by name, bundled and custom ones included.

        Returns:
            A dict each with fastembed's keys (model, sources, model_file, description, license,
            size_in_GB, additional_files) and max_length, labels, activation, template,
            commercial_use and precisions (name -> file, size_in_GB, repository).
        """
        return [listing(spec) for spec in supported_models()]

    @classmethod
    def add_custom_model(
        cls,
        model: str | ModelSpec,
        sources: ModelSource | None = None,
        model_file: str = "onnx/model.onnx",
        description: str = "",
        license: str = "",
        size_in_gb: float = 0.0,
        additional_files: Sequence[str] | None = None,
    ) -> None:
        """Register a model of a hub repository by a name of its own, for this process.

        An encoder made from it may be sent to another process: it carries what it needs.

        Args:
            model: the name, unique without regard to case; or a ``ModelSpec``, which says all.
            sources: ``ModelSource(hf="owner/name")``; fastembed's ModelSource serves too.
            model_file: the ONNX file in the repository.
            description: one sentence.
            license: identifier of the licence.
            size_in_gb: of the files, decimal gigabytes.
            additional_files: files needed beside the ONNX file; external data that it names
                itself need not be listed.

        Raises:
            InvalidInputError: the name is taken, or there is no hub repository.
        """
        if isinstance(model, ModelSpec):
            if sources is not None:
                raise InvalidInputError("sources are given twice; the ModelSpec has its own.")
            register_model(model)
            return
        if sources is None:
            raise InvalidInputError(
                f'sources of {model!r} are missing. Pass sources=ModelSource(hf="owner/name").'
            )
        file = ModelFile(
            path=model_file,
            precision=precision_of(model_file),
            size_in_gb=size_in_gb,
            additional_files=tuple(additional_files or ()),
        )
        register_model(
            ModelSpec(
                model=model,
                sources=ModelSource(sources.hf, sources.url, getattr(sources, "revision", None)),
                description=description,
                license=license,
                files=(file,),
            )
        )

    def __repr__(self) -> str:
        model = self._model
        state = repr(model.loaded_scorer.runtime) if model.loaded_scorer else "not loaded yet"
        return f"TextCrossEncoder({self.model_name!r}, {model.weights}, {state})"

    def _iterate(
        self,
        pairs: Iterator[tuple[str, str]],
        total: int | None,
        batch_size: int | None,
        parallel: int | None,
        progress: bool | None,
    ) -> Iterator[float]:
        with ExitStack() as stack:
            pool = None
            if parallel is not None:
                pool = shared_pool(parallel or available_cores())
            bar = stack.enter_context(
                tqdm(
                    total=total,
                    unit="pair",
                    delay=SHOW_AFTER_S,
                    disable=None if progress is None else not progress,
                )
            )
            first = 0
            for window in windows_of(_checked(pairs)):
                scores = self._model.scorer().score(window, batch_size, pool, first=first).scores
                first += len(window)
                bar.update(len(window))
                yield from scores.tolist()


def _checked(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for number, pair in enumerate(pairs):
        require_pairs([pair], number)
        yield pair
