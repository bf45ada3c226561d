"""Who takes part in what: contenders, and the suites that the targets are about."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from .models import BUNDLED, TORCH_MODELS
from .workloads import SHAPES, Workload

__all__ = ["BATCH_SIZES", "Contender", "Entry", "Suite", "every_suite", "target_suites"]

# Tried, each at the default number of threads, and the best of them on one thread.
BATCH_SIZES = (1, 4, 8, 16, 32)
FP32, INT8 = "minilm-l6-fp32", "minilm-l6-int8"
ONNX = ("fastembed", "sentence-transformers ONNX", "FlashRank")
PEERS = (*ONNX, "sentence-transformers torch", "rerankers")
FLASHRANK_MOST = 100  # candidates in its one batch: 1,000 of 512 tokens need tens of GB


@dataclass(frozen=True, slots=True)
class Contender:
    """A library, a model and a setting.

    Attributes:
        engine: a name of ``engines.ENGINES``, or "limit".
        model: a name of ``models.MODELS``.
        options: passed to the engine.
        threads: None for what the library does unasked.
        batch_size: None for what the library does unasked.
        sweep: whether to look for the best batch size and threads first.
    """

    engine: str
    model: str
    options: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    batch_size: int | None = None
    sweep: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender and its workload, under the name that tables give it."""

    label: str
    contender: Contender
    workload: Workload


@dataclass(frozen=True, slots=True)
class Suite:
    """Entries that take turns.

    Attributes:
        name: of the suite.
        entries: the first one's scores are what the others' are compared with.
        seconds: rounds are added until they took so long, at least three.
    """

    name: str
    entries: tuple[Entry, ...]
    seconds: float


def target_suites(cores: int) -> list[Suite]:
    """What the targets are about: 6 layers, 384 wide."""
    mixed = Workload("mixed", 100)
    # The engine is named: by itself it depends on what is installed.
    ort, openvino = {"engine": "onnxruntime"}, {"engine": "openvino"}
    ours = Contender("ours", FP32, ort | {"precision": "fp32"})
    ours_int8 = Contender("ours", INT8, ort)
    on_openvino = Contender("ours", FP32, openvino | {"precision": "fp32"})
    fast = [
        Entry("fastembed, default", Contender("fastembed", FP32), mixed),
        *peers("fastembed", FP32, mixed, "best"),
        # Workers of one thread each, started anew at each call.
        Entry(
            f"fastembed, parallel={cores}",
            Contender("fastembed", FP32, {"parallel": str(cores)}, batch_size=1),
            mixed,
        ),
    ]
    others = [
        Entry("ours, openvino fp32", on_openvino, mixed),
        Entry("ours, int8 file", ours_int8, mixed),
        *(
            Entry(f"ours, {name}", Contender("ours", FP32, options | {"precision": kind}), mixed)
            for name, options, kind in (
                ("precision=int8", ort, "int8"),
                ("openvino bf16", openvino, "bf16"),
            )
        ),
    ]
    return [
        Suite(
            "mixed",
            (
                *fast,
                Entry("ours", ours, mixed),
                *others,
                *(entry for peer in PEERS[1:] for entry in peers(peer, FP32, mixed)),
                *limits(FP32, mixed),
            ),
            300,
        ),
        Suite(
            "int8 file",
            (
                Entry("ours", ours, mixed),
                Entry("ours, int8 file", ours_int8, mixed),
                *(entry for peer in ONNX for entry in peers(peer, INT8, mixed, "best")),
            ),
            75,
        ),
        *(
            Suite(
                shape,
                (
                    Entry("ours", ours, Workload(shape, 100)),
                    Entry("ours, openvino fp32", on_openvino, Workload(shape, 100)),
                    *(
                        entry
                        for peer in PEERS
                        for entry in peers(peer, FP32, Workload(shape, 100), "best")
                    ),
                    *limits(FP32, Workload(shape, 100))[:1],
                ),
                seconds,
            )
            for shape, seconds in (("short", 45), ("long", 120))
        ),
        *(
            Suite(
                f"callers{name}",
                tuple(
                    Entry(
                        f"ours{name}, {callers} at once",
                        contender,
                        Workload("mixed", 100, queries=8, callers=callers),
                    )
                    for callers in (1, 8)
                ),
                seconds,
            )
            for name, contender, seconds in (
                ("", ours, 60),
                (", int8 file", ours_int8, 30),
            )
        ),
        Suite(
            "candidates",
            tuple(
                Entry(f"ours{name}, {count:,}", contender, Workload("mixed", count))
                for name, contender in (("", ours), (", int8 file", ours_int8))
                for count in (100, 1000)
            ),
            75,
        ),
    ]


def every_suite() -> Iterator[Suite]:
    """Every model, length, number of candidates, one and 64 pooled queries, 1 and 8 callers."""
    models = (FP32, INT8, BUNDLED, TORCH_MODELS[1])
    requests = ((1, False, 1), (64, True, 1), (8, False, 8))
    for model, shape, candidates, (queries, pooled, callers) in product(
        models, SHAPES, (10, 100, 1000), requests
    ):
        workload = Workload(shape, candidates, queries, pooled, callers)
        engines = PEERS if model in TORCH_MODELS else ONNX
        entries = (
            Entry("ours", Contender("ours", model), workload),
            *(entry for peer in engines for entry in peers(peer, model, workload)),
            *(() if model == BUNDLED else limits(model, workload)[:1]),
        )
        yield Suite(f"{model} {workload}", entries, 60)


def peers(engine: str, model: str, workload: Workload, *settings: str) -> list[Entry]:
    """A peer at its defaults and at its best setting, or one of these."""
    entries = []
    fits = engine != "FlashRank" or workload.candidates <= FLASHRANK_MOST
    if fits and ("default" in settings or not settings):
        entries.append(Entry(f"{engine}, default", Contender(engine, model), workload))
    if "best" in settings or not settings:
        entries.append(Entry(f"{engine}, best", Contender(engine, model, sweep=True), workload))
    return entries


def limits(model: str, workload: Workload) -> list[Entry]:
    """The CPU's own limit: of the model's own precision, and for the first model, of all."""
    kinds = [{"precision": "int8"}] if model == INT8 else [{"precision": "fp32"}]
    if model == FP32:
        kinds += [{"precision": "int8"}, {"precision": "fp32", "attention": "yes"}]
    return [
        Entry(
            f"limit, {kind['precision']}{' with attention' if 'attention' in kind else ''}",
            Contender("limit", model, kind),
            workload,
        )
        for kind in kinds
    ]
