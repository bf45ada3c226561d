"""Memory and time of making the file for GPUs of a model of several GB.

    python -m benchmarks.gpu.making [--gigabytes 2.3]

The model is one of ``tests/models`` with a larger vocabulary, most of its weights in one table, and
its files are links as in the hub's cache. Each precision is made in a process of its own, whose
peak is what the system says of it. Printed, and recorded in ``benchmarks/results/making.json``.
Takes twice the model's size of disk, and up to six times of memory.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.peers.machine import machine
from qdrant_rerank.inference.conversion.gpu import Encoder, convert_for_gpu
from qdrant_rerank.inference.cpu import available_cores
from qdrant_rerank.utils.atomic_files import atomic_text

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests" / "models" / "tiny-bert-eager"
RESULTS = ROOT / "benchmarks" / "results" / "making.json"
GIGABYTES = 2.3
FILES = ("model.onnx", "model.onnx_data")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.making")
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES, help="others: not recorded")
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "CACHE", "PRECISION"), help="internal")
    given = parser.parse_args()
    if given.one:
        make_one(Path(given.one[0]), Path(given.one[1]), half=given.one[2] == "fp16")
        return
    results = {"machine": machine(available_cores()), "gigabytes": given.gigabytes}
    with tempfile.TemporaryDirectory() as room:
        model = Path(room) / "model"
        enlarge(model, given.gigabytes)
        for precision in ("fp32", "fp16"):
            command = [sys.executable, "-m", "benchmarks.gpu.making", "--one", str(model)]
            one = [*command, str(Path(room) / precision), precision]
            done = subprocess.run(one, cwd=ROOT, capture_output=True, text=True, check=True)
            results[precision] = json.loads(done.stdout)
            print(f"{precision}: {done.stdout}", end="")
    if given.gigabytes == GIGABYTES:
        with atomic_text(RESULTS) as file:
            json.dump(results, file, indent=1)


def make_one(model: Path, cache: Path, *, half: bool) -> None:
    """Make the file, and print seconds and GB."""
    began = time.perf_counter()
    file, data = (model / "onnx" / name for name in FILES)
    with convert_for_gpu(file, [data], cache, encoder=Encoder.read(model), half=half):
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"seconds": round(seconds, 1), "peak_gigabytes": round(peak, 1)}))


def enlarge(target: Path, gigabytes: float) -> None:
    """A copy of the model with so many GB of embeddings, its weights beside it, both links."""
    import onnx
    from onnx import numpy_helper

    shutil.copytree(SOURCE, target)
    model = onnx.load(target / "onnx" / FILES[0])
    [table] = [t for t in model.graph.initializer if t.name.endswith("word_embeddings.weight")]
    small = numpy_helper.to_array(table)
    large = np.zeros((int(gigabytes * 1e9 / 4 / small.shape[1]), small.shape[1]), np.float32)
    large[: len(small)] = small
    table.CopyFrom(numpy_helper.from_array(large, table.name))
    file = target / "onnx" / FILES[0]
    onnx.save(model, file, save_as_external_data=True, location=FILES[1], size_threshold=1024)
    blobs = target / "blobs"
    blobs.mkdir()
    for name in FILES:
        (target / "onnx" / name).rename(blobs / name)
        (target / "onnx" / name).symlink_to(blobs / name)


if __name__ == "__main__":
    main()
