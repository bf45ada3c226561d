"""How far scores of a modular cross-encoder are from those of sentence-transformers.

    python benchmarks/modular_parity.py

Needs no PyTorch: what sentence-transformers 6.2 scores is recorded beside the tiny model, and
`make adapters` scores it again.
"""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from qdrant_rerank import TextCrossEncoder

MODEL = Path(__file__).parents[1] / "tests" / "models" / "tiny-modular"


def main() -> None:
    recorded = json.loads((MODEL / "scores.json").read_text("utf-8"))
    pairs = [(query, document) for query, document in recorded["pairs"]]
    print(f"{'pooling':<24}{'pairs':>6}{'lowest':>9}{'highest':>9}{'largest difference':>20}")
    single = {mode: made for mode, made in recorded["poolings"].items() if "+" not in mode}
    for mode, expected in single.items():
        with TemporaryDirectory() as folder:
            copy = shutil.copytree(MODEL, Path(folder, "model"))
            config = copy / "1_Pooling" / "config.json"
            fields = json.loads(config.read_text("utf-8"))
            config.write_text(json.dumps(fields | {"pooling_mode": mode}), encoding="utf-8")
            model = TextCrossEncoder(copy, activation="auto", engine="onnxruntime")
            found = list(model.rerank_pairs(pairs))
        largest = max(abs(a - b) for a, b in zip(found, expected, strict=True))
        print(
            f"{mode:<24}{len(pairs):>6}{min(expected):>9.4f}{max(expected):>9.4f}{largest:>20.1e}"
        )


if __name__ == "__main__":
    main()
