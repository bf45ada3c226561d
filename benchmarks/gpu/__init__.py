"""The same pairs on the same GPU: this package, fastembed, sentence-transformers, FlashRank.

    python -m benchmarks.gpu                    # every model
    python -m benchmarks.gpu --data DATA_DIR    # with the parity on dl19
    python -m benchmarks.gpu --trial            # a few pairs on the CPU: does it run to the end?

Run from the repository's root. Into ``benchmarks/results/`` go ``gpu.json`` (every time, GPU,
driver, versions) and ``gpu.md``; with ``--model`` or ``--rounds`` they go into
``build/benchmarks/``, unless ``--out`` names a folder. A trial prints and records nothing. Without
a GPU, only a trial is possible.

To make the environment (torch brings its own CUDA beside onnxruntime's)::

    python3.11 -m venv gpu && . gpu/bin/activate && pip install --upgrade pip
    pip install -e '.[gpu]' --group peers

How it measures:

- Models of 6 layers by 384, 12 by 768 and 24 by 1024, made by ``benchmarks.peers.models``.
- One process per contender, each with its model on the GPU. They take turns in an order that
  rotates, and each turn has new texts of the same lengths.
- *Candidates*: one query and 100 documents, 182 tokens per pair on average, p50 and p99 over the
  rounds, tokenising included.
- *Pairs per second*: 20 queries of 100 documents in one call, the median over the rounds.
- *Limit*: fp16 products of the model's weights for as many tokens as the pairs have, nothing else,
  by onnxruntime on the same GPU with all data on it; padding and attention are not in it. A share
  of it is a contender's speed by the limit's.
- Every contender reads fp32 files as it comes; fp16 is each one's own conversion. FlashRank has no
  option for a GPU, and so runs on the CPU.
"""
