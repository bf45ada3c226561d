"""Passages made by rules from the training sets: what a question's words alone cannot tell apart.

*Echoes* repeat a question without an answer: bare, padded with boilerplate or with unrelated words,
as keywords, or as the text of other questions. *Changes* are a part of the passage that answers
with the roles of two names swapped, or with a name, a term, a number, an adjective or the polarity
changed; or a part of it that has no answer of the asked type. *Diluted* passages still answer: the
part that answers among unrelated sentences, or after the question. *Relations* are questions about
two names that a verb joins, for which the sentence with the names swapped answers the reverse.

Everything depends on the texts and a seed alone.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from py_rust_stemmers import SnowballStemmer

BOILERPLATE = (
    "Log in or register to post a reply.",
    "View the full solution with a free trial.",
    "Click here to read more.",
    "No answers yet. Be the first to respond!",
    "Share this question with your friends.",
    "Asked 3 years ago. Viewed 1,204 times.",
    "This question has been closed by the moderators.",
    "Subscribe for full access to all articles.",
    "Find out the answer to this and many other questions on our site.",
    "We use cookies to improve your experience. Read our privacy policy.",
    "Related questions: 12. Followers: 3. Report this post.",
    "Home > Questions > General knowledge > Page 4",
    "I have been wondering about this for a while. Can anybody help?",
    "Thanks in advance for any help you can give me.",
    "Let us know what you think in the comments below.",
    "Best answer: chosen by voters. Loading, please wait.",
    "Download the app to unlock the explanation.",
    "This page intentionally left blank.",
    "Copyright 2014. All rights reserved. Terms of use.",
    "Topic: frequently asked questions. Posted by admin on Monday.",
    "You have reached the limit of free pages this month.",
    "Search results for your query are shown here.",
    "In this article we will talk about it.",
    "Good question! Everybody asks it sooner or later.",
    "Watch the video to learn more about this topic.",
    "Add to favourites. Print this page. Send by e-mail.",
    "The answer is only visible to premium members.",
    "Quiz: choose the right option and press submit.",
)
ANTONYMS = (
    ("largest", "smallest"), ("larger", "smaller"), ("highest", "lowest"), ("higher", "lower"),
    ("first", "last"), ("before", "after"), ("older", "younger"), ("oldest", "youngest"),
    ("more", "less"), ("most", "least"), ("north", "south"), ("northern", "southern"),
    ("east", "west"), ("eastern", "western"), ("increase", "decrease"), ("increased", "decreased"),
    ("increases", "decreases"), ("hot", "cold"), ("longest", "shortest"), ("longer", "shorter"),
    ("fastest", "slowest"), ("faster", "slower"), ("best", "worst"), ("early", "late"),
    ("won", "lost"), ("win", "lose"), ("begin", "end"), ("began", "ended"), ("start", "finish"),
    ("above", "below"), ("inside", "outside"), ("male", "female"), ("father", "mother"),
    ("king", "queen"), ("son", "daughter"), ("husband", "wife"), ("brother", "sister"),
    ("buy", "sell"), ("open", "close"), ("upper", "lower"), ("left", "right"), ("old", "new"),
    ("strong", "weak"), ("heavy", "light"), ("warm", "cool"), ("rich", "poor"), ("high", "low"),
    ("maximum", "minimum"), ("major", "minor"), ("positive", "negative"), ("summer", "winter"),
    ("day", "night"), ("import", "export"), ("enable", "disable"), ("allow", "forbid"),
    ("acute", "chronic"), ("arrive", "leave"), ("arrived", "left"), ("born", "died"),
)  # fmt: skip
OPPOSITE = {a: b for pair in ANTONYMS for a, b in (pair, pair[::-1])}
STOP = frozenset(
    "a an the of in on at to for from by with and or but is are was were be been being do does did "
    "has have had can could will would shall should may might must what which who whom whose when "
    "where why how that this these those it its he she they them his her their you your i we our "
    "as if than then so not no there here about into over after before between during s t many "
    "much long old name type kind there's what's".split()
)
IRREGULAR = frozenset(
    "won beat lost took gave sold bought built wrote led met fought made found held left told "
    "taught brought chose drew fed hid hit hurt kept paid sent shot shook stole struck sued "
    "threw wed bit caught overthrew became followed saw knew understood freed".split()
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'“(\[]?[A-Z0-9a-z])")
_WORD = re.compile(r"[A-Za-z0-9']+")
_NUMBER = re.compile(r"\b\d[\d,]*(?:\.\d+)?\b")
_PART_OF_NAME = r"[A-Z][\w\u2019'-]+"
_NAME = re.compile(
    rf"\b{_PART_OF_NAME}(?:\s+(?:(?:of|the|de|van|von|du)\s+)?{_PART_OF_NAME}){{0,3}}"
)
# A noun that no further noun follows.
_NOUN = re.compile(
    r"\b(?:the|a|an) ([a-z]{3,})(?=[.,;:]|$| (?:of|in|on|at|to|for|from|by|with|and|or|but|is|are"
    r"|was|were|has|had|have|can|could|will|would|may|that|which|who|as|than|into|[a-z]+ed)\b)",
    re.IGNORECASE,
)
_AUXILIARY = re.compile(r"\b(is|are|was|were|can|could|will|would|should|did|does|do|has|have)\b")
_ASKS = re.compile(r"\b(who|what|which|when|where)\b", re.IGNORECASE)
_OPENERS = frozenset(
    "the a an in on at to for from by with and or but it he she they this that these those when "
    "where while after before during as if since although however there his her its their some "
    "many most all both one two three other another such each".split()
)

_stem = SnowballStemmer("english").stem_word


def words(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return _WORD.findall(text.lower())


def content(text: str) -> set[str]:
    """Stems of the words that mean something."""
    return {_stem(word) for word in words(text) if word not in STOP}


def sentences(text: str) -> list[str]:
    """Sentences, each of at least two words."""
    return [part for part in _SENTENCE.split(text.replace("\n", " ")) if len(part.split()) > 1]


@dataclass(slots=True)
class Sources:
    """What the rules draw from.

    Attributes:
        passages: to take unrelated text from.
        names: found in the passages of each set.
        siblings: words that are used like a word, nearest first.
    """

    passages: list[str]
    names: dict[str, list[str]]
    siblings: dict[str, list[str]]
    starts: dict[int, list[str]] = field(default_factory=dict)

    def unrelated_sentences(self, rng: random.Random, count: int) -> list[str]:
        """Sentences, each of another passage."""
        found: list[str] = []
        while len(found) < count:
            parts = sentences(rng.choice(self.passages))
            if parts and 4 <= len((part := rng.choice(parts)).split()) <= 40:
                found.append(part)
        return found

    def unrelated_words(self, rng: random.Random, count: int) -> str:
        """Words of other passages, in running order or not."""
        found: list[str] = []
        while len(found) < count:
            taken = rng.choice(self.passages).split()
            first = rng.randrange(max(1, len(taken) - count))
            found += taken[first : first + (count if rng.random() < 0.6 else 3)]
        found = found[:count]
        if rng.random() < 0.3:
            rng.shuffle(found)
        return " ".join(found)


def names_in(text: str) -> list[str]:
    """Capitalised names; a word that only opens a sentence is none."""
    return [
        name
        for name in _NAME.findall(text)
        if name.split()[0].lower() not in _OPENERS and name.split()[0].lower() not in STOP
    ]


def answering_part(query: str, passage: str, span: int = 1) -> str:
    """The sentence that shares most with the query, with ``span`` neighbours on both sides."""
    body = passage.rpartition("\n")[2]
    parts = sentences(body) or [body]
    asked = content(query)
    wants_number = bool(
        re.search(r"\b(when|how (many|much|long|old|far)|year|date)\b", query.lower())
    )
    scores = [
        len(asked & content(part))
        + 0.5 * (wants_number and bool(_NUMBER.search(part)))
        - 0.01 * len(part.split())
        for part in parts
    ]
    best = max(range(len(parts)), key=scores.__getitem__)
    return " ".join(parts[max(0, best - span) : best + span + 1])


# Echoes


def echo(query: str, near: list[str], sources: Sources, rng: random.Random) -> tuple[str, str]:
    """A text without an answer, and its kind."""
    asked = query if rng.random() < 0.7 else query.rstrip(" ?")
    if rng.random() < 0.4:
        asked = asked[:1].upper() + asked[1:]
    kind = rng.choices(
        ("bare", "boilerplate", "words", "question", "questions", "keywords"),
        (18, 20, 28, 18, 10, 6),
    )[0]
    if kind == "question" and near:
        return rng.choice(near), kind
    if kind == "questions" and near:
        listed = [asked, *rng.sample(near, min(len(near), rng.randint(1, 3)))]
        rng.shuffle(listed)
        return " ".join(listed), kind
    if kind == "keywords":
        found = [word for word in words(query) if word not in STOP] or words(query)
        found = found * rng.randint(1, 3)
        rng.shuffle(found)
        return " ".join(found), kind
    if kind == "boilerplate":
        pads = rng.sample(BOILERPLATE, rng.randint(1, 2))
        parts = [asked, *pads] if rng.random() < 0.8 else [*pads, asked]
        return " ".join(parts), kind
    if kind == "words":
        pad = sources.unrelated_words(rng, rng.randint(8, 70))
        return (f"{asked} {pad}" if rng.random() < 0.7 else f"{pad} {asked}"), kind
    if rng.random() < 0.15:
        return f"{asked} {asked}", "bare"
    return asked, "bare"


# Changes of the part that answers

Change = Callable[[str, str, Sources, str, random.Random], str | None]


def swap(text: str, first: str, second: str) -> str:
    """Both replaced by each other, wherever they stand."""
    pattern = re.compile(rf"\b({re.escape(first)}|{re.escape(second)})(?!\w)")
    swapped = pattern.sub(lambda found: second if found[0] == first else first, text)
    return swapped[:1].upper() + swapped[1:] if text[:1].isupper() else swapped


def roles(query: str, part: str, sources: Sources, source: str, rng: random.Random) -> str | None:
    """What is asked about and another name, or noun, of the same sentence change places."""
    asked = content(query)
    pairs = []
    for sentence in sentences(part) or [part]:
        for found in (names_in(sentence), _NOUN.findall(sentence)):
            known = [
                name for name in dict.fromkeys(found) if content(name) and content(name) <= asked
            ]
            new = [
                name for name in dict.fromkeys(found) if content(name) and not content(name) & asked
            ]
            pairs += [(a, b) for a in known for b in new if a not in b and b not in a]
    if not pairs:
        return None
    return swap(part, *rng.choice(pairs))


def name(query: str, part: str, sources: Sources, source: str, rng: random.Random) -> str | None:
    """A name that is asked about becomes another."""
    asked = content(query)
    known = [found for found in dict.fromkeys(names_in(part)) if content(found) & asked]
    others = sources.names.get(source)
    if not known or not others:
        return None
    old = rng.choice(known)
    for _ in range(20):
        new = rng.choice(others)
        if not content(new) & asked and len(new.split()) <= len(old.split()):
            return re.sub(rf"\b{re.escape(old)}\b", new, part)
    return None


def term(query: str, part: str, sources: Sources, source: str, rng: random.Random) -> str | None:
    """A term that is asked about becomes one that is used alike."""
    asked = {
        word
        for word in words(query)
        if word not in STOP
        and word in sources.siblings
        and not word.endswith(("s", "ed", "ing", "er", "est"))
    }
    known = [word for word in asked if re.search(rf"\b{word}\b", part, re.IGNORECASE)]
    if not known:
        return None
    old = rng.choice(sorted(known))
    new = rng.choice(sources.siblings[old][:6])

    def replaced(found: re.Match[str]) -> str:
        return new.capitalize() if found[0][0].isupper() else new

    return re.sub(rf"\b{old}(?=s?\b)", replaced, part, flags=re.IGNORECASE)


def number(query: str, part: str, sources: Sources, source: str, rng: random.Random) -> str | None:
    """A number that is asked about becomes another."""
    asked = set(_NUMBER.findall(query))
    known = [found for found in _NUMBER.findall(part) if found in asked]
    if not known:
        return None
    old = rng.choice(known)
    value = float(old.replace(",", ""))
    if value.is_integer() and 1000 <= value <= 2100 and "," not in old:
        new = str(int(value) + rng.choice([-30, -12, -10, -4, -3, -2, -1, 1, 2, 3, 5, 10, 20]))
    elif value.is_integer():
        new = str(max(1, int(value * rng.choice([0.5, 2, 3])) + rng.randint(1, 5)))
    else:
        new = f"{value * rng.choice([0.3, 0.6, 1.7, 2.4]):.1f}"
    return re.sub(rf"(?<![\d.,]){re.escape(old)}(?![\d])", new, part)


def opposite(
    query: str, part: str, sources: Sources, source: str, rng: random.Random
) -> str | None:
    """A word of the query that has an opposite becomes it."""
    known = [w for w in words(query) if w in OPPOSITE and re.search(rf"\b{w}\b", part, re.I)]
    if not known:
        return None
    old = rng.choice(known)
    return re.sub(rf"\b{old}\b", OPPOSITE[old], part, flags=re.IGNORECASE)


def negated(query: str, part: str, sources: Sources, source: str, rng: random.Random) -> str | None:
    """The sentence that answers is denied; not where yes or no is the answer."""
    if not _ASKS.search(query):
        return None
    sentence = answering_part(query, part, 0)
    if not (found := _AUXILIARY.search(sentence)) or re.search(r"\b(not|never|no)\b", sentence):
        return None
    word = rng.choice(("not", "not", "never"))
    changed = f"{sentence[: found.end()]} {word}{sentence[found.end() :]}"
    return part.replace(sentence, changed)


def untyped(query: str, part: str, sources: Sources, source: str, rng: random.Random) -> str | None:
    """Sentences of the passage that hold no number, or no name, where one is asked for."""
    asked = query.lower()
    if re.search(
        r"\b(when|how many|how much|how old|how long|how far|what year|what date)\b", asked
    ):
        fits = [s for s in sentences(part) if not re.search(NUMBERS, s.lower())]
    elif re.search(r"\b(who|whose|whom)\b", asked) and part != part.lower():
        fits = [s for s in sentences(part) if not names_in(s)]
    else:
        return None
    known = content(query)
    fits = [s for s in fits if len(s.split()) >= 5 and content(s) & known]
    return rng.choice(fits) if fits else None


NUMBERS = (
    r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|hundred|thousand|"
    r"million|billion|century|decade|year|month|day|half|several|few)"
)
CHANGES: dict[str, Change] = {
    "roles": roles,
    "number": number,
    "opposite": opposite,
    "untyped": untyped,
    "negated": negated,
    "name": name,
    "term": term,
}
#: How much more often a kind is tried first.
WEIGHTS = {
    "roles": 5, "number": 5, "opposite": 5, "untyped": 3, "negated": 1, "name": 2, "term": 2
}  # fmt: skip


def change(
    query: str, passage: str, sources: Sources, source: str, rng: random.Random
) -> tuple[str, str, str] | None:
    """The part that answers, the same changed so that it does not, and the kind."""
    kinds = list(CHANGES)
    order = sorted(kinds, key=lambda kind: -(rng.random() ** (1 / WEIGHTS[kind])))
    span = rng.choice((0, 0, 1))
    part = answering_part(query, passage, span)
    for kind in order:
        read = passage.rpartition("\n")[2] if kind == "untyped" else part
        made = CHANGES[kind](query, read, sources, source, rng)
        if made is not None and made.lower() != part.lower():
            return part, made, kind
    return None


# Passages that still answer


def diluted(query: str, passage: str, sources: Sources, rng: random.Random) -> tuple[str, str]:
    """The part that answers with what does not, and its kind."""
    part = answering_part(query, passage, rng.choice((0, 1, 1)))
    if rng.random() < 0.3:
        asked = query[:1].upper() + query[1:]
        return f"{asked} {part}", "asked and answered"
    before = sources.unrelated_sentences(rng, rng.choice((0, 0, 0, 1, 1, 2)))
    after = sources.unrelated_sentences(rng, rng.randint(1 if before else 2, 6))
    return " ".join([*before, part, *after]), "diluted"


# Relations


@dataclass(frozen=True, slots=True)
class Relation:
    """A question, the sentence that answers it, and the same with the names swapped."""

    query: str
    answer: str
    reverse: str


_JOINED = re.compile(
    rf"({_NAME.pattern}) ((?:was |were )?)([a-z]+)((?: by)?) (?:the )?({_NAME.pattern})"
)
_NOUNS_JOINED = re.compile(
    r"\b([Tt]he [a-z]{3,}) ()([a-z]+)() (the [a-z]{3,})(?=[.,;]|$| (?:and|but|who|with|in)\b)"
)
_THAN = re.compile(
    r"\b((?:[Tt]he )?[A-Za-z][\w-]+) (is|are|was|were) "
    r"((?:much |far |slightly )?(?:[a-z]+er|more [a-z]+|less [a-z]+)) than "
    r"((?:the )?[A-Za-z][\w-]+)\b"
)


def relations(passages: list[str], rng: random.Random, most: int) -> list[Relation]:
    """Questions both ways about the two names of a sentence that a verb joins."""
    found: list[Relation] = []
    seen: set[str] = set()
    order = list(range(len(passages)))
    rng.shuffle(order)
    for row in order:
        if len(found) >= most:
            break
        for sentence in sentences(passages[row]):
            if len(sentence.split()) > 45 or sentence in seen:
                continue
            for relation in _relations_of(sentence, rng):
                seen.add(sentence)
                found.append(relation)
    return found


def _relations_of(sentence: str, rng: random.Random) -> Iterator[Relation]:
    for match in (*_JOINED.finditer(sentence), *_NOUNS_JOINED.finditer(sentence)):
        first, was, verb, by, second = match.groups()
        passive = bool(was) and bool(by)
        if bool(was) != bool(by):
            continue
        if not (verb.endswith("ed") or verb in IRREGULAR or (passive and verb.endswith("en"))):
            continue
        opener = first.split()[0].lower()
        if opener != "the" and (opener in _OPENERS or opener in STOP):
            continue
        if not content(first) or not content(second) or content(first) & content(second):
            continue
        core = match[0] + "." if opener == "the" or rng.random() < 0.6 else sentence
        reverse = swap(core, first, second)
        if reverse == core or sorted(words(reverse)) != sorted(words(core)):
            continue
        lead = f"{was.strip()} {verb} by" if passive else verb
        word = rng.choice(("who", "who", "what", "which one"))
        for asked, answer, other in ((second, core, reverse), (first, reverse, core)):
            yield Relation(f"{word} {lead} {asked}", answer, other)
        return
    for match in _THAN.finditer(sentence):
        first, verb, more, second = match.groups()
        reverse = swap(match[0], first, second)
        if content(first) & content(second) or min(len(first), len(second)) < 4:
            continue
        if not content(first) or not content(second) or first in ("other", "rather"):
            continue
        if reverse == match[0]:
            continue
        core = match[0] + "."
        for asked, answer, other in ((second, core, reverse + "."), (first, reverse + ".", core)):
            yield Relation(f"what {verb} {more} than {asked}", answer, other)
        return


def names_by_set(passages: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Names in the passages (set, text), each once."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for source, text in passages:
        for each in names_in(text):
            if len(each) > 3:
                found[source][each] = None
    return {source: list(names) for source, names in found.items() if len(names) > 50}


_TYPED = re.compile(
    r"\b(who|whose|whom|when|where|which|how (many|much|old|long|far|tall|high|deep|fast|big)"
    r"|what (year|date|day|city|country|state|person|number|age|percentage))\b",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"(?:\b(?:in|on|at|of|about|around|by|since|from|until) )?"
    r"(?:\b(?:January|February|March|April|May|June|July|August|September|October|November"
    r"|December) )?\b\d[\d,.]*(?:st|nd|rd|th)?\b%?",
    re.IGNORECASE,
)
_VAGUE = ("somebody", "a man", "people", "they", "one of them", "something", "a place")


def removed(query: str, part: str, sources: Sources, source: str, rng: random.Random) -> str | None:
    """The sentence with all names and numbers that the query lacks taken out or made vague."""
    if not _TYPED.search(query):
        return None
    asked = content(query)
    changed = part
    for found in dict.fromkeys(names_in(part)):
        if not content(found) & asked:
            changed = re.sub(rf"\b{re.escape(found)}(?!\w)", rng.choice(_VAGUE), changed)
    changed = _COUNTED.sub(lambda hit: hit[0] if hit[0] in query else "", changed)
    changed = re.sub(r"\s+([,.;])", r"\1", re.sub(r"\s{2,}", " ", changed)).strip()
    return changed if changed != part else None


def flipped(query: str, part: str, changed: str, kind: str) -> str | None:
    """The query changed as the part that answers it was, so that the changed part answers it."""
    if kind == "negated":
        found = _AUXILIARY.search(query)
        if found is None or re.search(r"\bnot\b", query):
            return None
        return f"{query[: found.end()]} not{query[found.end() :]}"
    old, new = part.split(), changed.split()
    for tag, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "replace":
            before, after = (" ".join(words(" ".join(side))) for side in (old[a:b], new[c:d]))
            pattern = re.compile(rf"\b{re.escape(before)}\b", re.IGNORECASE)
            if before and after and pattern.search(query):
                return pattern.sub(after, query)
    return None
