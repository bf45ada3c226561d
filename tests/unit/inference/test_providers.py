"""Where a model is to run: what is asked for, what is there, and what an error says."""

import logging

import onnxruntime
import pytest

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.inference.gpu.devices import (
    CudaReport,
    Gpu,
    NvidiaDriver,
    Problem,
    cuda_report,
    find_problems,
    name_of,
)
from qdrant_rerank.inference.providers import (
    CPU,
    CUDA,
    Placement,
    choose_providers,
    provider_failed,
)

H100 = Gpu(0, "NVIDIA H100 80GB HBM3", 85_000_000_000)
A10 = Gpu(1, "NVIDIA A10G", 24_000_000_000)


class GpuBuild:
    """What the GPU wheel of onnxruntime says of itself, on any machine."""

    __version__ = "1.31.1"

    @staticmethod
    def get_available_providers():
        return ["TensorrtExecutionProvider", CUDA, CPU]

    @staticmethod
    def get_all_providers():
        return onnxruntime.get_all_providers()


def report(*problems, cards=(H100, A10)):
    """Of a machine with two cards."""
    return CudaReport(
        "1.31.1", ("onnxruntime-gpu",), (CUDA, CPU), "13.0", NvidiaDriver(cards, (13, 0)), problems
    )


def chosen(ort=GpuBuild, problems=(), **asked):
    """Providers of each session."""
    return choose_providers(ort, Placement(**asked), report=report(*problems))


def numbers(**asked):
    """Of the cards that are taken, or the CPU's name."""
    return [
        one[0] if isinstance(one[0], str) else int(one[0][1]["device_id"])
        for one in chosen(**asked)
    ]


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ({}, [0]),
        ({"cuda": True}, [0]),
        ({"cuda": "cuda"}, [0]),
        ({"device": "cuda"}, [0]),
        ({"device": "cuda:1"}, [1]),
        ({"device": "auto", "device_ids": [1, 0]}, [1, 0]),
        ({"device_ids": (0,), "cuda": True}, [0]),
        ({"cuda": False}, [CPU]),
        ({"cuda": "cpu"}, [CPU]),
        ({"device": "cpu"}, [CPU]),
        ({"providers": [CPU]}, [CPU]),
    ],
)
def test_the_cards_that_are_asked_for_are_taken(asked, taken):
    """One session a card, in the order given; without a word, the first."""
    assert numbers(**asked) == taken


def test_the_arena_grows_by_what_is_asked_for():
    """Within its limit, and fp32 is fp32."""
    [[(name, options)]] = chosen(device="cuda:1", gpu_mem_limit=2_000_000_000)
    assert name == CUDA
    assert options == {
        "device_id": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "enable_skip_layer_norm_strict_mode": "1",
        "gpu_mem_limit": "2000000000",
    }


def test_what_keeps_scores_is_set_unless_it_is_said_too():
    """Where CUDA is named among providers, with the options that come with it."""
    [[plain, cpu]] = chosen(providers=[CUDA, CPU])
    assert (plain[1]["use_tf32"], cpu) == ("0", CPU)
    [[(_, options)]] = chosen(providers=[(CUDA, {"device_id": 1, "use_tf32": "1"})])
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
        ({"device_ids": [1, 1]}, "each card may be there once"),
        ({"device": "cuda:1", "device_ids": [0]}, "Pass one of them"),
        ({"device": "cpu", "cuda": True}, "contradict each other"),
        ({"device": "cuda", "cuda": False}, "contradict each other"),
        ({"device_ids": [0], "cuda": False}, "contradict each other"),
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
        Placement(**asked)


def test_a_card_that_is_not_there_is_named_with_those_that_are():
    """By number, name and memory."""
    with pytest.raises(
        InvalidInputError, match=r"No card 7; the cards here are 0: NVIDIA H100"
    ) as e:
        chosen(device_ids=[0, 7])
    assert "1: NVIDIA A10G, 24 GB" in str(e.value)


def test_what_is_missing_is_an_error_where_a_card_is_asked_for(caplog):
    """And a remark, once, where it is not."""
    missing = Problem("It cannot load libcublasLt.so.13.", "Install: pip install this")
    with pytest.raises(InvalidInputError, match=r"libcublasLt\.so\.13\. Install: pip install this"):
        chosen(problems=[missing], device="cuda")
    with pytest.raises(InvalidInputError, match="cannot be used here"):
        chosen(problems=[missing], providers=[CUDA])
    with caplog.at_level(logging.WARNING):
        assert chosen(problems=[missing]) == chosen(problems=[missing]) == [[CPU]]
    assert caplog.text.count("runs on the CPU. It cannot load libcublasLt.so.13") == 1
    # Who lists the CPU as well has said what to do.
    with pytest.warns(RuntimeWarning, match=r"libcublasLt\.so\.13.* It runs on the CPU"):
        assert chosen(problems=[missing], providers=[CUDA, CPU]) == [[CPU]]
    assert [name_of(one) for one in chosen(providers=[CUDA, CPU])[0]] == [CUDA, CPU]


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
        choose_providers(onnxruntime, Placement(providers=[name]))
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
        choose_providers(onnxruntime, Placement(cuda=True))
    assert command in str(error.value)
    assert choose_providers(onnxruntime, Placement()) == [[CPU]]


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
    told = {
        "version": "1.31.1",
        "wheels": ["onnxruntime-gpu"],
        "providers": [CUDA, CPU],
        "built_for": "13.0",
        "not_loaded": [],
        "driver": NvidiaDriver((H100,), (13, 1)),
        "visible": None,
    }
    found = find_problems(**{**told, **changed})
    assert len(found) == len(seen)
    for problem, part in zip(found, seen, strict=True):
        assert part in problem.seen
        assert problem.fix.endswith((".", '[gpu]"'))


def test_any_provider_that_does_not_start_is_an_error_where_the_cpu_is_not_allowed():
    """And how to allow it."""
    tensorrt = str(provider_failed("TensorrtExecutionProvider", "1.31.1", "No TensorRT."))
    assert "It said: No TensorRT." in tensorrt
    assert f"providers=['TensorrtExecutionProvider', '{CPU}']" in tensorrt
    assert "Its reason is on stderr; usually the card is too old" in str(
        provider_failed(CUDA, "1.31.1")
    )
