"""The largest difference between our scores and fastembed's on the same ONNX files.

    python benchmarks/fastembed_parity.py

Questions about the standard library against random documents of it: the two tiny fp32 models of
the tests at fastembed's default batch size, and the bundled int8 model one pair per batch, since
batch-mates change the scores of a dynamically quantised model.
"""

import json
import random
from pathlib import Path

import numpy as np
from fastembed.rerank.cross_encoder import TextCrossEncoder as Fastembed

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.cli.stdlib_docs import standard_library_documents
from qdrant_rerank.hub.specs import BUNDLED_DIRECTORY

MODELS = Path(__file__).parents[1] / "tests" / "models"
QUESTIONS = Path(__file__).with_name("stdlib_questions.jsonl")
CASES = (
    (MODELS / "tiny-bert", 64, 5000),
    (MODELS / "tiny-xlmr", 64, 5000),
    (BUNDLED_DIRECTORY / DEFAULT_RERANKER, 1, 300),
)


def main() -> None:
    rng = random.Random(0)
    questions = [json.loads(line)["question"] for line in QUESTIONS.read_text().splitlines()]
    documents = [document["text"] for document in standard_library_documents()]
    for path, batch_size, count in CASES:
        pairs = [(rng.choice(questions), rng.choice(documents)) for _ in range(count)]
        # fastembed loads a local directory under the name of a model that it knows.
        theirs = Fastembed("Xenova/ms-marco-MiniLM-L-6-v2", specific_model_path=str(path))
        expected = np.array(list(theirs.rerank_pairs(pairs, batch_size=batch_size)))
        scores = np.array(list(TextCrossEncoder(path).rerank_pairs(pairs)))
        print(
            f"{path.name}: {count:,} pairs, scores from {scores.min():.2f} to {scores.max():.2f}, "
            f"largest difference {np.abs(scores - expected).max():.1e}"
        )


if __name__ == "__main__":
    main()
