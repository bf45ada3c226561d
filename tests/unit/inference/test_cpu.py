"""What the process may use of the CPU, from files as Linux writes them."""

import os

import pytest

from qdrant_rerank.inference.cpu import available_cores, int8_weights

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def machine(root, files):
    """A root with these files under it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, CORES),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, CORES),
        ({"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "101000 100000\n"}, min(2, CORES)),
        ({"sys/fs/cgroup/cpu.max": "9900000 100000\n"}, CORES),
        ({"sys/fs/cgroup/cpu.max": "nonsense\n"}, CORES),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {  # in a container: the path is the host's
                "proc/self/cgroup": "1:cpu:/docker/0123\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            CORES,
        ),
    ],
)
def test_cores_are_those_of_the_affinity_and_the_quota(tmp_path, files, cores):
    """Of both versions of cgroups, rounded up, the outer groups' too; never none."""
    assert available_cores(machine(tmp_path, files)) == cores


@pytest.mark.skipif(CORES < 2, reason="one core cannot be narrowed")
def test_an_affinity_narrows():
    """As taskset and Kubernetes' static CPU manager set it."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("flags", "name", "signed"),
    [
        ("fpu avx2 avx512f avx512_vnni", "x86_64", True),
        ("fpu avx2 avx_vnni", "x86_64", True),
        ("fpu amx_int8 avx512_vnni", "AMD64", True),
        ("fpu avx2 avx512f", "x86_64", False),
        ("", "x86_64", False),
        ("", "arm64", True),
        ("", "aarch64", True),
    ],
)
def test_weights_are_signed_where_their_products_cannot_overflow(tmp_path, flags, name, signed):
    """By the CPU's flags; unsigned where nothing is known."""
    root = machine(tmp_path, {"proc/cpuinfo": f"processor : 0\nflags : {flags}\n"})
    found = int8_weights(root, name)
    assert found.signed is signed
    assert str(found).startswith("signed" if signed else "unsigned")
    assert int8_weights(tmp_path / "nothing", name).signed is (name in {"arm64", "aarch64"})
