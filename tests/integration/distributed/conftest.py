"""A real Ray on this machine, small enough for two cores."""

import os

import pytest

ray = pytest.importorskip("ray")
pytest.importorskip("pyarrow")

# Ray runs its workers at a lower priority than all else, and would wait for the other tests.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - its name
OBJECT_STORE_BYTES = 80 << 20  # about the smallest that Ray takes


@pytest.fixture(scope="module")
def local_ray():
    """Ray with two cores."""
    with running():
        yield


def running():
    """Start Ray; a context manager."""
    return ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
