"""Scores of (query, document) pairs from an ONNX cross-encoder.

``TextCrossEncoder`` has the methods of fastembed's class of that name. A score depends only on its
pair: batch size, order, padding and threads never change it.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qdrant_rerank.cross_encoder.activations import Activation, activation_name, require_activation
from qdrant_rerank.cross_encoder.document_states import DocumentStates
from qdrant_rerank.cross_encoder.heads import Label
from qdrant_rerank.cross_encoder.loader import EncoderLoader
from qdrant_rerank.cross_encoder.pair_scores import PairScores
from qdrant_rerank.cross_encoder.prompts import PromptTemplate
from qdrant_rerank.cross_encoder.score_cache import ScoreCache, as_score_cache
from qdrant_rerank.cross_encoder.state_scorer import StateScorer, StoredText
from qdrant_rerank.cross_encoder.steps import Steps
from qdrant_rerank.cross_encoder.streams import encoded_stream, scored_stream
from qdrant_rerank.cross_encoder.windows import LongDocuments, as_windows
from qdrant_rerank.errors import DeadlineError, InvalidInputError
from qdrant_rerank.hub.cache import artifact_directory
from qdrant_rerank.hub.locate import locate
from qdrant_rerank.hub.precision import RunPrecision, precision_of
from qdrant_rerank.hub.registry import listing, register_model, supported_models
from qdrant_rerank.hub.specs import ModelFile, ModelSource, ModelSpec
from qdrant_rerank.inference.gpu.devices import Provider
from qdrant_rerank.inference.request import Engine, Request
from qdrant_rerank.types import StatesPrecision
from qdrant_rerank.utils.deadline import Deadline
from qdrant_rerank.utils.validation import (
    as_pairs,
    require_choice,
    require_count,
    require_flag,
    require_pairs,
    require_positive,
    require_several,
    shown,
)

__all__ = ["Activation", "PairScores", "TextCrossEncoder"]


class TextCrossEncoder:
    """A cross-encoder that scores how well each document answers a query.

    Safe to call from many threads. The other pairs of a batch never change a score: to the bit in
    int8, to the rounding of sums in floats (1e-5 in fp32).

    Code for fastembed's class runs with this one. These things differ on purpose:

    ==============================  ===========================  ================================
    what                            fastembed                    here
    ==============================  ===========================  ================================
    ``rerank``                      yields                       returns a list
    an unknown keyword              is ignored                   is a ``TypeError``
    ``batch_size``                  64                           as many as the token budget holds
    int8 scores                     depend on the batch          depend on the pair alone
    ``parallel``                    starts processes             uses threads
    ``device_ids=[0, 1]``           uses the first               uses both
    ``device_id``, ``device_ids``   may both be given            exclude each other
    an int8 file, and a GPU         runs on the GPU              runs on the CPU, unless asked for
    ``cuda=True`` and no GPU        warns, runs on the CPU       is an error
    ``cuda=True`` and providers     warns                        is an error
    ``cache_dir=None``              a temporary directory        the hub's cache; models in
                                                                 ``FASTEMBED_CACHE_PATH`` are found
    ``.model``, its attributes      the ONNX model               not there
    ==============================  ===========================  ================================

    Args:
        model_name: a name from ``list_supported_models()`` (in any case, with or without the
            owner); a hub repository with an ONNX file ("owner/name"); the path of a directory with
            ``model.onnx`` or ``onnx/model.onnx`` and ``tokenizer.json``; or the path of an
            ``.onnx`` file.
        cache_dir: where downloads are kept; None for ``QDRANT_RERANK_CACHE``, or else the hub's own
            cache.
        threads: batches at the same time on a CPU, each on one core; None for all cores that the
            process may use.
        providers: onnxruntime's execution providers, in order; excludes ``cuda=True``.
        cuda: True, False, or "auto": CUDA if a GPU can be used. True is an error if something is
            missing, and the error says what. A model whose file is int8 stays on the CPU unless a
            GPU is asked for: a GPU has no kernels for int8 and runs the weights in floats.
        device_ids: numbers of GPUs; one session per GPU, and the GPU that is free first takes the
            next batch. On a machine without a GPU the model runs on the CPU, unless ``cuda=True``.
        lazy_load: load the model at the first score instead of now.
        device: the device as one word: "auto", "cpu", "cuda" or "cuda:1".
        device_id: number of one GPU, instead of ``device_ids``.
        enable_cpu_mem_arena: whether onnxruntime keeps memory of the CPU for the next batch. False
            takes less memory and more time.
        gpu_mem_limit: bytes that onnxruntime's arena may take on each GPU; CUDA itself takes more.
        revision: a hub branch, tag or commit; None for the commit that was first fetched.
        precision: "auto" is the model's own file as it is; it is never quantised, since that
            changes scores. "fp32", "fp16" and "int8" are the file of that precision, published or
            beside the model. Without an int8 file, the fp32 file is quantised, once, into the
            cache: ``pip install "qdrant-rerank[quantize]"``. Without an fp16 file, one is made in
            the same way; it is for GPUs, and slower than fp32 on a CPU. If a model has only an int8
            file, "fp32" and "fp16" are its int8 weights in floats, and activations are not rounded.
            "bf16" is the fp32 file in bf16 arithmetic, which only OpenVINO does.
        engine: "onnxruntime"; "openvino" on a CPU, for files that are not int8, with the same
            scores to 1e-4: ``pip install "qdrant-rerank[openvino]"``; "auto" for OpenVINO if it is
            installed and keeps the precision, else onnxruntime.
        max_length: tokens of a pair, special tokens included, at most; None for the model's limit.
        activation: "identity" gives raw logits; "sigmoid" maps them to 0..1; "softmax" is the
            share of the relevant label among all; "auto" is the activation of the model's
            configuration, as in sentence-transformers; or a callable, logits (n,) float32 ->
            scores (n,) float32, such as a
            :class:`~qdrant_rerank.cross_encoder.calibration.Calibrator`.
        label: name or number of the label that means relevance, if the model has several labels.
            None for the only one; of two, the one that the configuration names, else the second.
        output: name of the ONNX file's output that holds the logits; None for ``logits``, or else
            its first output. Token states (``last_hidden_state``, ``token_embeddings``) go through
            the head that the model's ``modules.json`` lists.
        long_documents: "truncate" reads a document up to the max length; "windows" reads all of it
            in overlapping passages and takes the highest score; ``Windows(...)`` says how.
        instruction: for a language model: what is relevant; None for its prompt's own.
        prompt: for a language model: the question that it answers; None for that of its family
            (Qwen3).
        score_cache: keeps the model's logits of pairs, so that no pair is scored twice: bytes that
            it may take, or a :class:`~qdrant_rerank.cross_encoder.score_cache.ScoreCache`, which
            several encoders may share. None disables it.
        document_cache: bytes for the states of texts in the lower layers of a bundled model, 1.5 kB
            per token, or 3 kB with "grown-e5-small-cross-v1". A document that was read before then
            takes a fifteenth of the time or less with the default, a third with that one. The
            model runs in two parts, whose scores differ from the whole model's as int8 scores
            differ from fp32. A score does not depend on what was read before. None disables it.
        local_files_only: never touch the network.
        specific_model_path: a directory to load the named model from instead.

    Raises:
        UnknownModelError: there is no such name, path or repository.
        ModelFileError: a file is missing, truncated, could not be fetched or does not fit;
            DamagedFileError if its bytes are not those that were published.
        MissingPrecisionError: the model has no file of that precision.
        MissingDependencyError: onnxruntime is not installed, or cachetools for a cache, or the
            quantiser for int8.
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
        device_id: int | None = None,
        enable_cpu_mem_arena: bool = True,
        gpu_mem_limit: int | None = None,
        revision: str | None = None,
        precision: RunPrecision = "auto",
        engine: Engine = "auto",
        max_length: int | None = None,
        activation: Activation = "identity",
        label: Label | None = None,
        output: str | None = None,
        long_documents: LongDocuments = "truncate",
        instruction: str | None = None,
        prompt: PromptTemplate | None = None,
        score_cache: ScoreCache | int | None = None,
        document_cache: int | None = None,
        local_files_only: bool = False,
        specific_model_path: str | Path | None = None,
    ) -> None:
        request = Request(
            threads=threads,
            providers=providers,
            cuda=cuda,
            device_ids=device_ids,
            device_id=device_id,
            device=device,
            gpu_mem_limit=gpu_mem_limit,
            engine=engine,
            precision=precision,
            enable_cpu_mem_arena=enable_cpu_mem_arena,
        )
        require_flag("lazy_load", lazy_load)
        require_flag("local_files_only", local_files_only)
        require_positive("max_length", max_length)
        require_activation(activation)
        require_positive("document_cache", document_cache)
        if output is not None and (not isinstance(output, str) or not output):
            raise InvalidInputError(
                f"output is {shown(output)}; expected the name of an ONNX output."
            )
        windows = as_windows(long_documents)
        cache = as_score_cache(score_cache)
        self._cache_dir = cache_dir
        files = locate(
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
            request=request,
            max_length=max_length,
            activation=activation,
            label=label,
            output=output,
            windows=windows,
            instruction=instruction,
            prompt=prompt,
            score_cache=cache,
            document_cache=document_cache,
        )
        if not lazy_load:
            self._model.load()

    @property
    def model_name(self) -> str:
        """The registered name, or the name of the directory or file."""
        return self._model.files.name

    @property
    def cache_dir(self) -> str | Path | None:
        """The argument ``cache_dir``, as given."""
        return self._cache_dir

    @property
    def threads(self) -> int | None:
        """The argument ``threads``, as given."""
        return self._model.request.threads

    @property
    def precision(self) -> RunPrecision:
        """Precision that the model computes in; fp32 if neither its file nor its name tells."""
        return self._model.plan.precision

    @property
    def provider(self) -> str:
        """Name of the execution provider that runs the model; loads the model."""
        return self._model.loaded().runtime.provider

    @property
    def max_length(self) -> int:
        """Tokens of a pair that the model reads, special tokens included."""
        return self._model.reader().tokenizer.max_length

    @property
    def score_cache(self) -> ScoreCache | None:
        """The score cache, with its hits and misses; None without one."""
        return self._model.score_cache

    @property
    def activation(self) -> str:
        """Name of the activation in use, "auto" resolved; loads the model."""
        return activation_name(self._model.loaded().activation)

    def rerank(
        self,
        query: str,
        documents: Iterable[str] | DocumentStates,
        batch_size: int | None = None,
        *,
        deadline_s: float | None = None,
    ) -> list[float]:
        """Score documents for one query.

        Args:
            query: a text; it may be cut if it is longer than half of the max length.
            documents: what :meth:`encode_documents` returned, or texts of any length.
                A pair that is longer than the max length is cut, or
                read in passages, as ``long_documents`` says. ``score_pairs`` tells which were cut.
            batch_size: pairs per batch, at most; None to let the token budget decide. It never
                changes a score.
            deadline_s: seconds that this call may take, exceeded by at most one batch; None for no
                limit. With a deadline, documents are scored in their order.

        Returns:
            One score per document, in input order; higher is more relevant. Scores are raw logits
            unless an activation was chosen. Without documents, the list is empty.

        Raises:
            InvalidInputError: a text is not a str, ``batch_size`` is below 1, or ``deadline_s`` is
                not above 0.
            DeadlineError: time was up before the last document. The error's ``scores`` are those
                of the first documents; ``score_pairs`` returns them instead of an error.
            ModelOutputError: the model failed or returned a score that is not finite.
        """
        if not isinstance(documents, DocumentStates):
            require_several("documents", documents)
        found = self._score_all(query, documents, batch_size, deadline_s)
        scores: list[float] = found.scores.tolist()
        return scores

    def encode_documents(
        self,
        documents: Iterable[str],
        *,
        precision: StatesPrecision = "int8",
        progress: bool | None = None,
    ) -> DocumentStates:
        """Read documents once, for all queries: of a model whose lower layers see each text alone.

        ``rerank(query, states)`` then runs only what compares both texts. A document is read up to
        seven eighths of the max length whatever the query, or in passages of that length, as
        ``long_documents`` says. Else a score differs from the whole model's by the rounding of the
        states; and in int8, where both texts are rounded together in the whole model and each
        alone here, by that.

        Args:
            documents: texts.
            precision: "int8" takes 290 bytes per token of the default model, "float16" 740; of
                "grown-e5-small-cross-v1" 415 and 1,370. "pq", product quantisation, takes 73,
                of a model that has a quantizer: the default one.
            progress: whether a progress bar is shown on stderr after a second; None to show it if
                stderr is a terminal.

        Returns:
            The states, in input order.

        Raises:
            InvalidInputError: the model has no such layers, or no quantizer for "pq"; the error
                names those that have. Or an argument is wrong.
            MissingDependencyError: onnx is not installed, which cuts the model in two, once.
            ModelOutputError: the model failed.

        Examples:
            >>> from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
            >>> encoder = TextCrossEncoder(DEFAULT_RERANKER)
            >>> states = encoder.encode_documents(["Bread is baked.", "Iron melts at 1538 C."])
            >>> scores = encoder.rerank("melting iron", states)
            >>> scores[1] > scores[0]
            True
        """
        require_several("documents", documents)
        require_choice("precision", precision, StatesPrecision)
        require_flag("progress", progress, optional=True)
        return encoded_stream(self._model.states(precision), documents, precision, progress)

    @property
    def states_models(self) -> dict[StatesPrecision, bytes]:
        """Digests, 16 bytes, of what decides the states of a document, by their precision.

        It has the precisions of the model. No model is loaded.
        """
        return self._model.states_models

    def states(self, precision: StatesPrecision | None = None) -> StateScorer:
        """Return the model in two parts, for a searcher; loads it.

        Args:
            precision: that states are wanted in; None for any that the model has.

        Raises:
            InvalidInputError: its lower layers do not see each text alone, or it has no quantizer
                for "pq"; the error names models that have.
        """
        return self._model.states(precision)

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        return_documents: bool = False,
        *,
        batch_size: int | None = None,
        deadline_s: float | None = None,
    ) -> list[dict[str, Any]]:
        """Order documents by their scores, as ``CrossEncoder.rank`` of sentence-transformers does.

        With ``activation="auto"`` the scores equal those of sentence-transformers. Its arguments
        ``activation_fn``, ``prompt`` and ``device`` are ``activation``, ``instruction`` and
        ``device`` of the constructor here.

        Args:
            query: as in :meth:`rerank`.
            documents: as in :meth:`rerank`.
            top_k: documents to return; None for all.
            return_documents: whether the texts are returned, too.
            batch_size: as in :meth:`rerank`.
            deadline_s: as in :meth:`rerank`.

        Returns:
            One dict per document, best first: ``corpus_id`` (its place in ``documents``), ``score``
            and, if asked for, ``text``. Documents with equal scores come in the order of their
            logits, then of ``documents``.

        Raises:
            InvalidInputError: as :meth:`rerank`, or ``top_k`` is below 1.
            DeadlineError: as :meth:`rerank`.
            ModelOutputError: as :meth:`rerank`.

        Examples:
            >>> from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
            >>> encoder = TextCrossEncoder(DEFAULT_RERANKER)
            >>> texts = ["Bread is baked.", "Iron melts at 1538 C."]
            >>> [best] = encoder.rank("melting iron", texts, top_k=1, return_documents=True)
            >>> best["corpus_id"], best["text"]
            (1, 'Iron melts at 1538 C.')
        """
        require_positive("top_k", top_k)
        require_flag("return_documents", return_documents)
        require_several("documents", documents)
        texts = list(documents)
        found = self._score_all(query, texts, batch_size, deadline_s)
        ranked = []
        for row in np.lexsort((-found.logits, -found.scores))[:top_k].tolist():
            one: dict[str, Any] = {"corpus_id": row, "score": float(found.scores[row])}
            if return_documents:
                one["text"] = texts[row]
            ranked.append(one)
        return ranked

    def rerank_pairs(
        self,
        pairs: Iterable[tuple[str, str]],
        batch_size: int | None = None,
        parallel: int | None = None,
        *,
        progress: bool | None = None,
    ) -> Iterator[float]:
        """Score pairs lazily, in bounded memory: a generator of ten million pairs is fine.

        About 1,000 pairs, of any queries, are read ahead, sorted by length and scored together.

        Args:
            pairs: (query, document) texts; also one pair, or a numpy array of shape (n, 2).
            batch_size: pairs per batch, at most; None to let the token budget decide.
            parallel: batches at the same time; 0 for one per core, None for the encoder's
                ``threads``. No processes are started. It has no effect on GPUs: ``device_ids``
                says how many work.
            progress: whether a progress bar is shown on stderr after a second; None to show it if
                stderr is a terminal.

        Returns:
            An iterator of one score per pair, in input order.

        Raises:
            InvalidInputError: at this call if an argument is wrong; during iteration if a pair is
                not two texts.
            ModelOutputError: during iteration, if the model failed or a score is not finite.
        """
        require_positive("batch_size", batch_size)
        if parallel is not None:
            require_count("parallel", parallel)
        require_flag("progress", progress, optional=True)
        return scored_stream(self._model.scorer, as_pairs(pairs), batch_size, parallel, progress)

    def score_pairs(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int | None = None,
        *,
        deadline_s: float | None = None,
    ) -> PairScores:
        """Score pairs and return the scores with their cost: seconds, tokens, padding.

        The result's ``label_logits`` are the logits of all labels of a model that has several.

        Args:
            pairs: (query, document) texts, of one query or of several; also one pair, or a numpy
                array of shape (n, 2).
            batch_size: pairs per batch, at most; None to let the token budget decide.
            deadline_s: seconds that this call may take, exceeded by at most one batch; None for no
                limit. With a deadline, pairs are scored in their order. ``scored`` of the result
                says which pairs were scored; the scores of the others are NaN.

        Raises:
            InvalidInputError: a text is not a str, ``batch_size`` is below 1, or ``deadline_s`` is
                not above 0.
            ModelOutputError: the model failed or returned a score that is not finite.
        """
        deadline = Deadline.after(deadline_s)
        several = list(as_pairs(pairs))
        require_positive("batch_size", batch_size)
        return self._score(several, batch_size, deadline)

    def steps(self, pairs: Sequence[tuple[str, str]]) -> list[Steps]:
        """Score pairs step by step: for a server, whose requests take turns at the model.

        The scores are those of :meth:`score_pairs`, to the bit on a CPU.

        Args:
            pairs: (query, document) texts, of one query or of several.

        Returns:
            Blocks of about 1,000 pairs, in order, or one block of texts with stored states. Nothing
            has been tokenised yet.

        Raises:
            InvalidInputError: a text is not a str.
        """
        stored = self._stored(pairs)
        if stored is not None:
            return [self._model.states().steps(pairs, stored.precision)]
        return self._model.scorer().steps(pairs)

    def cut(self, texts: Sequence[str], tokens: int) -> list[str]:
        """Cut texts after so many of the model's tokens; shorter ones stay as they are."""
        reader = self._model.reader()
        return [reader.cut(text, tokens) for text in texts]

    def has_cores_for(self, batches: int) -> bool:
        """Whether so many batches leave half of the cores idle, so that each may use several."""
        return self._model.loaded().runtime.has_cores_for(batches)

    @property
    def workers(self) -> int:
        """Batches that run at the same time; loads the model."""
        return self._model.loaded().runtime.workers

    def token_count(self, pairs: Iterable[tuple[str, str]], batch_size: int = 1024) -> int:
        """Count the tokens that the model would read of these pairs, without padding.

        The ONNX file is not loaded.

        Args:
            pairs: (query, document) texts; also one pair, or a numpy array of shape (n, 2).
            batch_size: pairs that are tokenised at a time.

        Raises:
            InvalidInputError: a text is not a str, or ``batch_size`` is below 1.
        """
        source = iter(as_pairs(pairs))
        require_positive("batch_size", batch_size)
        reader = self._model.reader()
        total = 0
        while block := list(islice(source, batch_size)):
            require_pairs(block)
            total += sum(len(row) for row in reader(block).rows)
        return total

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """List the models that are known by name, bundled and custom ones included.

        Returns:
            One dict per model with fastembed's keys (model, sources, model_file, description,
            license, size_in_GB, additional_files) and max_length, labels, activation, template,
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
        """Register a model of a hub repository under a new name, for this process.

        An encoder that is made of it may be pickled and sent to another process.

        Args:
            model: the name, unique in any case; or a ``ModelSpec`` with everything.
            sources: ``ModelSource(hf="owner/name")``, of this package or of fastembed.
            model_file: the ONNX file in the repository.
            description: one sentence.
            license: identifier of the licence.
            size_in_gb: size of the files in decimal gigabytes.
            additional_files: files that are needed besides the ONNX file and its external data.

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
        state = "not loaded yet"
        if model.loaded_scorer is not None:
            state = f"{model.plan.weights}, {model.loaded_scorer.runtime!r}"
        elif model.loaded_states is not None:
            state = f"{model.plan.weights}, in two parts"
        return f"TextCrossEncoder({self.model_name!r}, {state})"

    def _score_all(
        self,
        query: str,
        documents: Iterable[str] | DocumentStates,
        batch_size: int | None,
        deadline_s: float | None,
    ) -> PairScores:
        """Score every document, or raise the errors of :meth:`rerank`."""
        deadline = Deadline.after(deadline_s)
        require_positive("batch_size", batch_size)
        if isinstance(documents, DocumentStates):
            require_pairs([(query, "")])
            pairs: list[tuple[str, Any]] = [(query, record) for record in documents]
            precision = documents.precision or "int8"
            found = self._model.states().score(pairs, precision, deadline)
        else:
            pairs = [(query, document) for document in documents]
            found = self._score(pairs, batch_size, deadline)
        scores: list[float] = found.scores[found.scored].tolist()
        if len(scores) < len(pairs):
            raise DeadlineError(
                f"{len(scores)} of {len(pairs)} documents were scored in {deadline_s} s. Their "
                "scores are in this error's scores. Give it longer, or fewer documents.",
                scores,
            )
        return found

    def _score(
        self, pairs: list[tuple[str, str]], batch_size: int | None, deadline: Deadline
    ) -> PairScores:
        """Score pairs of texts; by states if they come with those of this model."""
        stored = self._stored(pairs)
        if stored is not None:
            return self._model.states().score(pairs, stored.precision, deadline)
        return self._model.scorer().score(pairs, batch_size, deadline=deadline)

    def _stored(self, pairs: Sequence[tuple[str, str]]) -> StoredText | None:
        """Return the first document if it comes with states of this model; all others do, too."""
        first = pairs[0][-1] if pairs and isinstance(pairs[0], tuple) and pairs[0] else None
        if not isinstance(first, StoredText):
            return None
        if first.model != self._model.states_models.get(first.precision):
            return None
        require_pairs(pairs)
        return first
