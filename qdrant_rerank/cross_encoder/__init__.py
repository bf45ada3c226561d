"""Cross-encoders: pairs of query and document -> scores.

Takes a model name or directory, and gives one score per pair.
"""
