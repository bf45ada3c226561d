"""A real Ray on this machine, small enough for two cores."""

import os
import warnings

import pytest

collect_ignore_glob = []
try:
    with warnings.catch_warnings():  # its own, of pydantic's old names
        warnings.simplefilter("ignore")
        import ray
        import ray.serve
except ModuleNotFoundError:  # make ray
    collect_ignore_glob += ["*.py"]

# Ray runs its workers at a lower priority than all else, and would wait for the other tests.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - its name
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# A cluster of several nodes reports that its statistics are off.
os.environ["RAY_USAGE_STATS_REPORT_URL"] = "http://127.0.0.1:9/"
OBJECT_STORE_BYTES = 80 << 20  # about the smallest that Ray takes


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    """A home of Ray's own: its token is made there, and a file that ends its look for a cloud."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "ray_bootstrap_config.yaml").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        yield


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
        _node_ip_address="127.0.0.2",  # it replaces 127.0.0.1 by an address that others reach
    )


def pytest_collection_modifyitems(items):
    """Let Ray warn about itself: of its own old settings, and of its processes when it ends."""
    for item in items:
        if "integration/distributed" in item.path.as_posix():
            for kind in ("DeprecationWarning", "FutureWarning", "ResourceWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))
            item.add_marker(
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
            )
