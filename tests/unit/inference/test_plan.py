"""Where a model runs: what is asked for x what the machine has -> one plan, or an error."""

import logging

import onnxruntime
import pytest

from qdrant_rerank.errors import InvalidInputError, MissingDependencyError
from qdrant_rerank.inference.cpu import Int8Weights
from qdrant_rerank.inference.gpu.devices import (
    CPU,
    CUDA,
    CudaReport,
    Gpu,
    NvidiaDriver,
    Problem,
    cuda_report,
    find_problems,
)
from qdrant_rerank.inference.plan import Machine, make_plan
from qdrant_rerank.inference.request import Request
from qdrant_rerank.inference.sessions import provider_failed

H100 = Gpu(0, "NVIDIA H100 80GB HBM3", 85_000_000_000)
A10 = Gpu(1, "NVIDIA A10G", 24_000_000_000)
NO_LIBRARY = Problem("It cannot load libcublasLt.so.13.", "Install: pip install this")


class GpuBuild:
    """What the GPU wheel of onnxruntime says of itself, on any machine."""

    __version__ = "1.31.1"

    @staticmethod
    def get_available_providers():
        return ["TensorrtExecutionProvider", CUDA, CPU]

    @staticmethod
    def get_all_providers():
        return onnxruntime.get_all_providers()


class CpuBuild(GpuBuild):
    """What the CPU wheel says."""

    @staticmethod
    def get_available_providers():
        return ["AzureExecutionProvider", CPU]


class Absent:
    """A part of the machine that the plan has no reason to look at."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} was looked up")


def machine(ort=GpuBuild, problems=(), *, openvino=False, gpus=(H100, A10)):
    """A machine with these parts, as :class:`Machine` finds them."""
    found = Machine()
    driver = NvidiaDriver(gpus, (13, 0))
    found.__dict__.update(
        onnxruntime=ort,
        cuda=CudaReport("1.31.1", ("onnxruntime-gpu",), (CUDA, CPU), "13.0", driver, problems),
        has_openvino=openvino,
        cores=6,
        int8_weights=Int8Weights(signed=False, because="a test"),
    )
    return found


WITH_GPUS = machine()
WITHOUT = machine(CpuBuild)
WITH_OPENVINO = machine(CpuBuild, openvino=True)
WITH_BOTH = machine(openvino=True)
BROKEN = machine(problems=(NO_LIBRARY,))
NO_GPUS = machine(problems=(NO_LIBRARY,), gpus=())


def told(plan):
    """What a plan says, in words."""
    firsts = [one[0] for one in plan.providers]
    where = "/".join("the CPU" if p == CPU else f"cuda:{p[1].get('device_id')}" for p in firsts)
    words = [plan.engine, "on", where, "in", plan.precision]
    words += ["quantized"] * plan.conversion.quantizes
    words += ["dequantized"] * plan.conversion.dequantizes
    return " ".join(words + ["or nothing"] * plan.required)


@pytest.mark.parametrize(
    ("asked", "source", "there", "expected"),
    [
        # A GPU is taken if there is one, and has to be there if it is asked for.
        ({}, "fp32", WITH_GPUS, "onnxruntime on cuda:0 in fp32"),
        ({}, "fp32", WITHOUT, "onnxruntime on the CPU in fp32"),
        ({"cuda": True}, "fp32", WITH_GPUS, "onnxruntime on cuda:0 in fp32 or nothing"),
        ({"cuda": "cuda"}, "fp32", WITH_GPUS, "onnxruntime on cuda:0 in fp32 or nothing"),
        ({"device": "cuda"}, "fp32", WITH_GPUS, "onnxruntime on cuda:0 in fp32 or nothing"),
        ({"device": "cuda:1"}, "fp32", WITH_GPUS, "onnxruntime on cuda:1 in fp32 or nothing"),
        (
            {"device": "auto", "device_ids": [1, 0]},
            "fp32",
            WITH_GPUS,
            "onnxruntime on cuda:1/cuda:0 in fp32 or nothing",
        ),
        (
            {"device_ids": (0,), "cuda": True},
            "fp16",
            WITH_GPUS,
            "onnxruntime on cuda:0 in fp16 or nothing",
        ),
        ({"device_id": 1}, "fp32", WITH_GPUS, "onnxruntime on cuda:1 in fp32 or nothing"),
        (
            {"device_ids": [0]},
            "int8",
            WITH_GPUS,
            "onnxruntime on cuda:0 in fp32 dequantized or nothing",
        ),
        # As in fastembed, numbers of GPUs choose among them, and a machine may have none.
        ({"device_ids": [0]}, "fp32", WITHOUT, "onnxruntime on the CPU in fp32"),
        ({"device_ids": [0]}, "fp32", NO_GPUS, "onnxruntime on the CPU in fp32"),
        ({"device_ids": [0]}, "int8", WITHOUT, "onnxruntime on the CPU in int8"),
        ({"device_ids": [0]}, "fp32", WITH_OPENVINO, "openvino on the CPU in fp32"),
        ({"device_ids": [0], "cuda": False}, "fp32", WITH_GPUS, "onnxruntime on the CPU in fp32"),
        ({"cuda": False}, "fp32", WITH_GPUS, "onnxruntime on the CPU in fp32"),
        ({"cuda": "cpu"}, "fp32", WITH_GPUS, "onnxruntime on the CPU in fp32"),
        ({"device": "cpu"}, "fp32", WITH_GPUS, "onnxruntime on the CPU in fp32"),
        ({"providers": [CPU]}, "fp32", WITH_GPUS, "onnxruntime on the CPU in fp32"),
        ({}, "fp32", BROKEN, "onnxruntime on the CPU in fp32"),
        # int8 stays on a CPU, unless a GPU is asked for, which gets floats.
        ({}, "int8", WITH_GPUS, "onnxruntime on the CPU in int8"),
        ({"precision": "int8"}, "fp32", WITH_GPUS, "onnxruntime on the CPU in int8 quantized"),
        (
            {"cuda": True},
            "int8",
            WITH_GPUS,
            "onnxruntime on cuda:0 in fp32 dequantized or nothing",
        ),
        (
            {"providers": [CUDA]},
            "int8",
            WITH_GPUS,
            "onnxruntime on cuda:None in fp32 dequantized or nothing",
        ),
        (
            {"precision": "fp16"},
            "int8",
            WITH_GPUS,
            "onnxruntime on cuda:0 in fp16 dequantized",
        ),
        ({"precision": "fp32"}, "int8", WITHOUT, "onnxruntime on the CPU in fp32 dequantized"),
        (
            {"precision": "int8", "providers": [CPU]},
            "int8",
            WITHOUT,
            "onnxruntime on the CPU in int8",
        ),
        # OpenVINO, where it keeps the precision and nothing else is asked for or better.
        ({}, "fp32", WITH_OPENVINO, "openvino on the CPU in fp32"),
        ({"precision": "bf16"}, "fp32", WITH_OPENVINO, "openvino on the CPU in bf16"),
        (
            {"precision": "fp32"},
            "int8",
            WITH_OPENVINO,
            "openvino on the CPU in fp32 dequantized",
        ),
        ({}, "int8", WITH_OPENVINO, "onnxruntime on the CPU in int8"),
        ({}, "fp16", WITH_OPENVINO, "onnxruntime on the CPU in fp16"),
        ({"providers": [CPU]}, "fp32", WITH_OPENVINO, "onnxruntime on the CPU in fp32"),
        ({"engine": "onnxruntime"}, "fp32", WITH_OPENVINO, "onnxruntime on the CPU in fp32"),
        ({}, "fp32", WITH_BOTH, "onnxruntime on cuda:0 in fp32"),
        ({"device": "cpu"}, "fp32", WITH_BOTH, "openvino on the CPU in fp32"),
        ({"engine": "openvino"}, "fp32", WITH_BOTH, "openvino on the CPU in fp32 or nothing"),
    ],
)
def test_where_and_how_a_model_runs(asked, source, there, expected):
    """Engine, device, precision, what is made of the file, and whether something else will do."""
    found = make_plan(Request(**asked), source, there)
    assert told(found) == expected
    assert found.threads == 6
    assert make_plan(Request(**asked, threads=2), source, there).threads == 2


@pytest.mark.parametrize(
    ("asked", "source", "there", "error", "seen"),
    [
        ({"cuda": True}, "fp32", BROKEN, InvalidInputError, "libcublasLt.so.13. Install: pip"),
        ({"providers": [CUDA]}, "fp32", BROKEN, InvalidInputError, "cannot be used here"),
        ({"device": "cuda:99"}, "int8", WITH_GPUS, InvalidInputError, "No GPU 99; the GPUs here"),
        ({"cuda": True, "precision": "int8"}, "fp32", WITH_GPUS, InvalidInputError, "'int8'"),
        (
            {"providers": [CUDA], "precision": "int8"},
            "int8",
            WITH_GPUS,
            InvalidInputError,
            "'int8'",
        ),
        ({"precision": "bf16"}, "fp32", WITHOUT, InvalidInputError, "which onnxruntime does not"),
        (
            {"precision": "bf16", "engine": "onnxruntime"},
            "fp32",
            WITH_OPENVINO,
            InvalidInputError,
            "which onnxruntime does not run",
        ),
        ({"precision": "q4f16"}, "fp32", WITHOUT, InvalidInputError, "'q4f16'"),
        ({"engine": "openvino"}, "int8", WITH_OPENVINO, InvalidInputError, "is quantised, which"),
        (
            {"engine": "openvino", "precision": "int8"},
            "fp32",
            WITH_OPENVINO,
            InvalidInputError,
            "is quantised, which",
        ),
        (
            {"engine": "openvino", "precision": "fp16"},
            "fp32",
            WITH_OPENVINO,
            InvalidInputError,
            "it is fp32 or bf16",
        ),
        (
            {"engine": "openvino", "cuda": True},
            "fp32",
            WITH_BOTH,
            InvalidInputError,
            "providers, device_ids and cuda=True",
        ),
        ({"engine": "openvino"}, "fp32", WITHOUT, MissingDependencyError, "openvino]"),
    ],
)
def test_what_cannot_be_done_is_refused_by_the_plan(asked, source, there, error, seen):
    """Before a file is made or a session opened."""
    with pytest.raises(error) as raised:
        make_plan(Request(**asked), source, there)
    assert seen in str(raised.value)


def test_a_plan_looks_only_at_what_it_needs():
    """A CPU that is asked for needs no report of GPUs, and OpenVINO no onnxruntime."""
    found = machine()
    found.__dict__.update(cuda=Absent(), onnxruntime=Absent())
    assert make_plan(Request(cuda=False), "fp32", found).providers == ((CPU,),)
    assert make_plan(Request(), "int8", found).providers == ((CPU,),)
    found.__dict__["has_openvino"] = True
    assert make_plan(Request(engine="openvino"), "fp32", found).engine == "openvino"


def test_a_plan_says_what_the_weights_are():
    """The precision, and what was made of the file."""
    exact = machine(CpuBuild)
    exact.__dict__["int8_weights"] = Int8Weights(signed=True, because="VNNI")
    int8, fp32 = Request(precision="int8"), Request(precision="fp32")
    assert make_plan(Request(), "int8", exact).weights == "int8"
    assert make_plan(Request(), "int8", WITHOUT).weights == "int8 (unsigned weights for a test)"
    assert make_plan(int8, "fp32", exact).weights == "int8 (signed weights for VNNI)"
    assert make_plan(int8, "fp32", WITHOUT).weights == "int8 (unsigned weights for a test)"
    assert make_plan(fp32, "int8", WITHOUT).weights == "fp32 (int8 weights)"


def test_a_file_that_openvino_cannot_load_is_left_to_onnxruntime():
    """On the CPU, with attention fused for it."""
    found = make_plan(Request(), "fp32", WITH_OPENVINO)
    assert not found.fuses_on_cpu
    assert found.without_openvino().fuses_on_cpu
    assert not make_plan(Request(), "fp32", WITH_GPUS).fuses_on_cpu


def test_the_arena_grows_by_what_is_asked_for():
    """Within its limit, and fp32 is fp32."""
    request = Request(device="cuda:1", gpu_mem_limit=2_000_000_000)
    [[(name, options)]] = make_plan(request, "fp32", WITH_GPUS).providers
    assert name == CUDA
    assert options == {
        "device_id": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "enable_skip_layer_norm_strict_mode": "1",
        "gpu_mem_limit": "2000000000",
    }


def test_what_keeps_scores_is_set_unless_the_user_sets_it():
    """Also if CUDA is named among providers, beside its other options."""
    [[plain, cpu]] = make_plan(Request(providers=[CUDA, CPU]), "fp32", WITH_GPUS).providers
    assert (plain[1]["use_tf32"], cpu) == ("0", CPU)
    asked = Request(providers=[(CUDA, {"device_id": 1, "use_tf32": "1"})])
    [[(_, options)]] = make_plan(asked, "fp32", WITH_GPUS).providers
    assert options["device_id"] == 1
    assert options["use_tf32"] == "1"
    assert options["enable_skip_layer_norm_strict_mode"] == "1"


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        ({"device": "gpu"}, "expected 'auto', 'cpu', 'cuda' or 'cuda:1'"),
        ({"device": "cpu:1"}, "device is 'cpu:1'"),
        ({"device": "cuda:-1"}, "device is 'cuda:-1'"),
        ({"device": 1}, "device is 1"),
        ({"device_ids": []}, r"device_ids is \[\]"),
        ({"device_ids": [-1]}, r"device_ids is \[-1\]"),
        ({"device_ids": [True]}, r"device_ids is \[True\]"),
        ({"device_ids": 0}, "device_ids is 0"),
        ({"device_ids": [1, 1]}, "each GPU may be there once"),
        ({"device": "cuda:1", "device_ids": [0]}, "Pass one of them"),
        ({"device": "cpu", "cuda": True}, "contradict each other"),
        ({"device": "cuda", "cuda": False}, "contradict each other"),
        ({"device_ids": [0], "device": "cpu"}, "contradict each other"),
        ({"device_id": 1, "device": "cpu"}, "contradict each other"),
        ({"device_id": -1}, r"device_ids is \[-1\]"),
        ({"device_id": "0"}, "device_id is '0'"),
        ({"device_id": 0, "device_ids": [0]}, "Pass one of them"),
        ({"enable_cpu_mem_arena": None}, "expected True or False"),
        ({"providers": [CPU], "device": "cpu"}, "excludes"),
        ({"providers": [CUDA], "gpu_mem_limit": 1_000_000}, "excludes"),
        ({"cuda": "yes"}, "cuda is 'yes'"),
        ({"cuda": [0]}, r"cuda is \[0\]"),
        ({"gpu_mem_limit": 0}, "gpu_mem_limit is 0"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_opened(asked, seen):
    """With what was seen and what was expected."""
    with pytest.raises(InvalidInputError, match=seen):
        Request(**asked)


def test_a_gpu_that_is_not_there_is_named_with_those_that_are():
    """By number, name and memory."""
    with pytest.raises(InvalidInputError, match=r"No GPU 7; the GPUs here are 0: NVIDIA H100") as e:
        make_plan(Request(device_ids=[0, 7]), "fp32", WITH_GPUS)
    assert "1: NVIDIA A10G, 24 GB" in str(e.value)


def test_a_gpu_that_cannot_be_used_and_is_not_asked_for_is_a_remark(caplog):
    """Once per process; whoever lists the CPU after it is warned."""
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert make_plan(Request(), "fp16", BROKEN).providers == ((CPU,),)
    assert caplog.text.count("runs on the CPU. It cannot load libcublasLt.so.13") <= 1
    missing = machine(problems=(Problem("No library of this test.", "Install it."),))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            make_plan(Request(), "fp16", missing)
    assert caplog.text.count("runs on the CPU. No library of this test.") == 1
    both = Request(providers=[CUDA, CPU])
    with pytest.warns(RuntimeWarning, match=r"libcublasLt\.so\.13.* It runs on the CPU"):
        assert make_plan(both, "fp32", BROKEN).providers == ((CPU,),)
    with pytest.warns(RuntimeWarning, match="It runs on the CPU"):  # so int8 is no error
        assert make_plan(Request(providers=[CUDA, CPU], precision="int8"), "int8", BROKEN)


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("CUDAExecutionProvder", "Did you mean 'CUDAExecutionProvider'"),
        ("cuda", "Did you mean 'CUDAExecutionProvider'"),
        ("CpuExecutionProvider", "Did you mean 'CPUExecutionProvider'"),
        ("CUDAExecutionProvider", r'part of other builds. For CUDA: pip install "qdrant-rerank'),
    ],
)
def test_a_misspelt_provider_is_told_its_nearest_name(name, seen):
    """With those that this build has."""
    with pytest.raises(InvalidInputError, match="this onnxruntime has .*CPUExecutionProvider") as e:
        make_plan(Request(providers=[name]), "fp32")
    with pytest.raises(InvalidInputError, match=seen):
        raise e.value


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="a GPU build")
def test_the_cpu_wheel_is_recognised():
    """The pip command replaces it; "auto" does not look any further."""
    found = cuda_report(onnxruntime)
    assert not found.usable
    assert found.wheels == ("onnxruntime",)
    assert "is a build without CUDA" in found.problems[0].seen
    command = 'pip uninstall -y onnxruntime && pip install "qdrant-rerank[gpu]"'
    assert command in found.problems[0].fix
    with pytest.raises(InvalidInputError) as error:
        make_plan(Request(cuda=True), "fp32")
    assert command in str(error.value)
    assert make_plan(Request(), "fp32").providers == ((CPU,),)


@pytest.mark.parametrize(
    ("changed", "seen"),
    [
        ({}, []),
        ({"providers": [CPU]}, ["without CUDA"]),
        (
            {"providers": [CPU], "wheels": ["onnxruntime", "onnxruntime-gpu"]},
            ["onnxruntime and onnxruntime-gpu are both installed"],
        ),
        ({"not_loaded": ["libcublas.so.13", "libcurand.so.10"]}, ["libcublas.so.13, libcurand"]),
        (
            {"driver": NvidiaDriver(error="libcuda.so.1: no such file")},
            ["No NVIDIA driver: libcuda.so.1"],
        ),
        (
            {"driver": NvidiaDriver((H100,), (12, 4))},
            ["up to 12.4, and onnxruntime 1.31.1 is built for"],
        ),
        ({"driver": NvidiaDriver((), (13, 0), "CUDA_ERROR_NO_DEVICE")}, ["CUDA_ERROR_NO_DEVICE"]),
        ({"driver": NvidiaDriver((), (13, 0)), "visible": ""}, ["CUDA_VISIBLE_DEVICES is ''"]),
    ],
)
def test_each_thing_that_is_missing_is_named(changed, seen):
    """And nothing where all is there."""
    facts = {
        "onnxruntime": "1.31.1",
        "wheels": ["onnxruntime-gpu"],
        "providers": [CUDA, CPU],
        "built_for": "13.0",
        "driver": NvidiaDriver((H100,), (13, 1)),
        **changed,
    }
    asides = [facts.pop("not_loaded", []), facts.pop("visible", None)]
    found = list(find_problems(CudaReport(**facts), *asides))
    assert len(found) == len(seen)
    for problem, part in zip(found, seen, strict=True):
        assert part in problem.seen
        assert problem.fix.endswith((".", '[gpu]"'))


def test_any_provider_that_does_not_start_is_an_error_where_the_cpu_is_not_allowed():
    """And how to allow it."""
    tensorrt = str(provider_failed("TensorrtExecutionProvider", "1.31.1", "No TensorRT."))
    assert "It said: No TensorRT." in tensorrt
    assert f"providers=['TensorrtExecutionProvider', '{CPU}']" in tensorrt
    assert "Its reason is on stderr; usually the GPU is too old" in str(
        provider_failed(CUDA, "1.31.1")
    )
