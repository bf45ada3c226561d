"""A contender's own process: the worker of ``benchmarks.peers`` with the adapters for GPUs."""

from benchmarks.gpu.contenders import register
from benchmarks.peers.worker import main

if __name__ == "__main__":
    register()
    main()
