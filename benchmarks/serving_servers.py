"""The servers that benchmarks/serving.py measures: ours, fastembed in FastAPI, Infinity."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from qdrant_rerank import DEFAULT_RERANKER
from qdrant_rerank.hub.specs import BUNDLED_DIRECTORY

MODEL = BUNDLED_DIRECTORY / DEFAULT_RERANKER
# The clients of the closed loop wait however long it takes, as those of the other servers do.
PATIENT = Path(__file__).with_name("serving.toml")
SMALL = "grown-e5-small-l6-v1"  # whose time leaves more of it to the server


def fastembed_app() -> Any:
    """Make a FastAPI application around fastembed at its defaults, with the bundled model."""
    from fastapi import FastAPI
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model(MODEL.name, ModelSource(hf=MODEL.name))
    model = TextCrossEncoder(MODEL.name, specific_model_path=str(MODEL))
    app = FastAPI()

    @app.post("/rerank")
    def rerank(body: dict[str, Any]) -> dict[str, Any]:  # in a thread, as FastAPI does
        scores = list(model.rerank(body["query"], body["documents"]))
        order = sorted(range(len(scores)), key=lambda row: -scores[row])
        return {"results": [{"index": row, "relevance_score": scores[row]} for row in order]}

    return app


def command(name: str, port: int) -> list[str]:
    """Return how to start a server."""
    match name:
        case "ours" | "ours, small":
            own = [sys.executable, "-m", "qdrant_rerank", "serve", "--port", str(port)]
            small = ["--model", f"{MODEL.name}={SMALL}"] if name != "ours" else []
            return [*own, "--config", str(PATIENT), *small]
        case "fastembed":
            app = "serving_servers:fastembed_app"
            log = ["--log-level", "warning", "--no-access-log"]
            return [sys.executable, "-m", "uvicorn", "--factory", app, "--port", str(port), *log]
    options = ["--model-id", ".", "--served-model-name", MODEL.name, "--port", str(port)]
    engine = ["--engine", "optimum", "--device", "cpu", "--log-level", "warning"]
    return [os.environ["INFINITY"], "v2", *options, *engine]


def infinity_folder(folder: Path) -> None:
    """Lay out the model as Infinity finds it: files side by side, and a class that it knows."""
    for file in (*MODEL.glob("*.json"), *(MODEL / "onnx").iterdir()):
        shutil.copy(file, folder)
    config = json.loads((MODEL / "config.json").read_text())
    config["architectures"] = ["BertForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config))


class Running:
    """A server that answers.

    Attributes:
        url: where.
        pid: of its process.
        start_s: seconds from the start of the process to the first answer.
    """

    def __init__(self, url: str, pid: int, start_s: float) -> None:
        self.url = url
        self.pid = pid
        self.start_s = start_s

    def memory_mib(self) -> float:
        """Return the resident memory of the process."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) / 1024, 1)
        return 0.0

    def handles(self) -> dict[str, int]:
        """Return the numbers of open files and of threads."""
        place = Path(f"/proc/{self.pid}")
        return {
            "files": len(list((place / "fd").iterdir())),
            "threads": len(list((place / "task").iterdir())),
        }


@contextmanager
def running(name: str, patience_s: float = 180) -> Iterator[Running]:
    """Start a server, and end it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    body = {"query": "iron", "documents": ["Iron melts."], "model": MODEL.name}
    folder = Path(__file__).parent
    with ExitStack() as stack:
        if name == "infinity":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            infinity_folder(folder)
        yield from started(name, port, url, body, folder, patience_s)


def started(
    name: str, port: int, url: str, body: dict[str, Any], folder: Path, patience_s: float
) -> Iterator[Running]:
    began = time.perf_counter()
    process = subprocess.Popen(
        command(name, port),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                answer = httpx.post(url + "/rerank", json=body, timeout=60)
                answer.raise_for_status()
                break
            except httpx.TransportError:  # it does not listen yet
                late = time.perf_counter() - began > patience_s
                if late or process.poll() is not None:
                    raise SystemExit(f"{name} did not start: {command(name, port)}") from None
                time.sleep(0.01)
        yield Running(url, process.pid, round(time.perf_counter() - began, 2))
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
