"""``python -m qdrant_rerank``: the command line."""

from qdrant_rerank.cli import main

if __name__ == "__main__":
    main(prog_name="qdrant-rerank")
