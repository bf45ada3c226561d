"""Reference pages made from docstrings, one per sub-package with public names."""

from functools import partial

import qdrant_rerank
from qdrant_rerank import errors

__all__ = ["api_pages"]

#: Page -> title, first sentence.
PAGES = {
    "search": ("Search", "A searcher, its options, and what a search returns."),
    "reranking": ("Rerankers", "Rerank hits of any query, with rerankers of any kind."),
    "cross_encoder": ("TextCrossEncoder", "Score pairs of texts with an ONNX model."),
    "embedders": ("Embedders", "Encoders of the first stage, dense and sparse."),
    "hub": ("Models and files", "Describe a model, and add one by name."),
    "qdrant": ("Qdrant", "Settings of a collection that has to be created."),
    "evaluation": ("Evaluation", "Measure what reranking gains and costs."),
    "serving": ("Serving", "The server as an ASGI application."),
    "distributed": ("More machines", "Datasets, and the server, on a Ray cluster."),
    "integrations": ("Integrations", "Components for frameworks. Each needs its extra."),
    "errors": (
        "Errors",
        "Every error, as a tree. [When things go wrong](../errors.md) has remedies.",
    ),
}
#: Names that come first on their page.
FIRST = (
    "HybridSearcher",
    "AsyncHybridSearcher",
    "SearchOptions",
    "TextCrossEncoder",
    "rerank_points",
)
#: Modules without a page of their own.
PAGE_OF = {"types": "search", "options": "search"}
BESIDES = {
    "evaluation": [
        f"qdrant_rerank.evaluation.{name}"
        for name in "compare tune evaluate_run Configuration Comparison ComparedQuery "
        "ComparedHit Gain Tuning Point with_reranker read_corpus read_queries read_qrels "
        "read_run write_run".split()
    ],
    "serving": ["qdrant_rerank.serving.create_app", "qdrant_rerank.serving.ServeSettings"],
    "distributed": [
        "qdrant_rerank.distributed.rerank_dataset",
        "qdrant_rerank.distributed.RerankedFiles",
        "qdrant_rerank.distributed.index_dataset",
        "qdrant_rerank.distributed.Indexed",
        "qdrant_rerank.distributed.deployment.deployment",
        "qdrant_rerank.capacity.plan",
        "qdrant_rerank.capacity.Workload",
        "qdrant_rerank.capacity.Plan",
    ],
    "integrations": [
        f"qdrant_rerank.integrations.{name}"
        for name in ("langchain", "llama_index", "haystack", "dspy", "mcp")
    ],
    "errors": [f"qdrant_rerank.errors.{name}" for name in errors.__all__],
}


def page_of(name: str) -> str:
    """Return the page that a public name is on."""
    home = qdrant_rerank._HOME.get(name)
    package = home.partition(".")[0] if home else "hub"
    return PAGE_OF.get(package, package)


def api_pages():
    """Return name of page -> function that returns its Markdown."""
    names = {page: [] for page in PAGES}
    order = {name: place for place, name in enumerate(FIRST)}
    for name in sorted(qdrant_rerank.__all__, key=lambda name: order.get(name, len(FIRST))):
        if name not in {"__version__", "errors"}:
            names[page_of(name)].append(f"qdrant_rerank.{name}")
    return {
        f"reference/{page}.md": partial(_page, *about, [*names[page], *BESIDES.get(page, ())])
        for page, about in PAGES.items()
    }


def _page(title: str, about: str, names: list[str]) -> str:
    blocks = "\n\n".join(f"::: {name}" for name in names)
    tree = f"```text\n{_tree()}\n```\n\n" if title == "Errors" else ""
    return f"# {title}\n\n{about}\n\n{tree}{blocks}\n"


def _tree() -> str:
    lines = errors.__doc__.splitlines()
    first = next(row for row, line in enumerate(lines) if line.strip() == "QdrantRerankError")
    last = max(row for row, line in enumerate(lines) if "└──" in line)
    return "\n".join(line.removeprefix("    ") for line in lines[first : last + 1])
