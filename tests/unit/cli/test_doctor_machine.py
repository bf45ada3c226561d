"""What doctor says about this machine: the account, the packages and the GPUs."""

import json

from click.testing import CliRunner

from qdrant_rerank.cli.doctor_machine import check_environment, check_gpus, check_packages
from qdrant_rerank.cli.main import main
from qdrant_rerank.inference.gpu.devices import CudaReport, Gpu, NvidiaDriver, Problem

GPU = Gpu(0, "NVIDIA H100 80GB HBM3", 85_000_000_000)
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def wrong(findings):
    """What is wrong, and how to fix it."""
    return [(finding.seen, finding.fix) for finding in findings if finding.wrong]


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


def test_the_command_needs_no_collection():
    """It then says what onnxruntime has here."""
    done = CliRunner().invoke(main, ["doctor", "--json"])
    assert done.exit_code in {0, 1}
    seen = [found["seen"] for found in json.loads(done.output)]
    assert any(text.startswith("onnxruntime ") and CPU in text for text in seen)


def test_two_runtimes_spoil_each_other():
    """One is fine."""
    assert wrong(check_packages(["numpy", "onnxruntime"])) == []
    assert len(wrong(check_packages(["onnxruntime-gpu", "onnxruntime"]))) == 1


def test_an_account_without_a_home_or_a_temporary_directory_is_wrong():
    """Each with what to set."""
    assert list(check_environment(has_home=True, temporary="/tmp")) == []
    [(_, home), (_, temporary)] = wrong(check_environment(has_home=False, temporary=None))
    assert "QDRANT_RERANK_CACHE" in home
    assert "TMPDIR" in temporary
