"""Processes that tests start can be interrupted, however the tests themselves were started."""

import subprocess
import sys
from pathlib import Path

CHILD = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


def test_a_child_can_be_interrupted():
    """It handles SIGINT as Python does by itself."""
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_child_can_be_interrupted_though_the_tests_ignore_it():
    """As those that nohup, or a shell's ``&``, starts."""
    this = f"{Path(__file__)}::{test_a_child_can_be_interrupted.__name__}"
    pytest = [sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider", this]
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *pytest]
    done = subprocess.run(ignoring, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
