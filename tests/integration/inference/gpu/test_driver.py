"""What the NVIDIA driver is asked, and how: a library with its functions, built here, instead."""

import json
import os
import shutil
import subprocess
import sys

import pytest

# The numbers of GPUs are not the handles that the driver gives for them: here 7 and 8.
DRIVER = r"""
#include <stddef.h>
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int number) { *device = number + 7; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, device == 7 ? "NVIDIA One" : "NVIDIA Two", size);
    return device < 7;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = device == 7 ? 85899345920 : 17179869184;
    return 0;
}
int cuGetErrorName(int error, const char **name) {
    *name = error == 100 ? "CUDA_ERROR_NO_DEVICE" : "another";
    return 0;
}
"""
ASK = """
import json
import onnxruntime
from qdrant_rerank.inference.gpu.devices import cuda_report
driver = cuda_report(onnxruntime).driver
print(json.dumps([[str(gpu) for gpu in driver.gpus], driver.cuda, driver.error]))
"""
COMPILER = shutil.which("cc")

pytestmark = pytest.mark.skipif(
    COMPILER is None or not sys.platform.startswith("linux"),
    reason="needs a C compiler, to build what stands for the driver, and Linux",
)


def asked(folder, *, init):
    """What a process with that driver finds: GPUs, the newest CUDA, and an error."""
    source = folder / "driver.c"
    source.write_text(DRIVER)
    library = folder / "libcuda.so.1"
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", f"-DINIT={init}", "-o", library, source], check=True
    )
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


def test_gpus_are_listed_by_the_drivers_own_numbers(tmp_path):
    """With names, memory and the newest CUDA it serves."""
    gpus, cuda, error = asked(tmp_path, init=0)
    assert gpus == ["0: NVIDIA One, 86 GB", "1: NVIDIA Two, 17 GB"]
    assert (cuda, error) == ([13, 1], "")


def test_a_driver_that_does_not_start_says_why(tmp_path):
    """As if no GPU is visible."""
    assert asked(tmp_path, init=100) == [[], [13, 1], "CUDA_ERROR_NO_DEVICE"]
