"""What doctor says about onnxruntime and the GPUs, with and without a collection."""

import json

import pytest
from click.testing import CliRunner

from qdrant_rerank.cli.doctor_checks import check_gpus, check_model
from qdrant_rerank.cli.main import main
from qdrant_rerank.inference.gpu.devices import CudaReport, Gpu, NvidiaDriver, Problem

GPU = Gpu(0, "NVIDIA H100 80GB HBM3", 85_000_000_000)
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def findings(providers, driver, *problems, wheels=("onnxruntime-gpu",), built_for="13.0"):
    """(wrong, seen, fix) of each."""
    report = CudaReport("1.31.1", wheels, providers, built_for, driver, problems)
    return [(found.wrong, found.seen, found.fix) for found in check_gpus(report)]


def test_a_gpu_that_works_is_listed_with_the_versions():
    """Nothing is wrong."""
    assert findings((CUDA, CPU), NvidiaDriver((GPU,), (13, 1))) == [
        (
            False,
            f"onnxruntime 1.31.1 (onnxruntime-gpu, for CUDA 13.0) with {CUDA}, {CPU}.",
            "",
        ),
        (False, "GPU 0: NVIDIA H100 80GB HBM3, 85 GB.", ""),
        (False, "The NVIDIA driver supports CUDA up to 13.1.", ""),
    ]


def test_a_cpu_build_is_wrong_only_beside_a_gpu():
    """On a machine without one it is as it should be."""
    lacks = Problem("It has no CUDA.", "Install it.")
    wheels = {"wheels": ("onnxruntime",), "built_for": ""}
    without = findings((CPU,), NvidiaDriver(error="no driver"), lacks, **wheels)
    assert [wrong for wrong, *_ in without] == [False, False]
    beside = findings((CPU,), NvidiaDriver((GPU,), (13, 1)), lacks, **wheels)
    assert beside[-1] == (True, "It has no CUDA.", "Install it.")


def test_what_a_gpu_build_lacks_is_wrong():
    """Each with its fix."""
    lacks = [Problem("No library.", "pip install it"), Problem("No driver.", "Install one.")]
    found = findings((CUDA, CPU), NvidiaDriver(error="none"), *lacks)
    assert found[1:] == [
        (True, "No library.", "pip install it"),
        (True, "No driver.", "Install one."),
    ]


@pytest.mark.parametrize(("quantised", "wrong"), [(False, True), (True, False)])
def test_an_int8_model_belongs_on_the_cpu(quantised, wrong):
    """Another one that is not on the GPU is wrong; how to run it there is said all the same."""
    [found] = check_model(CPU, [CUDA, CPU], 0, 0, quantised=quantised)
    assert found.wrong == wrong
    assert ("precision='fp16'" in found.fix) == quantised
    [alone] = check_model(CPU, [CPU], 0, 0, quantised=quantised)
    assert (alone.wrong, alone.fix) == (False, "")


def test_the_command_needs_no_collection():
    """It then says what onnxruntime has here."""
    done = CliRunner().invoke(main, ["doctor", "--json"])
    assert done.exit_code in {0, 1}
    seen = [found["seen"] for found in json.loads(done.output)]
    assert any(text.startswith("onnxruntime ") and CPU in text for text in seen)
