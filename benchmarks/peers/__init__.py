"""The same pairs through the same ONNX file: this package and its peers, in turn, on this machine.

    python -m benchmarks.peers                  # the table of targets, about 20 minutes
    python -m benchmarks.peers --full --only 'bundled mixed 100$'
    python -m benchmarks.peers.report FILE      # tables and picture of a recorded run

Run from the repository's root, on Linux, with nothing else running. Into ``benchmarks/results/`` go
``peers.json`` (every time of every round, machine, versions), ``peers.md`` and ``peers.png``; with
an option that leaves something out they go into ``build/benchmarks/``, unless ``--out`` names a
folder.
``--full`` is every combination of model (6 x 384 in fp32 and int8, the bundled one, 12 x 768),
length, 10, 100 and 1,000 candidates, one query, 64 pooled ones and 8 at once: days on 2 cores, so
``--only`` picks among them.

The environment, for whom this is new::

    python3.11 -m venv peers && . peers/bin/activate && pip install --upgrade pip
    pip install -c constraints.txt -e '.[cpu,openvino,quantize]' --group peers

The ONNX backend of sentence-transformers needs an environment of its own, since
sentence-transformers 6 wants transformers 5 and the last release of optimum-onnx wants 4. The
newest pair that fits is what pip finds by itself (sentence-transformers 5.7); without it, that one
contender is reported as not run::

    python3.11 -m venv peers-onnx
    peers-onnx/bin/pip install torch==2.13.0 'sentence-transformers[onnx]' onnxruntime==1.32.0
    python -m benchmarks.peers --onnx-python peers-onnx/bin/python

How it measures:

- One process a contender. In each round every contender scores once, one after the other while the
  others sleep, in an order that rotates, so that noise hits all alike. A ratio is taken within a
  round; its median over the rounds is reported, with the lowest and the highest.
- Every round has new texts of the same lengths, so that no cache helps anyone.
- *Default* is what the peer does unasked; *best* is the batch size and number of threads that were
  fastest in a sweep on part of the workload, just before.
- *Limit* is what this CPU does when it computes the matrix products of the model's weights for the
  same lengths and nothing else, by ONNX Runtime, on one thread a core, in the same rounds: fp32 by
  MatMul, int8 by QLinearMatMul. Attention's own products are not in it, which makes it harder to
  reach; "with attention" has them.
- Memory is the resident set of the contender's process: after loading, and the highest since then.
"""
