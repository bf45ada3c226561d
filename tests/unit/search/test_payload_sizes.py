"""When fetching texts first pays."""

import json

from hypothesis import given
from hypothesis import strategies as st

from qdrant_rerank.payload import TextChoice
from qdrant_rerank.search.payload_sizes import SAMPLE, WORTH_A_REQUEST, PayloadSizes

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PAYLOADS = st.lists(
    st.fixed_dictionaries({"text": TEXTS, "rest": TEXTS}), min_size=1, max_size=SAMPLE
)


def size(value):
    """Bytes of it as JSON."""
    return len(json.dumps(value, ensure_ascii=False).encode())


@given(payloads=PAYLOADS, limit=st.integers(1, 50))
def test_what_is_saved_is_the_difference_of_both_ways(payloads, limit):
    """Of as many candidates as were measured, exactly."""
    sizes = PayloadSizes(TextChoice("text"))
    sizes.learn(payloads)
    count = len(payloads)
    whole = sum(map(size, payloads))
    texts = sum(size(p["text"] if p["text"].strip() else None) for p in payloads)
    assert abs(sizes.saved(count, limit) - (whole - texts - limit * whole / count)) <= 0.5


def test_it_pays_from_16_kib_and_never_without_knowing():
    """Nor where only a function knows what the text is."""
    sizes = PayloadSizes(TextChoice("text"))
    assert not sizes.pays(100, 10)
    sizes.learn([{"text": "a", "rest": "x" * 500}])
    assert sizes.pays(100, 10)
    assert not sizes.pays(100, 99)
    assert not sizes.pays(WORTH_A_REQUEST // 600, 1)
    function = PayloadSizes(TextChoice(lambda payload: payload["text"]))
    function.learn([{"text": "a", "rest": "x" * 500}])
    assert not function.pays(100, 10)


def test_a_sample_is_enough():
    """Later payloads are not measured."""
    sizes = PayloadSizes(TextChoice("text"))
    sizes.learn([{"text": "a"}] * SAMPLE)
    before = sizes.saved(100, 1)
    sizes.learn([{"text": "a", "rest": "x" * 10_000}, None])
    assert sizes.saved(100, 1) == before


def test_odd_payloads_are_measured_too():
    """None, and what JSON cannot write."""
    sizes = PayloadSizes(TextChoice("text"))
    sizes.learn([None, {"text": "\ud800", "set": {1}}])
    assert sizes.saved(2, 0) > 0
