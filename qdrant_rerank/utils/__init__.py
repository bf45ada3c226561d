"""Helpers that know nothing of search: checks of arguments, deadlines, files, warnings, forks.

They take plain values, and return plain values or raise an error of :mod:`qdrant_rerank.errors`.
"""
