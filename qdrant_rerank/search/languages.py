"""What to use for texts in a script that the models of a searcher do not know."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from qdrant_rerank.embedders import Bm25Encoder
from qdrant_rerank.hub.catalog import BUILT_IN, MULTILINGUAL_EMBEDDER, MULTILINGUAL_RERANKER
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER, TRUNK_EMBEDDER
from qdrant_rerank.reranking.cascade import Cascade
from qdrant_rerank.utils.scripts import foreign_script

__all__ = ["language_advice", "main_script"]

LOOKED_AT = 32  # texts
#: Languages of BM25 that are not written in Latin letters, by their script.
OF_SCRIPT = {"Arabic": "arabic", "Cyrillic": "russian", "Greek": "greek", "Tamil": "tamil"}


def main_script(texts: Sequence[str]) -> str | None:
    """Return the script of texts if most of them are not in Latin letters; else None."""
    looked_at = texts[:LOOKED_AT]
    scripts = Counter(filter(None, map(foreign_script, looked_at)))
    if 2 * scripts.total() <= len(looked_at):
        return None
    return scripts.most_common(1)[0][0]


def language_advice(script: str, reranker: Any, embedder: Any, sparse: Any) -> str:
    """Return what to pass instead of the English parts of a searcher; "" if it has none.

    Args:
        script: script of the texts.
        reranker: the second stage, or None.
        embedder: the dense encoder, or None.
        sparse: the sparse encoder, or None.
    """
    english: list[str] = []
    advice: list[str] = []
    if name := _english_reranker(reranker):
        english.append(f"the reranker {name!r}")
        advice.append(f"reranker={MULTILINGUAL_RERANKER!r}")
    if (name := getattr(embedder, "name", None)) in {DEFAULT_EMBEDDER, TRUNK_EMBEDDER}:
        english.append(f"the embedder {name!r}")
        advice.append(f"embedder={MULTILINGUAL_EMBEDDER!r} (and index the documents again with it)")
    language = OF_SCRIPT.get(script)
    if isinstance(sparse, Bm25Encoder) and language and sparse.language not in OF_SCRIPT.values():
        english.append(f"BM25 in {sparse.language}")
        advice.append(f"language={language!r} if the texts are in it")
    if not english:
        return ""
    return f"They do not fit {', '.join(english)}. Pass {'; '.join(advice)}."


def _english_reranker(reranker: Any) -> str | None:
    """Return the name of a reranker, or of a stage of a cascade, that is known to read English."""
    stages = [one for one, _ in reranker.stages] if isinstance(reranker, Cascade) else [reranker]
    for stage in stages:
        name = str(getattr(stage, "model_name", ""))
        spec = BUILT_IN.get(name.lower())
        if spec is not None and spec.languages == ("en",):
            return name
    return None
