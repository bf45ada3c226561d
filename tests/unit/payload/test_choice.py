"""Which field has the text: in payloads of known writers, and of other shapes."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdrant_rerank.errors import MissingTextError
from qdrant_rerank.payload import SAMPLE, PayloadText, TextChoice
from qdrant_rerank.payload.choice import CLEARLY, choose_text
from tests.writers import IRON, WRITTEN, written

LONG = "Bread is baked in an oven, and not in a pan. " * 3


@pytest.mark.parametrize("writer", WRITTEN)
def test_what_a_known_writer_wrote_is_found(writer):
    """Though the metadata beside it has a title of many words."""
    source, payload = WRITTEN[writer], written(writer, IRON)
    choice = TextChoice("auto")
    assert (choice.settled, choice.text.source, choice.text.fields) == (False, "auto", None)
    assert choice.text(payload) == IRON
    read = choice.choose([payload])
    assert (read.source, read(payload), choice.settled) == (source, IRON, True)
    assert choice.text is read


@pytest.mark.parametrize("name", ["langchain", "llama-index", "haystack", "mcp"])
def test_a_preset_reads_what_its_writer_wrote(name):
    """By its name, without a look at payloads."""
    assert PayloadText(name)(written(name, IRON)) == IRON
    assert TextChoice(name).settled


@pytest.mark.parametrize(
    ("payload", "source"),
    [
        ({"text": "iron"}, "text"),
        ({"text": "iron", "note": LONG}, "text"),
        ({"page_content": "iron", "metadata": {"title": LONG}}, "page_content"),
        ({"body": IRON, "chunk": LONG}, "chunk"),
        ({"passage": LONG, "text": IRON}, "passage"),
        ({"document": "report 2024.pdf", "body": LONG}, "body"),
        ({"document": "report.pdf", "remarks": LONG}, "remarks"),
        ({"content": LONG, "text": LONG}, "text"),
        ({"content": f"Title.\n{LONG}", "text": LONG}, "content"),
        ({"text": IRON, "article": {"body": LONG}}, "text"),
        ({"title": "iron", "article": {"body": LONG}}, "article.body"),
        ({"chunks": [{"text": IRON}, {"text": LONG}]}, "chunks[].text"),
        ({"data": {"full text": {"text": LONG}}}, 'data."full text".text'),
        ({"text": [IRON, LONG]}, "text"),
        ({"title": "Iron", "abstract": LONG, "url": "https://a.b/c"}, "abstract"),
        ({"abstract": LONG, "raw": '{"a word": "and many others in it"}'}, "abstract"),
        ({"abstract": LONG, "tags": ["red", "blue", "green", "white", "black"]}, "abstract"),
        ({"name": "鉄", "説明": "鉄は摂氏千五百三十八度で溶ける。"}, "説明"),
        ({"name": "लोहा", "विवरण": "लोहा बहुत ऊँचे ताप पर पिघलता है"}, "विवरण"),
        ({"name": "இரும்பு", "notes": "இரும்பு மிக அதிக வெப்பத்தில் உருகும்"}, "notes"),
        ({"mcp": LONG}, '"mcp"'),
        ({"haystacks": LONG}, '"haystacks"'),
        ({"auto": LONG}, '"auto"'),
        ({"_id": LONG, "id": LONG, "abstract": LONG}, "abstract"),
        ({"content": "iron", "n": 7}, "content"),
        ({"meta": {"document": "iron"}}, "meta.document"),
        ({"_node_content": "a field of many words that is no JSON", "body": IRON}, "body"),
    ],
)
def test_the_rule(payload, source):
    """A known name before others, at the top before deeper, the longest of several."""
    assert choose_text([payload, None, {}]) == source
    assert PayloadText(source)(payload)


@pytest.mark.parametrize(
    ("payloads", "message"),
    [
        (
            [{"title": "A title of many words", "abstract": LONG}],
            r"cannot choose.* 'abstract' in 1 with \d+ .* 'title' in 1 with 21 characters.*"
            r"Pass text='abstract' or 'title'\.$",
        ),
        ([{"text": LONG + "a", "content": LONG + "b"}], "'text'.*'content'.*Pass text="),
        ([{"text": LONG}, {"body": IRON}], "'text' in 1.*'body' in 1.*Pass text='text' or 'body'"),
        ([{"n": 7, "url": "https://a.b/c"}], r"no text in 1 payloads, which have \['n', 'url'\]"),
        ([{"_node_content": "{"}], "'_node_content' is no LlamaIndex node with a text"),
        ([None, {}], "the points have no payload"),
        ([], "the points have no payload"),
    ],
)
def test_what_cannot_be_chosen_is_told_with_what_to_pass(payloads, message):
    """And nothing is chosen: the next payloads may tell."""
    choice = TextChoice("auto")
    with pytest.raises(MissingTextError, match=message):
        choice.choose(payloads)
    choice.look(payloads)
    assert not choice.settled
    assert choice.choose([{"text": IRON}]).source == "text"


def test_the_command_line_is_told_its_own_option():
    """With the option in the place of Python's argument."""
    with pytest.raises(MissingTextError) as caught:
        choose_text([{"title": "A title of many words", "abstract": LONG}])
    assert "Pass --text abstract or title." in caught.value.command_message
    assert "text=" not in caught.value.command_message.replace("text='auto'", "")


def test_a_field_must_be_clearly_the_longest():
    """Or hold what the other one says."""
    short = "iron " * 40
    long = "rust " * round(40 * CLEARLY)
    assert choose_text([{"text": short, "body": long}]) == "body"
    with pytest.raises(MissingTextError):
        choose_text([{"text": short, "body": long[:-1]}])


def test_the_preferred_field_is_chosen_if_it_has_text():
    """As a collection that an older release filled has its text in 'text'."""
    assert choose_text([{"text": "iron", "content": LONG}], "text") == "text"
    assert choose_text([{"content": LONG}], "text") == "content"


@given(st.permutations(range(5)))
def test_the_order_of_fields_and_hits_does_not_matter(order):
    """Only what they hold."""
    payloads = [{"body": LONG, "chunk": f"{n} {IRON}", "n": n} for n in order]
    assert choose_text(payloads) == "body"
    assert choose_text([dict(reversed(payload.items())) for payload in payloads]) == "body"


def test_only_the_first_payloads_are_looked_at():
    """Which is enough, and takes the same time for any number of hits."""
    payloads = [{"body": LONG}] * SAMPLE + [{"chunk": LONG * 100}] * SAMPLE
    assert choose_text(payloads) == "body"


def test_the_first_choice_stays():
    """Also for threads that look at other payloads at the same time."""
    choice = TextChoice("auto")
    shapes = [[{"text": IRON}], [{"body": IRON}], [{"chunk": IRON}]] * 20
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda payloads: choice.choose(payloads).source, shapes))
    assert len(found) == 1
    choice.settle("other")
    assert choice.choose([{"passage": LONG}]).source in found


def test_before_the_choice_each_payload_is_read_by_what_it_has():
    """For what is only shown; a payload that allows no choice has no text."""
    read = TextChoice("auto").text
    assert read({"body": IRON}) == IRON
    assert read({"page_content": LONG}) == LONG
    assert read({"a": LONG, "b": IRON}) is None
    assert read(None) is None
    with pytest.raises(MissingTextError, match="Line 3: text='auto' cannot choose"):
        read.require({"a": LONG, "b": IRON}, "Line 3")
