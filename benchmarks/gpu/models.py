"""The models: those of ``benchmarks.peers``, and one of 24 layers by 1024.

python -m benchmarks.gpu.models FOLDER NAME ...
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.peers import models as peers

__all__ = ["SHAPES", "make"]

LARGE = "bert-l24-fp32"
#: Name of each model -> layers and width, for tables.
SHAPES = {"minilm-l6-fp32": "6 x 384", "bert-l12-fp32": "12 x 768", LARGE: "24 x 1024"}


def make(root: Path, name: str) -> None:
    """Make one model in ``root``, whole or not at all; one that is there is left alone."""
    if name != LARGE:
        peers.make(root, name)
        return
    if (root / name).exists():
        return
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(peers.SEED)
    shape = {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16}
    config = BertConfig(num_labels=1, intermediate_size=4096, **shape)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as work:
        peers.save(BertForSequenceClassification(config).eval(), Path(work) / name)
        (Path(work) / name).rename(root / name)


if __name__ == "__main__":
    for wanted in sys.argv[2:]:
        make(Path(sys.argv[1]), wanted)
