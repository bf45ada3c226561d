"""Blocks of code in the pages of the manual, and the comparison of what they print."""

import re
from dataclasses import dataclass

FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
NUMBER = r"-?\d+\.\d+"
#: Scores of an int8 model differ by less between kinds of CPU, whose float units round otherwise.
ACROSS_CPUS = 0.03


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    place: str
    language: str
    code: str
    why: str | None  # it is not run


def blocks_of(page):
    text = page.read_text("utf-8")
    return [
        Block(
            f"{page.name}:{text.count(chr(10), 0, found.start('code'))}",
            found["language"],
            found["code"],
            found["why"],
        )
        for found in FENCE.finditer(text)
    ]


def require_same(shown, printed, place):
    """Words must be the same, decimal numbers to their printed digits.

    The last digit may be off by one, because it is rounded, and a number with several decimals by
    ACROSS_CPUS. ``...`` stands for anything, and all spaces are equal.
    """
    pattern = ""
    for part in re.split(rf"({NUMBER}|\.\.\.)", " ".join(shown.split())):
        if part == "...":
            pattern += ".*?"
        else:
            pattern += f"({NUMBER})" if re.fullmatch(NUMBER, part) else re.escape(part)
    found = re.fullmatch(pattern, " ".join(printed.split()))
    assert found, f"{place} shows\n{shown}\nbut it prints\n{printed}"
    for number, other in zip(re.findall(NUMBER, shown), found.groups(), strict=True):
        most = max(1.5 * 10 ** -len(number.partition(".")[2]), ACROSS_CPUS)
        assert abs(float(other) - float(number)) < most, (
            f"{place} shows {number}, but it prints {other} in\n{printed}"
        )
