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

os.environ |= {
    # Ray runs its workers at a lower priority than all else, and would wait for the other tests.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A cluster of several nodes reports that its statistics are off.
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
    # A process needs seconds of a core to start, which may be shared with much other work.
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
}
STARTS = 5  # of a Ray, whose limit for the first node is 30 s, whatever its settings say
TOO_LATE = "timed out during startup"
OBJECT_STORE_BYTES = 80 << 20  # about the smallest that Ray takes


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    """A home of Ray's own: its token is made there, and a file that ends its look for a cloud."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "ray_bootstrap_config.yaml").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        yield


@pytest.fixture(scope="session")
def local_ray():
    """Ray with two cores, for all files: a process has one at a time."""
    with running():
        yield


def running(cores=2):
    """Start Ray; a context manager."""
    return until_in_time(
        lambda: ray.init(
            "local",  # not one that was left, and noted in a file
            num_cpus=cores,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            _node_ip_address="127.0.0.2",  # it replaces 127.0.0.1 by an address that others reach
        )
    )


def until_in_time(start):
    """Start a Ray again when its first node was not there within Ray's own 30 s."""
    for _ in range(STARTS - 1):
        try:
            return start()
        except Exception as error:  # Ray raises no other class
            if TOO_LATE not in str(error):
                raise
            ray.shutdown()
    return start()


def pytest_collection_modifyitems(items):
    """Let Ray warn about itself: of its own old settings, and of its processes when it ends."""
    for item in items:
        if "integration/distributed" in item.path.as_posix():
            for kind in ("DeprecationWarning", "FutureWarning", "ResourceWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))
            item.add_marker(
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
            )
