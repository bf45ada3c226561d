"""The ``qdrant-rerank`` command.

Takes command-line arguments, and gives tables, JSON and exit codes.
"""
