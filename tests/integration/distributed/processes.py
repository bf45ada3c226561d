"""Processes of Ray, and waiting for what they do."""

import subprocess
import time


def until(true):
    """Wait until something is so; returns it."""
    end = time.monotonic() + 600
    while not (found := true()):
        assert time.monotonic() < end, "it never was so"
        time.sleep(0.05)
    return found


def processes(*titles):
    """(process id, process id of the parent) of the processes with one of these in their titles."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    )
    return [
        tuple(map(int, line.split()[:2]))
        for line in listed.stdout.splitlines()
        if any(title in line for title in titles)
    ]


def workers():
    """Those of the workers that do partitions."""
    return processes("ray::MapWorker")
