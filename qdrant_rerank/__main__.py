"""``python -m qdrant_rerank``: the command line."""

try:
    from qdrant_rerank.cli.main import main
except KeyboardInterrupt:  # from here on click ends quietly
    raise SystemExit(130) from None

if __name__ == "__main__":
    main(prog_name="qdrant-rerank")
