"""All requests to Qdrant: what is asked, and how.

Takes queries and documents, and returns candidates, or stores points.
"""
