"""Share of the logit's variance within a query that a linear function of the scalars explains.

    python training/explained.py MODEL.onnx DATA_DIR/eval/SET [--queries N]

MODEL.onnx is a graph of ``export.py`` with its scalars, as ``reader.py`` has them; the tokenizer
lies two folders above. The pairs are the candidates that come with the set. Tells how much of what
a model says needs more than the scalars: the cosine alone, all of them, and the rest.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from arguments import existing_path
from numpy.typing import NDArray

from qdrant_rerank.evaluation.corpus import read_corpus, read_queries
from qdrant_rerank.evaluation.trec import read_run
from qdrant_rerank.inference.batching import pad
from qdrant_rerank.inference.conversion.graph import load_whole
from qdrant_rerank.inference.tokenization import PairTokenizer

SCALE = "branches.scale"  # that the scalars are divided by


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=existing_path)
    parser.add_argument("folder", type=existing_path, help="of an evaluation set")
    parser.add_argument("--queries", type=int, help="the first so many; all by default")
    given = parser.parse_args()
    scalars, logits, groups = outputs(given.model, given.folder, given.queries)
    logits, scalars = centred(logits, groups), centred(scalars, groups)
    print(f"{len(logits)} pairs of {groups[-1] + 1} queries of {given.folder.name}")
    print(f"the cosine {explained(logits, scalars[:, :1]):.3f}")
    print(f"all scalars {explained(logits, scalars):.3f}")


def outputs(
    path: Path, folder: Path, most: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Scalars (pairs, scalars), logits (pairs, 1) and each pair's query (pairs,)."""
    [found] = folder.glob("candidates*.tsv.gz")
    queries, corpus = (
        read_queries(folder / "queries.jsonl.gz"),
        read_corpus(folder / "corpus.jsonl.gz"),
    )
    run = list(read_run(found).items())[:most]
    pairs = [(queries[query], corpus[text].content) for query, texts in run for text in texts]
    groups = np.repeat(np.arange(len(run)), [len(texts) for _, texts in run])
    model = load_whole(path)
    [node] = [node for node in model.graph.node if SCALE in node.input and node.op_type == "Div"]
    [scalars] = node.output
    model.graph.output.append(onnx.helper.make_tensor_value_info(scalars, 1, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    rows = []
    for row in PairTokenizer.from_directory(path.parents[1])(pairs):
        ids, mask, types = pad([row], pad_id=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        rows.append(np.concatenate(session.run([scalars, "logits"], inputs), axis=1))
    table = np.concatenate(rows).astype(np.float64)
    return table[:, :-1], table[:, -1:], groups


def centred(table: NDArray[np.float64], groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """Take each query's means off, (pairs, n)."""
    sums = np.zeros((groups[-1] + 1, table.shape[1]))
    np.add.at(sums, groups, table)
    centred: NDArray[np.float64] = table - (sums / np.bincount(groups)[:, None])[groups]
    return centred


def explained(logits: NDArray[np.float64], scalars: NDArray[np.float64]) -> float:
    """Share of the variance, 0 to 1."""
    fit = scalars @ np.linalg.lstsq(scalars, logits, rcond=None)[0]
    return float(1 - ((logits - fit) ** 2).sum() / (logits**2).sum())


if __name__ == "__main__":
    main()
