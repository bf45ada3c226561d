"""The other side of :mod:`.worker`: starts a contender's process and gives it turns."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from .contenders import Contender

__all__ = ["ContenderError", "Process"]

REPOSITORY = Path(__file__).parents[2]
ANSWER_S = 1800.0  # after which a contender that does not answer is ended
# Every library decides on its own threads, and none asks a hub.
UNSET = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TOKENIZERS_PARALLELISM")
SET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class ContenderError(Exception):
    """It could not be loaded, failed, or gave no answer."""


class Process:
    """A contender, loaded.

    Args:
        contender: what to load first.
        folder: of its model.
        cores: that this process may use.
        log: where what it prints is appended.
        python: of the environment that has its library.
        module: the worker's.

    Attributes:
        contender: what is loaded.
        loaded: seconds, megabytes and versions, see :class:`~.worker.Worker`.

    Raises:
        ContenderError: it does not load.
    """

    def __init__(
        self,
        contender: Contender,
        folder: Path,
        *,
        cores: int,
        log: Path,
        python: Path | None,
        module: str = "benchmarks.peers.worker",
    ) -> None:
        self.contender = contender
        self._folder = str(folder.resolve())
        self._cores = cores
        environment = {name: value for name, value in os.environ.items() if name not in UNSET}
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [str(python or sys.executable), "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=REPOSITORY,
                env=environment | SET,
            )
        try:
            self.loaded = self.load(contender)
        except ContenderError:
            self.close()
            raise

    def load(self, contender: Contender) -> dict[str, Any]:
        """Load it, in place of what is loaded: seconds, megabytes and versions.

        Raises:
            ContenderError: it does not load.
        """
        self.contender = contender
        return self._ask(
            {
                "engine": contender.engine,
                "folder": self._folder,
                "threads": contender.threads,
                "options": dict(contender.options),
                "cores": self._cores,
            }
        )

    def turn(self, work: Path, batch_size: int | None) -> dict[str, Any]:
        """Score the requests of a file: seconds, scores, and the highest memory so far.

        Raises:
            ContenderError: it failed or gave no answer.
        """
        return self._ask({"work": str(work), "batch_size": batch_size})

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(ANSWER_S, self._process.kill)
        timer.start()
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            code = self._process.wait()
            raise ContenderError(f"its process ended with code {code}, or was too slow")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContenderError(answer["error"])
        return answer
