"""Pairs of short passages from templates, of which one answers and the other repeats the question.

Superlatives and comparatives with their opposites, negation, the type of the answer, and roles.
Names and nouns come from the training sets, so that no pair of a kind repeats another's words.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

MOST_WORDS = 2  # of a name
SUPERLATIVES = (
    (("largest", "biggest", "greatest"), ("smallest", "tiniest", "littlest")),
    (("highest", "tallest", "loftiest"), ("lowest", "flattest")),
    (("fastest", "quickest", "swiftest"), ("slowest",)),
    (("oldest", "most ancient", "earliest"), ("newest", "most recent", "latest")),
    (("cheapest", "least expensive", "least costly"), ("most expensive", "dearest", "priciest")),
    (("longest", "most extended"), ("shortest", "briefest")),
    (("heaviest", "weightiest"), ("lightest", "least heavy")),
    (("hottest", "warmest"), ("coldest", "coolest", "chilliest")),
    (("deepest",), ("shallowest", "least deep")),
    (("strongest", "most powerful", "mightiest"), ("weakest", "feeblest")),
    (("richest", "wealthiest"), ("poorest", "neediest")),
    (("loudest", "noisiest"), ("quietest", "most silent")),
    (("youngest", "least old"), ("oldest", "most aged")),
    (("first", "earliest"), ("last", "final")),
    (("best", "finest", "top-rated"), ("worst", "poorest")),
    (("safest", "least dangerous"), ("most dangerous", "riskiest")),
    (("easiest", "simplest"), ("hardest", "most difficult")),
    (("northernmost", "most northerly"), ("southernmost", "most southerly")),
    (("driest", "most arid"), ("wettest", "rainiest")),
    (("busiest", "most crowded"), ("emptiest", "least visited")),
)
COMPARATIVES = (
    ("larger", "smaller"), ("taller", "shorter"), ("older", "younger"), ("faster", "slower"),
    ("stronger", "weaker"), ("richer", "poorer"), ("louder", "quieter"), ("deeper", "shallower"),
    ("wider", "narrower"), ("harder", "softer"), ("brighter", "darker"), ("cheaper", "dearer"),
    ("hotter", "colder"), ("more popular", "less popular"), ("more stable", "less stable"),
    ("denser", "thinner"), ("closer to the coast", "farther from the coast"),
    ("better known", "less known"), ("busier", "calmer"), ("earlier", "later"),
)  # fmt: skip
THINGS = (
    "lake", "road", "hotel", "school", "castle", "island", "glacier", "valley", "harbour", "engine",
    "library", "theatre", "stadium", "newspaper", "airline", "bank", "camera", "desert", "forest",
    "garden", "hospital", "laptop", "market", "mine", "opera", "prison", "railway", "temple",
    "tunnel", "village", "volcano", "waterfall", "winery", "zoo", "novel", "statue", "church",
)  # fmt: skip
CLASSES = (
    "plants", "fish", "insects", "cars", "phones", "cities", "companies", "drugs", "dogs", "stars",
    "printers", "novels", "diets", "bridges", "islands", "paints", "fabrics", "cheeses", "rocks",
    "engines", "airports", "schools", "apps", "games", "chairs", "soaps", "lamps", "wines",
)  # fmt: skip
PARTS = (
    "sugar", "a battery", "wings", "roots", "lead", "caffeine", "a screen", "thorns", "salt",
    "a museum", "windows", "a licence", "cotton", "a roof", "fat", "a garden", "a motor", "pockets",
    "a subscription", "lactose", "a university", "alcohol", "scales", "perfume", "a handle",
)  # fmt: skip
DEEDS = (
    "burn", "float in water", "sleep at night", "need much light", "rust in rain",
    "melt in the sun", "bite people", "run on petrol", "fade when washed", "open on Sundays",
    "charge a fee", "grow in sand", "hurt the skin", "work offline", "swim upstream",
    "ship abroad", "survive frost", "accept cash", "hunt in groups",
)  # fmt: skip
TRAITS = (
    ("edible", "can be eaten", "must not be eaten"),
    ("poisonous", "contain a strong poison", "are harmless"),
    ("waterproof", "keep water out", "let water in"),
    ("expensive", "cost a fortune", "cost next to nothing"),
    ("dangerous", "hurt many people", "have never hurt anybody"),
    ("rare", "are hardly ever seen", "are seen everywhere"),
    ("legal", "are allowed by law", "are banned by law"),
    ("free", "cost nothing", "must be paid for"),
    ("noisy", "can be heard from afar", "make no sound"),
    ("recyclable", "can be used again", "end up as waste"),
    ("transparent", "let light through", "let no light through"),
    ("flammable", "catch fire at once", "do not catch fire"),
)
VERBS = (
    "built", "designed", "opened", "bought", "sold", "restored", "burned down", "photographed",
    "closed", "inherited", "described", "found", "lost", "visited", "named", "repaired",
    "inspected",
)  # fmt: skip
ACTS = (
    ("praised", "was praised by"), ("betrayed", "was betrayed by"), ("followed", "was followed by"),
    ("trained", "was trained by"), ("robbed", "was robbed by"), ("married", "was married by"),
    ("attacked", "was attacked by"), ("replaced", "was replaced by"), ("saved", "was saved by"),
    ("interviewed", "was interviewed by"), ("accused", "was accused by"),
    ("helped", "was helped by"), ("arrested", "was arrested by"), ("cheated", "was cheated by"),
    ("paid", "was paid by"), ("fired", "was fired by"), ("kissed", "was kissed by"),
    ("elected", "was elected by"), ("blamed", "was blamed by"), ("cured", "was cured by"),
    ("influenced", "was influenced by"), ("acquired", "was acquired by"),
    ("outlived", "was outlived by"), ("admired", "was admired by"), ("contains", "is part of"),
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
MEASURES = (
    ("how tall is", "{n} metres", "rises {n} metres", "is tall and stands near the river"),
    ("how heavy is", "{n} tons", "weighs {n} tons", "is heavy and hard to move"),
    ("how old is", "{n} years", "has stood for {n} years", "is old and much loved"),
    ("how long is", "{n} kilometres", "stretches over {n} kilometres", "is long and has no end"),
    ("how deep is", "{n} feet", "goes down {n} feet", "is deep and dark"),
    ("how far away is", "{n} miles", "lies {n} miles from here", "is far away from everything"),
    ("how many people work at", "{n}", "has a staff of {n}", "is where people like to work"),
    ("how much does it cost to enter", "{n} euros", "asks {n} euros at the gate",
     "is worth what it costs to enter"),
    ("how many rooms are in", "{n}", "has {n} rooms", "is known for the rooms in it"),
    ("how hot does it get in", "{n} degrees", "reaches {n} degrees in summer",
     "is a place where it gets hot"),
    ("what is the speed of", "{n} km per hour", "moves at {n} km per hour",
     "is famous for its speed"),
)  # fmt: skip
REASONS = (
    "the money had run out", "the roof leaked", "nobody came any more", "a storm was near",
    "the owner had died", "the law had changed", "the ground was too soft", "prices had doubled",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Minimal:
    """A question, what answers it, and what does not."""

    query: str
    better: str
    worse: str
    kind: str


@dataclass(slots=True)
class Words:
    """What the templates are filled with."""

    names: list[str]
    rng: random.Random

    def name(self) -> str:
        """A name."""
        return self.rng.choice(self.names)

    def two(self) -> tuple[str, str]:
        """Two names without a word in common."""
        first = self.name()
        while set(first.split()) & set((second := self.name()).split()):
            pass
        return first, second

    def thing(self) -> str:
        """Something named: "the Ashford library"."""
        return f"the {self.name()} {self.rng.choice(THINGS)}"

    def date(self) -> str:
        """A date, or a year."""
        year = self.rng.randint(1700, 2024)
        day = f"{self.rng.randint(1, 28)} {self.rng.choice(MONTHS)} {year}"
        return self.rng.choice((f"in {year}", f"on {day}", f"in the summer of {year}"))


def capital(text: str) -> str:
    """With a capital at the start and a full stop at the end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def superlative(w: Words) -> Minimal:
    """The largest, and the smallest instead."""
    rng = w.rng
    sides = rng.sample(rng.choice(SUPERLATIVES), 2)
    place, (one, other), thing = w.name(), w.two(), rng.choice(THINGS)
    asked = rng.choice(sides[0])
    query = rng.choice((f"{asked} {thing} in {place}", f"what is the {asked} {thing} in {place}"))
    said = rng.choice(sides[0])
    where = rng.choice((f" in {place}", f" of {place}", ""))
    better = rng.choice(
        (
            f"{one} is the {said} {thing}{where}",
            f"no {thing}{where} comes before {one}, the {said} of all",
            f"of all of them, {one} is the {said}",
        )
    )
    worse = f"{other} is the {rng.choice(sides[1])} {thing} in {place}"
    if rng.random() < 0.3:
        worse = f"the {rng.choice(sides[1])} {thing} in {place} is {other}"
    return Minimal(query, capital(better), capital(worse), "superlative")


def comparative(w: Words) -> Minimal:
    """What is larger than a thing, and what it is larger than."""
    rng = w.rng
    more, less = rng.sample(rng.choice(COMPARATIVES), 2)
    (one, other), asked = w.two(), rng.choice(("what is", "which one is", "who is"))
    better = f"{one} is {more} than {other}"
    if rng.random() < 0.35:
        better = f"{other} is {less} than {one}"
    worse = f"{other} is {more} than {rng.choice((one, w.name()))}"
    return Minimal(f"{asked} {more} than {other}", capital(better), capital(worse), "comparative")


def direction(w: Words) -> Minimal:
    """Before and after, north and south of."""
    rng = w.rng
    pairs = (
        ("came before", "came after"),
        ("came after", "came before"),
        ("lies to the north of", "lies to the south of"),
        ("lies to the west of", "lies to the east of"),
        ("hangs above", "hangs below"),
        ("was built inside", "was built outside"),
    )
    said, opposite = rng.choice(pairs)
    (one, other), third = w.two(), w.name()
    better = f"{other} {opposite} {one}" if rng.random() < 0.4 else f"{one} {said} {other}"
    worse = rng.choice((f"{third} {opposite} {other}", f"{other} {said} {third}"))
    return Minimal(f"what {said} {other}", capital(better), capital(worse), "direction")


def without(w: Words) -> Minimal:
    """Things with a part and without."""
    rng = w.rng
    kind, part, (a, b), (c, d) = rng.choice(CLASSES), rng.choice(PARTS), w.two(), w.two()
    bare = part.removeprefix("a ")
    lack = rng.choice(
        (f"have no {bare}", f"do not have {part}", f"lack {part}", f"come without {part}",
         f"are free of {bare}")
    )  # fmt: skip
    have = rng.choice((f"have {part}", f"come with {part}", f"contain {part}", f"need {part}"))
    if rng.random() < 0.5:
        query = rng.choice((f"{kind} without {part}", f"which {kind} have no {bare}"))
        better, worse = f"{a} and {b} {lack}", f"{c} and {d} are {kind} with {part}"
    else:
        query = rng.choice((f"{kind} with {part}", f"which {kind} have {part}"))
        better, worse = f"{a} and {b} {have}", f"{c} and {d} are {kind} without {part}"
    if rng.random() < 0.3:
        better = f"{better.replace(' and ', ' as well as ', 1)}, as most {kind} of today"
    return Minimal(query, capital(better), capital(worse), "without")


def not_done(w: Words) -> Minimal:
    """What does something and what does not."""
    rng = w.rng
    kind, does, (a, b), (c, d) = rng.choice(CLASSES), rng.choice(DEEDS), w.two(), w.two()
    never = rng.choice(
        (f"do not {does}", f"never {does}", f"are unable to {does}", f"cannot {does}")
    )
    if rng.random() < 0.55:
        query = rng.choice((f"{kind} that do not {does}", f"which {kind} cannot {does}"))
        better, worse = f"{a} and {b} {never}", f"{c} and {d} are {kind} that {does}"
    else:
        query = rng.choice((f"{kind} that {does}", f"which {kind} {does}"))
        better, worse = f"{a} and {b} {does}", f"{c} and {d} are {kind} that do not {does}"
    return Minimal(query, capital(better), capital(worse), "not done")


def trait(w: Words) -> Minimal:
    """What is so and what is not, in other words."""
    rng = w.rng
    kind, (said, so, not_so), (a, b), (c, d) = (
        rng.choice(CLASSES), rng.choice(TRAITS), w.two(), w.two()
    )  # fmt: skip
    if rng.random() < 0.55:
        query = rng.choice((f"which {kind} are not {said}", f"{kind} that are not {said}"))
        better, worse = f"{a} and {b} {not_so}", f"{c} and {d} are {said} {kind}"
    else:
        query = rng.choice((f"which {kind} are {said}", f"{said} {kind}"))
        better, worse = f"{a} and {b} {so}", f"{c} and {d} are {kind} that are not {said}"
    return Minimal(query, capital(better), capital(worse), "trait")


def typed(w: Words) -> Minimal:
    """Who, when, where or why, and one of the others."""
    rng = w.rng
    verb, person, place, thing = rng.choice(VERBS), w.name(), w.name(), w.thing()
    when, why = w.date(), rng.choice(REASONS)
    facts = {
        "who": (f"who {verb} {thing}", f"{person} {verb} it", f"it was {person}"),
        "when": (f"when was {thing} {verb}", f"it was {verb} {when}", f"this happened {when}"),
        "why": (f"why was {thing} {verb}", f"it was {verb} because {why}", f"the reason was that "
                f"{why}"),
    }  # fmt: skip
    repeats = {
        "who": f"{thing} was {verb} by {person}",
        "when": f"{thing} was {verb} {when}",
        "why": f"{thing} was {verb} because {why}",
        "where": f"{thing} was {verb} near {place}",
        "none": f"{thing} was {verb}, as everybody in {place} knows",
    }
    asked = rng.choice(list(facts))
    query, *short = facts[asked]
    better = repeats[asked] if rng.random() < 0.5 else rng.choice(short)
    worse = repeats[rng.choice([kind for kind in repeats if kind != asked])]
    return Minimal(query, capital(better), capital(worse), "typed")


def measured(w: Words) -> Minimal:
    """A number where one is asked for, and none."""
    rng = w.rng
    asked, short, full, vague = rng.choice(MEASURES)
    thing, number = w.thing(), str(rng.choice((rng.randint(3, 99), rng.randint(100, 4000))))
    better = rng.choice((f"{thing} {full}", f"it {full}", f"{short}", f"it is {short}"))
    better = better.format(n=number)
    worse = f"{thing} {vague}"
    return Minimal(f"{asked} {thing}", capital(better), capital(worse), "measured")


def role(w: Words) -> Minimal:
    """Who did it, and to whom it was done."""
    rng = w.rng
    act, passive = rng.choice(ACTS)
    one, other = w.two()
    tail = rng.choice(("", "", f" {w.date()}", f" near {w.name()}"))
    if rng.random() < 0.5:
        query = f"who {act} {other}"
    else:
        query = f"who {passive} {one}"
        one, other, act, passive = other, one, passive, act
    forward = rng.choice((f"{one} {act} {other}", f"{other} {passive} {one}"))
    back = rng.choice((f"{other} {act} {one}", f"{one} {passive} {other}"))
    return Minimal(query, capital(forward + tail), capital(back + tail), "role")


def journey(w: Words) -> Minimal:
    """From one place to another, and back."""
    rng = w.rng
    one, other = w.two()
    by = rng.choice(("bus", "ferry", "train", "letter", "parcel", "road", "coach"))
    query = rng.choice((f"{by} from {one} to {other}", f"{one} to {other} {by}"))

    def said(first: str, second: str) -> str:
        return rng.choice(
            (
                f"the {by} starts in {first} and ends in {second}",
                f"take the {by} from {first} to {second}",
                f"the {by} comes to {second} from {first}",
            )
        )

    return Minimal(query, capital(said(one, other)), capital(said(other, one)), "journey")


MAKERS: tuple[Callable[[Words], Minimal], ...] = (
    superlative, comparative, direction, without, not_done, trait, typed, typed, measured, role,
    role, journey,
)  # fmt: skip


def minimal_pairs(names: list[str], count: int, rng: random.Random) -> list[Minimal]:
    """So many, kind by kind."""
    fits = dict.fromkeys(name for name in names if "\n" not in name)
    names = [name for name in fits if len(name.split()) <= MOST_WORDS]
    fill = Words(names, rng)
    return [MAKERS[at % len(MAKERS)](fill) for at in range(count)]
