"""What needs Ray says so where there is none."""

import subprocess
import sys

import pytest

WITHOUT = "import sys; sys.modules[{name!r}] = None; import qdrant_rerank.distributed"


@pytest.mark.parametrize("name", ["ray", "pyarrow"])
def test_a_missing_package_is_named_with_the_extra(name):
    """With the command that installs it."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(name=name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "MissingDependencyError: Work on many machines needs " in last
    assert last.endswith('which is not installed. Run: pip install "qdrant-rerank[ray]"')
