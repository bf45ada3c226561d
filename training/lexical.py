"""What exact match needs to know of the vocabulary: stems, and how rare each is."""

import numpy as np
from numpy.typing import NDArray
from py_rust_stemmers import SnowballStemmer
from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")


def stem_classes(tokenizer: Tokenizer) -> NDArray[np.int16]:
    """For each token id the id that stands for its stem: shape (vocabulary,)."""
    stem = SnowballStemmer("english").stem_word
    first: dict[str, int] = {}
    classes = np.arange(tokenizer.get_vocab_size(), dtype=np.int16)
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if token.isalpha() and token.isascii():
            classes[number] = first.setdefault(stem(token), number)
    return classes


def inverse_frequency(
    tokenizer: Tokenizer, classes: NDArray[np.int16], passages: list[NDArray[np.int32]]
) -> NDArray[np.float32]:
    """IDF of each id's class over tokenised passages, 0 for special tokens: (vocabulary,)."""
    counts = np.zeros(len(classes))
    for ids in passages:
        counts[np.unique(classes[ids])] += 1
    idf = np.log1p((len(passages) - counts + 0.5) / (counts + 0.5))[classes]
    idf[[tokenizer.token_to_id(token) for token in SPECIAL]] = 0.0
    return idf.astype(np.float32)
