"""Everything that is said to Qdrant.

Takes queries and documents, and gives candidates or stored points.
"""
