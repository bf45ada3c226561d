"""Tokens as the tokenizer's own, with no clipping: long pairs, and control tokens in texts."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.inference.tokenization import PairTokenizer
from tests.conftest import MODELS

# Characters. The library itself needs gigabytes for two longer texts that are cut to 40 tokens.
LONGEST = 3_000
# Texts of one word each, with many or few characters per token, some of them clipped.
TEXTS = st.builds(
    lambda word, times: f"{word} " * times,
    st.sampled_from(["a", "b", "bread", "internationalization", "🙂", " " * 40 + "x", "x" * 101]),
    st.sampled_from([0, 3, 17, 18, 19, 20, 60, 700]),
).map(lambda text: text[:LONGEST])


@pytest.fixture(scope="module", params=[("tiny-bert", 39), ("tiny-bert", 40), ("tiny-xlmr", 40)])
def both(request):
    """Ours, and the library's own; with an odd and an even number of tokens for the texts."""
    name, max_length = request.param
    ours = PairTokenizer.from_directory(MODELS / name, max_length=max_length)
    return ours, stock(MODELS / name, max_length)


def stock(directory, max_length):
    """The same file without our code, as fastembed uses it."""
    made = Tokenizer.from_file(str(directory / "tokenizer.json"))
    made.no_padding()
    made.enable_truncation(max_length)
    return made


@settings(max_examples=40, deadline=None)
@given(query=TEXTS, document=TEXTS)
def test_long_pairs_are_cut_as_the_tokenizer_cuts_them(both, query, document):
    """To the token, whichever text is longer, in characters or in tokens."""
    ours, theirs = both
    [pair] = ours([(query, document)])
    expected = theirs.encode(query, document)
    assert pair.ids.tolist() == expected.ids
    assert pair.type_ids.tolist() == expected.type_ids


def test_two_long_texts_are_cut_as_fastembed_cuts_them(tiny_bert):
    """The odd token goes to the text with more tokens, which may have fewer characters."""
    pair = ("a b " * 2000, "internationalization " * 2000)
    [ours] = PairTokenizer.from_directory(tiny_bert)([pair])
    assert ours.ids.tolist() == stock(tiny_bert, 128).encode(*pair).ids


def test_two_texts_of_a_megabyte_take_little_memory(tiny_xlmr):
    """The library alone would keep every combination of what it cuts off both: gigabytes."""
    code = f"""
import resource
from pathlib import Path
from qdrant_rerank.inference.tokenization import PairTokenizer
tokenizer = PairTokenizer.from_directory(Path({str(tiny_xlmr)!r}), max_length=127)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
[pair] = tokenizer([("internationalization " * 50_000, ("x" * 150 + " ") * 7_000)])
print(len(pair.ids), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    tokens, megabytes = map(int, done.stdout.split())
    assert tokens == 127
    assert megabytes < 400


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-xlmr", "tiny-deberta", "tiny-modernbert"])
def test_control_tokens_in_a_text_are_plain_text(name):
    """Only the template writes them, so no document can look like two, or like padding."""
    tokenizer = PairTokenizer.from_directory(MODELS / name)
    stock = Tokenizer.from_file(str(MODELS / name / "tokenizer.json"))
    special = {
        number: token.content
        for number, token in stock.get_added_tokens_decoder().items()
        if token.special
    }
    text = " ".join(special.values())
    assert len(special) > 3
    assert set(special) <= set(stock.encode(text, add_special_tokens=False).ids)
    unknown = {number for number, token in special.items() if "unk" in token.lower()}
    for spelled in (text, text.replace(" ", ""), widened(text)):
        [plain, attack] = tokenizer([("q", "a"), (f"q {spelled}", f"a {spelled}")])
        expected = sorted(number for number in plain.ids.tolist() if number in special)
        found = sorted(number for number in attack.ids.tolist() if number in special)
        assert [number for number in found if number not in unknown] == expected
        assert len(attack) > len(plain) + 2 * len(special)


def widened(text):
    """In full-width letters, which some tokenizers read as these."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def test_a_document_with_a_separator_scores_as_its_letters(tiny_bert):
    """And differs from the document that would be cut in two."""
    encoder = TextCrossEncoder(tiny_bert)
    [read] = encoder._model.reader()([("bread", "rye [SEP] rises")]).rows
    raw = stock(tiny_bert, 128).encode("bread", "rye [SEP] rises").ids
    assert read.ids.tolist() != raw
    assert list(read.ids).count(raw[-1]) == 2
