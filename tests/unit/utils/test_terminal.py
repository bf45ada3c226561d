"""Text that is printed drives no terminal."""

import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from qdrant_rerank.utils.terminal import inert, one_line, shortened


def test_no_character_that_drives_a_terminal_is_left():
    """Of all of Unicode: no control but tab and newline, no direction control, no surrogate."""
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    left = set(inert(everything))
    controls = {c for c in left if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}}
    assert controls == {"\t", "\n"}
    directed = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {unicodedata.bidirectional(c) for c in left} & directed
    assert len(inert(one_line(everything)).splitlines()) == 1


@given(st.text())
def test_other_text_stays_as_it_is(text):
    """Letters of all scripts, signs and the joiners of emoji."""
    kept = "".join(c for c in text if unicodedata.category(c)[0] in "LMNPS")
    assert inert(kept) == kept
    assert inert("👩\u200d🔬 a\tb\nc") == "👩\u200d🔬 a\tb\nc"
    assert one_line(text) == one_line(one_line(text))
    inert(text).encode()


def test_a_long_text_is_cut():
    """At the length, the ellipsis included."""
    assert shortened("abcdef", 4) == "abc…"
    assert shortened("abcd", 4) == "abcd"
