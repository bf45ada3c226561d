"""What the figures were measured on."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["machine"]

# What makes int8 or bf16 products fast.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def machine(cores: int) -> dict[str, Any]:
    """Processor, memory, system and this repository's commit; now.

    Args:
        cores: that this process may use.
    """
    about: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        about[name.strip()] = value.strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    flags = about.get("flags", "").split()
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": about.get("model name", platform.processor()),
        "family": f"family {about.get('cpu family')} model {about.get('model')}",
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": cores,
        "memory_gb": round(memory / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        "load": os.getloadavg()[0],
    }
