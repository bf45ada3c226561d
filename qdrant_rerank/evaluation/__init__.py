"""Measures what reranking gains and costs, on your own queries and judgments.

Data goes one way: ``corpus`` and ``trec`` read files, ``evaluate`` and ``tune`` search and score,
``metrics`` computes how good the results are and how certain that is, and the results render
themselves. ``compare`` needs no judgments.
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
