"""Help that knows nothing of search: checked arguments, deadlines, files, warnings, forks.

Takes plain values, and gives plain values or an error of :mod:`qdrant_rerank.errors`.
"""
