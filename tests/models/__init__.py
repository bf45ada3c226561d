"""Tiny random-weight cross-encoders for the tests, and broken or unusual variants of them."""
