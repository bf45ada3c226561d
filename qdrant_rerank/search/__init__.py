"""One search from query to results, sync and async.

Takes a query, and returns ``SearchResults``; calls the other sub-packages in order.
"""
