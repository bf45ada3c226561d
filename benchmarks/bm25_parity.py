"""How far our BM25 vectors are from fastembed's, at equal settings, by language.

    python benchmarks/bm25_parity.py [LANGUAGE ...]

Needs fastembed, and no network: its stop words are written from our lists, which are NLTK's. For
each language 2,000 texts of inflected words, stop words, punctuation and numbers are encoded, as
documents and as queries.
"""

import argparse
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastembed import SparseTextEmbedding

from qdrant_rerank import Bm25Encoder
from qdrant_rerank.embedders.bm25 import stop_words

WORDS = {
    "english": "running dogs houses mice studies happily generalizations melted children's U.S.A.",
    "german": "Häuser laufenden Straßen Eisen geschmolzen Kinder Mäuse Übergänge gebacken größte",
    "french": "maisons courantes étudiants l'école généralement fondues chevaux mangeaient cœur",
    "spanish": "corriendo ciudades niños estudiantes rápidamente fundidos corazones años pingüino",
    "russian": "домами бегущих городов учащиеся расплавленное детей быстро железа хлебами ёлки",
    "italian": "città correvano studenti velocemente fusioni cavalli mangiavano perché università",
    "portuguese": "casas correndo estudantes rapidamente fundidos corações crianças não pinguim",
    "finnish": "talojen juoksevat opiskelijoita nopeasti sulanut lapsille hevosia söivät",
    "arabic": "البيوت يركضون الطلاب بسرعة الحديد الأطفال المدن يأكلون",
}
OTHERS = ["1538", "3.14", "(x)", "—", "...", "re-index", "a_b"]
TEXTS = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "languages",
        nargs="*",
        default=["english", "german", "french", "spanish", "russian"],
        help=f"of {', '.join(WORDS)}",
    )
    given = parser.parse_args()
    print(f"{'language':<12}{'texts':>8}{'terms':>10}{'largest relative difference':>30}")
    for language in given.languages:
        texts, terms, largest = compared(language)
        print(f"{language:<12}{texts:>8,}{terms:>10,}{largest:>30.1e}", flush=True)


def compared(language: str) -> tuple[int, int, float]:
    """Return texts, terms of them, and the largest relative difference of a weight."""
    choices = [*WORDS[language].split(), *sorted(stop_words(language)), *OTHERS]
    choose = random.Random(0)
    texts = [" ".join(choose.choices(choices, k=choose.randint(0, 60))) for _ in range(TEXTS)]
    theirs = of_fastembed(language)
    ours = Bm25Encoder(avg_len=256.0, language=language, query_counts=False)
    terms = 0
    largest = 0.0
    pairs = [
        *zip(theirs.passage_embed(texts), ours.embed_documents(texts), strict=True),
        *((next(iter(theirs.query_embed(text))), ours.embed_query(text)) for text in texts),
    ]
    for their, our in pairs:
        expected = dict(zip(their.indices.tolist(), their.values.tolist(), strict=True))
        found = dict(zip(our.indices, our.values, strict=True))
        if set(found) != set(expected):
            raise SystemExit(f"{language}: other terms in {texts!r:.200}")
        terms += len(found)
        differences = (abs(found[i] / value - 1) for i, value in expected.items())
        largest = max(largest, max(differences, default=0.0))
    return len(texts), terms, largest


def of_fastembed(language: str) -> Any:
    """Return fastembed's model, without its hub."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text("{}")
        words = "\n".join(sorted(stop_words(language)))
        (Path(folder) / f"{language}.txt").write_text(words + "\n", encoding="utf-8")
        return SparseTextEmbedding("Qdrant/bm25", specific_model_path=folder, language=language)


if __name__ == "__main__":
    main()
