"""One search from query to results, sync and async.

Takes a query, and gives ``SearchResults``; calls every other sub-package once, in order.
"""
