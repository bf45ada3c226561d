"""The languages of BM25."""

__all__ = ["LANGUAGES"]

#: Languages that have a stemmer; Tamil has no stop words.
LANGUAGES = (
    "arabic danish dutch english finnish french german greek hungarian italian norwegian "
    "portuguese romanian russian spanish swedish tamil turkish"
).split()
