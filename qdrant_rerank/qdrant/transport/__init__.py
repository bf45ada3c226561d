"""Requests to Qdrant: sent, timed and retried, and their errors as ours.

Takes a client and a request, and returns the answer.
"""
