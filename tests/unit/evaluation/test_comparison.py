"""How alike two rankings are, and how a comparison is shown."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.evaluation.compare import Comparison
from qdrant_rerank.evaluation.comparison_page import page
from qdrant_rerank.evaluation.comparison_result import ComparedHit, ComparedQuery
from qdrant_rerank.evaluation.overlap import overlap, rank_biased_overlap
from qdrant_rerank.utils.terminal import one_line, shortened
from tests.html_page import Page

RANKINGS = st.lists(st.integers(0, 12), unique=True, max_size=8)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "[bold]not bold[/bold]",
        '"><img src=x>',
        "$first ${x} $$",
        "&lt;",
    ]
)


def comparison_of(pairs, limit=3, candidates=(6, 6), names=("before", "after")):
    """A comparison from (query, {text: (first rank, second rank)})."""
    compared = []
    for query, placed in pairs:
        hits = [
            ComparedHit(at, one_line(text), *ranks)
            for at, (text, ranks) in enumerate(placed.items())
        ]
        first, second = (
            sorted(
                (hit for hit in hits if (getattr(hit, rank) or limit + 1) <= limit),
                key=lambda hit, rank=rank: getattr(hit, rank),
            )
            for rank in ("first_rank", "second_rank")
        )
        ids = [hit.id for hit in first], [hit.id for hit in second]
        compared.append(
            ComparedQuery(
                one_line(query),
                tuple(first),
                tuple(second),
                overlap(*ids),
                rank_biased_overlap(*ids),
            )
        )
    return Comparison(names, limit, candidates, tuple(compared))


MOVED = comparison_of(
    [
        ("still", {"a": (1, 1), "b": (2, 2), "c": (3, 3)}),
        ("swapped", {"a": (1, 2), "b": (2, 1), "c": (3, 3)}),
        ("renewed", {"a": (1, 5), "b": (2, 2), "c": (3, None), "d": (6, 1), "e": (None, 3)}),
    ]
)


def printed(comparison, width=120):
    """What a terminal of that width shows."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(comparison)
    return console.file.getvalue()


@given(RANKINGS, RANKINGS, st.floats(0.05, 0.95))
def test_rank_biased_overlap_is_what_its_definition_sums_to(first, second, persistence):
    """The infinite sum (equation 4), with the agreement below the lists as the paper assumes it."""
    short, long = sorted((first, second), key=len)
    if not short:
        assert rank_biased_overlap(first, second, persistence) == (0.0 if long else 1.0)
        return
    s, length = len(short), len(long)
    at_s = len(set(short) & set(long[:s]))

    def agreement(depth):
        """Share of ids common to both rankings down to a rank."""
        seen = len(set(short[:depth]) & set(long[:depth]))
        if depth <= s:
            return seen / depth
        if depth <= length:
            return (seen + at_s * (depth - s) / s) / depth
        return agreement(length)

    expected = sum(
        (1 - persistence) * persistence ** (depth - 1) * agreement(depth) for depth in range(1, 800)
    )
    assert rank_biased_overlap(first, second, persistence) == pytest.approx(expected, abs=1e-9)


@given(RANKINGS, RANKINGS)
def test_alike_is_symmetric_within_bounds_and_sees_equal_and_disjoint(first, second):
    """1 for a ranking and itself, 0 for two that share nothing."""
    for measure in (overlap, rank_biased_overlap):
        assert measure(first, second) == measure(second, first)
        assert 0 <= measure(first, second) <= 1
        assert measure(first, first) == 1
        if first:
            assert measure(first, [ident + 100 for ident in first]) == 0


def test_the_top_weighs_more():
    """A change at rank 1 costs more than the same change at rank 7, while the overlap is equal."""
    ranking = list(range(8))
    at_top, below = [1, 0, *ranking[2:]], [*ranking[:6], 7, 6]
    assert rank_biased_overlap(ranking, at_top) < rank_biased_overlap(ranking, below) < 1
    assert overlap(ranking, at_top) == overlap(ranking, below) == 1


def test_the_summary_counts_what_changed():
    """One query as it was, one in another order, one with other hits."""
    assert MOVED.unchanged == 1
    assert MOVED.new_first_hits == 2
    assert MOVED.mean_overlap == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert [query.query for query in MOVED.by_change()] == ["renewed", "swapped", "still"]


def test_the_biggest_moves_are_the_greatest_ratios_of_ranks():
    """6 to 1 before 1 to 2; a query that did not change has none."""
    moves = [(query.query, hit.text) for query, hit in MOVED.biggest_moves()]
    assert moves == [("renewed", "d"), ("swapped", "b")]
    assert len(MOVED.biggest_moves(1)) == 1


def test_the_dict_is_json_and_has_each_hit_once():
    """With both ranks; None for what one side did not recall."""
    content = json.loads(json.dumps(MOVED.to_dict()))
    hits = content["queries"][2]["hits"]
    assert [hit["text"] for hit in hits] == ["d", "b", "e", "a", "c"]
    assert hits[2] == {"id": 4, "first_rank": None, "second_rank": 3, "text": "e"}
    assert content["summary"]["new_first_hits"] == 2


def test_the_table_shows_moves_in_both_directions():
    """At 80 columns as well, no line longer than the terminal."""
    shown = printed(MOVED, width=80)
    assert max(map(len, shown.splitlines())) <= 80
    assert "6 ▲5" in shown
    assert "1 ▼1" in shown
    assert "new" in shown
    assert "2 of 3" in shown


def test_a_long_list_of_queries_is_cut_and_says_so():
    """In the terminal and in a notebook; the page has them all."""
    many = comparison_of([(f"query {n}", {"a": (1, 2), "b": (2, 1)}) for n in range(30)])
    assert "and 10 more" in printed(many)
    assert "and 25 more" in many._repr_html_()
    assert many._repr_html_().count("<details") == 5


@given(TEXTS.filter(str.strip), TEXTS, TEXTS, TEXTS.filter(str.strip))
def test_no_text_is_markup_anywhere(query, a, b, name):
    """The page, the excerpt and the table show it as it is, and gain no element from it."""
    hits = {f"1{a}": (1, 2), f"2{b}": (2, 1), f"3{a}": (3, None)}
    comparison = comparison_of([(f"q{query}", hits)], names=(f"n{name}", "other"))
    plain = comparison_of([("q", {"1": (1, 2), "2": (2, 1), "3": (3, None)})], names=("n", "other"))
    for shown, without in (
        (comparison._repr_html_(), plain._repr_html_()),
        (page(comparison), page(plain)),
    ):
        read = Page(shown)
        assert read.tags == Page(without).tags
        for text in (f"q{query}", f"1{a}", f"2{b}", f"3{a}"):
            assert one_line(text) in read.texts
    table = printed(comparison, width=400)
    assert one_line(f"q{query}") in table
    assert one_line(f"1{a}") in table


def test_the_page_needs_nothing_from_outside():
    """No address in an attribute or a style, and a policy that forbids loading."""
    read = Page(page(MOVED))
    names = {name for _, name, _ in read.attributes}
    assert not names & {"src", "href", "xlink:href", "action", "srcset", "background", "data"}
    assert not any("://" in (value or "") for _, _, value in read.attributes)
    assert not any("url(" in style or "@import" in style for style in read.styles)
    assert any("default-src 'none'" in (value or "") for _, _, value in read.attributes)
    assert read.tags.count("details") == 3


def test_what_could_drive_a_terminal_is_left_out():
    """Escape sequences, line breaks, direction overrides and surrogates; joiners of emoji stay."""
    assert one_line("a\x1b[2Jb\r\nc\x07\u202ed\ud800") == "a [2Jb c d"
    assert one_line("👩\u200d🔬") == "👩\u200d🔬"
    assert shortened("abcdef", 4) == "abc…"
    assert shortened("abcd", 4) == "abcd"


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    """A folder in its place, a file in place of its folder."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "file" / "page.html"):
        with pytest.raises(InvalidInputError, match="cannot be written"):
            MOVED.save_html(path)
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["file", "folder"]
    MOVED.save_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text("utf-8") == page(MOVED)
