"""Candidates -> candidates in a better order.

Takes points with text and a reranker, and gives points with both scores, ordered, cut and grouped.
"""
