"""Requests to Qdrant: sent, timed, retried, and their errors as ours.

Takes a client and a request, and gives its answer.
"""
