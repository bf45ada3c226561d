"""What reranking buys and costs, measured on your own queries and judgments.

Data goes one way: ``files`` reads, ``evaluate`` and ``tune`` search and score, ``measures`` says
how good and how sure, ``results`` and ``pictures`` show it. ``compare`` needs no judgments.
"""

from qdrant_rerank.evaluation.compare import Comparison, compare, with_reranker
from qdrant_rerank.evaluation.comparison_result import ComparedHit, ComparedQuery
from qdrant_rerank.evaluation.corpus import Document, read_corpus, read_queries
from qdrant_rerank.evaluation.evaluate import evaluate, evaluate_run
from qdrant_rerank.evaluation.evaluation_result import Configuration, Evaluation
from qdrant_rerank.evaluation.metrics import Gain
from qdrant_rerank.evaluation.trec import Qrels, Run, read_qrels, read_run, write_run
from qdrant_rerank.evaluation.tune import tune
from qdrant_rerank.evaluation.tuning_result import Point, Tuning

__all__ = [
    "ComparedHit",
    "ComparedQuery",
    "Comparison",
    "Configuration",
    "Document",
    "Evaluation",
    "Gain",
    "Point",
    "Qrels",
    "Run",
    "Tuning",
    "compare",
    "evaluate",
    "evaluate_run",
    "read_corpus",
    "read_qrels",
    "read_queries",
    "read_run",
    "tune",
    "with_reranker",
    "write_run",
]
