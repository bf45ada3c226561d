"""Questions from templates with a passage that answers and some that repeat the words and do not.

Who did what to whom, what lacks or does not do something, what is more or less than another, and
which kind of answer is asked for. Beyond ``minimal.py``, a template is filled anew at every step,
in many wordings, and may stand among sentences of other texts. The kinds of ``UNSEEN`` are never
trained on: they show whether what was learned holds for wordings that were not seen.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import minimal
from minimal import MONTHS, REASONS, THINGS
from rules import BOILERPLATE

TRANSITIVE = (  # base, past, participle
    "accompany accompanied accompanied", "admire admired admired", "advise advised advised",
    "arrest arrested arrested", "assist assisted assisted", "attack attacked attacked",
    "avoid avoided avoided", "ban banned banned", "betray betrayed betrayed",
    "blame blamed blamed", "bribe bribed bribed", "call called called", "capture captured captured",
    "carry carried carried", "catch caught caught", "challenge challenged challenged",
    "cheat cheated cheated", "choose chose chosen", "comfort comforted comforted",
    "copy copied copied", "criticise criticised criticised", "cure cured cured",
    "deceive deceived deceived", "defend defended defended", "drive drove driven",
    "elect elected elected", "employ employed employed", "entertain entertained entertained",
    "escort escorted escorted", "examine examined examined", "fear feared feared",
    "find found found", "fire fired fired", "follow followed followed", "forgive forgave forgiven",
    "frighten frightened frightened", "greet greeted greeted", "guard guarded guarded",
    "guide guided guided", "hate hated hated", "help helped helped", "hide hid hidden",
    "hire hired hired", "hug hugged hugged", "imitate imitated imitated",
    "inspire inspired inspired", "insult insulted insulted", "interview interviewed interviewed",
    "invite invited invited", "kick kicked kicked", "kiss kissed kissed", "lift lifted lifted",
    "love loved loved", "marry married married", "mention mentioned mentioned",
    "mock mocked mocked", "nominate nominated nominated", "nurse nursed nursed",
    "obey obeyed obeyed", "outrun outran outrun", "overtake overtook overtaken",
    "paint painted painted", "pay paid paid", "persuade persuaded persuaded", "phone phoned phoned",
    "photograph photographed photographed", "poison poisoned poisoned", "praise praised praised",
    "promote promoted promoted", "protect protected protected", "punish punished punished",
    "push pushed pushed", "quote quoted quoted", "raise raised raised", "replace replaced replaced",
    "report reported reported", "respect respected respected", "reward rewarded rewarded",
    "rob robbed robbed", "save saved saved", "scold scolded scolded", "see saw seen",
    "serve served served", "shelter sheltered sheltered", "shoot shot shot", "spot spotted spotted",
    "startle startled startled", "supply supplied supplied", "support supported supported",
    "surprise surprised surprised", "teach taught taught", "thank thanked thanked",
    "threaten threatened threatened", "train trained trained", "trust trusted trusted",
    "understand understood understood", "visit visited visited", "wake woke woken",
    "warn warned warned", "watch watched watched", "welcome welcomed welcomed",
)  # fmt: skip
OF_GROUPS = (  # what companies, teams and states do to each other
    "acquire acquired acquired", "annex annexed annexed", "back backed backed",
    "copy copied copied", "conquer conquered conquered", "defeat defeated defeated",
    "finance financed financed", "found founded founded", "fund funded funded",
    "govern governed governed", "invade invaded invaded", "liberate liberated liberated",
    "occupy occupied occupied", "outbid outbid outbid", "overtake overtook overtaken",
    "own owned owned", "publish published published", "recognise recognised recognised",
    "relegate relegated relegated", "replace replaced replaced", "rule ruled ruled",
    "sponsor sponsored sponsored", "supply supplied supplied", "swallow swallowed swallowed",
    "rival rivalled rivalled", "trounce trounced trounced",
)  # fmt: skip
IN_NATURE = (  # present, third person plural
    "pollinate pollinated", "hunt hunted", "host hosted", "infect infected", "shade shaded",
    "protect protected", "clean cleaned", "imitate imitated", "transport transported",
    "outnumber outnumbered", "destroy destroyed", "absorb absorbed", "attract attracted",
    "repel repelled", "digest digested", "displace displaced", "fertilise fertilised",
)  # fmt: skip
SPECIES = (
    "wasps", "beetles", "sparrows", "mosses", "ferns", "owls", "snails", "moths", "crabs", "seals",
    "foxes", "hedgehogs", "lizards", "bats", "oaks", "orchids", "mushrooms", "bacteria", "viruses",
    "worms", "trout", "herons", "ants", "ticks", "hares", "weasels", "plankton", "sponges",
    "corals", "mosquitoes", "frogs", "pines", "nettles", "geese", "otters", "algae", "shrews",
)  # fmt: skip
PEOPLE = (
    "baker", "banker", "barber", "bishop", "boxer", "butler", "captain", "carpenter", "clerk",
    "coach", "colonel", "cook", "dancer", "dentist", "detective", "driver", "duke", "editor",
    "engineer", "farmer", "gardener", "general", "goalkeeper", "governor", "guard", "hunter",
    "inventor", "judge", "king", "lawyer", "librarian", "mayor", "merchant", "miller", "minister",
    "monk", "neighbour", "nephew", "novelist", "nurse", "painter", "patient", "pianist", "pilot",
    "poet", "porter", "priest", "prince", "professor", "queen", "referee", "reporter", "secretary",
    "senator", "shepherd", "singer", "smith", "soldier", "spy", "student", "surgeon", "tailor",
    "thief", "tourist", "trader", "vicar", "waiter", "witness", "woman", "boy", "girl", "uncle",
)  # fmt: skip
ANIMALS = (
    "horse", "goat", "wolf", "bear", "snake", "eagle", "rabbit", "mouse", "tiger", "monkey",
    "parrot", "donkey", "bull", "swan", "goose", "turtle", "elephant", "hawk", "lynx", "camel",
)  # fmt: skip
FIRST_NAMES = (
    "Anna", "Boris", "Carla", "David", "Elena", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Karin",
    "Leo", "Maria", "Nils", "Olga", "Pablo", "Rosa", "Simon", "Tara", "Ursula", "Victor", "Wendy",
    "Yusuf", "Zoe", "Amir", "Bella", "Colin", "Dora", "Emil", "Fatima", "George", "Helen", "Ivan",
)  # fmt: skip
RELATIONS = (  # A is the first of B, B is the second of A
    ("teacher", "pupil"), ("employer", "employee"), ("landlord", "tenant"), ("mentor", "protégé"),
    ("doctor", "patient"), ("lawyer", "client"), ("owner", "tenant"), ("host", "guest"),
    ("successor", "predecessor"), ("boss", "assistant"), ("creditor", "debtor"),
    ("commander", "subordinate"), ("trainer", "trainee"), ("author", "translator"),
    ("supplier", "customer"), ("parent company", "subsidiary"), ("seller", "buyer"),
)  # fmt: skip
KINSHIP = (
    ("father", "child"), ("mother", "child"), ("uncle", "nephew"), ("aunt", "niece"),
    ("grandmother", "grandchild"), ("godfather", "godchild"), ("stepfather", "stepdaughter"),
    ("ancestor", "descendant"), ("older brother", "younger brother"),
)  # fmt: skip
GIVING = (  # base, past, passive with "to"
    ("give", "gave", "given"), ("send", "sent", "sent"), ("lend", "lent", "lent"),
    ("sell", "sold", "sold"), ("hand", "handed", "handed"), ("show", "showed", "shown"),
    ("offer", "offered", "offered"), ("leave", "left", "left"), ("award", "awarded", "awarded"),
)  # fmt: skip
GIFTS = (
    "house", "letter", "ring", "painting", "horse", "book", "piano", "boat", "map", "sword",
    "watch", "medal", "diary", "key", "garden", "violin", "ticket", "camera", "secret recipe",
    "loan",
)  # fmt: skip
BOTH_WAYS = (  # ask, say it, with {a} and {b} that must not change places
    (("{a} to {b} dictionary", "translate {a} into {b}", "translator from {a} to {b}"),
     ("it turns {a} words into {b}", "whoever writes {a} gets the {b} text", "from {a} into {b}"),
     "Finnish Welsh Swahili Basque Hindi Thai Latin Greek Danish Dutch Arabic Polish Turkish"),
    (("change {a} into {b}", "exchange {a} for {b}", "how many {b} do I get for my {a}"),
     ("pay in {a} and you receive {b}", "{b} are handed out for {a}", "hand in {a}, take {b}"),
     "dollars euros pesos yen francs pounds rupees crowns shillings rubles"),
    (("export {a} as {b}", "save a {a} file as {b}", "turn {a} into {b}"),
     ("opens {a} and writes {b}", "reads {a}; its output is {b}", "makes {b} out of {a}"),
     "PDF HTML PNG Word Excel JSON XML LaTeX MP3 SVG Markdown CSV"),
    (("how to make {b} from {a}", "{b} made from {a}", "turn {a} into {b}"),
     ("{a} becomes {b} when it is worked long enough", "out of {a} comes {b}",
      "{b} is what is left of {a} in the end"),
     "milk cheese wool felt flour dough juice wine clay brick sand glass cream butter paper pulp"),
    (("flights from {a} to {b}", "driving from {a} to {b}", "way from {a} to {b}"),
     ("leaves {a} and arrives in {b}", "{b} is reached from {a} within the day",
      "starting in {a}, one ends in {b}"),
     "Oslo Madrid Cairo Lima Delhi Tokyo Boston Prague Athens Dublin Vienna Nairobi Perth Quebec"),
    (("does {a} cause {b}", "{b} caused by {a}", "can {a} lead to {b}"),
     ("{a} brings on {b}", "{b} may follow from {a}", "whoever has {a} may get {b}"),
     "stress insomnia obesity diabetes anaemia fatigue asthma fever infection pain anxiety gout"),
)  # fmt: skip
DEGREES = (  # adjective, comparative, its opposite's, verb of the first, verb of the second
    ("heavy", "heavier", "lighter", "outweighs", "weighs less than"),
    ("tall", "taller", "shorter", "towers over", "does not reach as high as"),
    ("big", "bigger", "smaller", "exceeds the size of", "does not reach the size of"),
    ("fast", "faster", "slower", "outruns", "cannot keep up with"),
    ("expensive", "more expensive", "cheaper", "costs more than", "costs less than"),
    ("old", "older", "younger", "has been around longer than", "was born after"),
    ("long", "longer", "shorter", "goes on beyond", "ends before"),
    ("strong", "stronger", "weaker", "overpowers", "gives in to"),
    ("hot", "hotter", "cooler", "reaches higher temperatures than", "stays cooler than"),
    ("dense", "denser", "less dense", "packs more into the same space than", "is thinner than"),
    ("popular", "more popular", "less popular", "draws more people than",
     "draws fewer people than"),
    ("bright", "brighter", "dimmer", "outshines", "gives less light than"),
    ("loud", "louder", "quieter", "drowns out", "makes less noise than"),
    ("rich", "richer", "poorer", "has more money than", "has less money than"),
    ("deep", "deeper", "shallower", "goes further down than", "does not go as far down as"),
    ("hard", "harder", "softer", "scratches", "is scratched by"),
    ("wide", "wider", "narrower", "spreads further than", "takes less room than"),
    ("dangerous", "more dangerous", "safer", "kills more people than", "kills fewer people than"),
    ("common", "more common", "rarer", "is found more often than", "is found less often than"),
    ("sweet", "sweeter", "less sweet", "has more sugar than", "has less sugar than"),
)  # fmt: skip
MORE_OR_LESS = (  # ask, and what does so
    ("increase", "raises", "lowers"), ("improve", "makes better", "makes worse"),
    ("speed up", "quickens", "slows"), ("reduce", "lowers", "raises"),
    ("strengthen", "makes stronger", "weakens"), ("lower", "brings down", "drives up"),
    ("slow down", "holds back", "hastens"), ("prevent", "keeps away", "brings about"),
    ("cause", "brings about", "keeps away"), ("relieve", "eases", "makes worse"),
    ("start", "sets off", "brings to an end"), ("end", "puts a stop to", "sets off"),
    ("boost", "lifts", "cuts"), ("shrink", "makes smaller", "makes larger"),
    ("attract", "draws", "drives away"), ("get rid of", "drives out", "attracts"),
)  # fmt: skip
CHANGING = (
    "appetite", "traffic", "inflation", "unemployment", "crime", "fertility", "body weight",
    "cholesterol", "heart rate", "memory", "sleep", "rust", "erosion", "mould", "noise", "demand",
    "soil quality", "battery life", "page loading", "muscle growth", "hair loss", "acne",
    "migraine", "coughing", "boredom", "mosquitoes", "weeds", "tourism", "trust", "tooth decay",
)  # fmt: skip
MEANS = (
    "a short walk", "cold water", "green tea", "a new tax", "more light", "olive oil", "ginger",
    "regular training", "a warm bath", "strict rules", "fresh air", "loud music", "zinc",
    "fasting", "better lighting", "vinegar", "garlic", "a strong wind", "sugar", "dry heat",
    "compression", "a longer pause", "lower rent", "peppermint", "sand", "competition",
)  # fmt: skip
LACKS = (  # a class, and properties: with it, without it
    ("hotels", "a pool", "a lift", "parking", "air conditioning", "a restaurant", "wifi"),
    ("recipes", "eggs", "butter", "onions", "nuts", "flour", "cream", "yeast"),
    ("animals", "a tail", "teeth", "lungs", "a heart", "bones", "fur", "eyes", "legs"),
    ("countries", "a coast", "an army", "a king", "an airport", "income tax", "railways", "rivers"),
    ("jobs", "a degree", "experience", "night shifts", "travel", "a licence", "deadlines"),
    ("languages", "articles", "cases", "grammatical gender", "tenses", "an alphabet", "tones"),
    ("phones", "a camera", "a headphone jack", "buttons", "a contract", "GPS", "a charger"),
    ("soaps", "palm oil", "perfume", "dyes", "alcohol", "preservatives", "plastic"),
    ("planes", "a propeller", "windows", "a pilot", "landing gear", "seats", "an engine"),
    ("programs", "a graphical interface", "advertisements", "a login", "bugs", "telemetry"),
    ("houses", "a cellar", "a chimney", "stairs", "heating", "a garden", "a balcony"),
    ("drinks", "bubbles", "sweeteners", "colouring", "ice", "vitamins", "milk"),
    ("plants", "flowers", "seeds", "leaves", "chlorophyll", "a stem", "pollen"),
    ("schools", "uniforms", "homework", "exams", "fees", "a canteen", "grades"),
    ("religions", "a god", "priests", "holy books", "prayers", "temples", "images"),
)  # fmt: skip
DEEDS = (  # does, does not in other words, does in other words
    ("cross borders", "stay within their country", "travel abroad"),
    ("dissolve in water", "stay whole when wet", "vanish in water"),
    ("need a password", "open without any code", "ask for a secret code"),
    ("lay eggs", "give birth to live young", "hatch from a shell"),
    ("conduct electricity", "stop any current", "let a current through"),
    ("live in groups", "live alone", "gather in herds"),
    ("hibernate", "stay awake all winter", "sleep through the cold months"),
    ("expire", "stay valid for ever", "run out after a year"),
    ("pay taxes", "are exempt from any levy", "owe the state a share"),
    ("eat meat", "live on grass and leaves", "devour other animals"),
    ("work without power", "stop when the plug is pulled", "go on during a blackout"),
    ("change colour", "look the same all year", "turn from green to brown"),
    ("speak in public", "keep silent before others", "give lectures"),
    ("allow pets", "turn away anybody with a dog", "welcome dogs"),
    ("break easily", "withstand any blow", "shatter at a touch"),
    ("smell", "are odourless", "can be noticed by the nose"),
    ("vote", "are kept from the ballot", "take part in elections"),
    ("support colour printing", "print in black and white alone", "print in full colour"),
    ("close at night", "are open round the clock", "shut their doors at ten"),
    ("contain caffeine", "let you sleep", "keep you awake by a stimulant"),
    ("tolerate shade", "die without full sun", "grow under trees"),
    ("stain", "leave no trace on cloth", "leave spots that do not come out"),
    ("deliver on Sundays", "rest at the weekend", "bring parcels every day"),
    ("damage the skin", "are gentle to the body", "leave burns"),
    ("sink", "stay on the surface", "go to the bottom"),
)  # fmt: skip
DOERS = (
    "birds", "metals", "shops", "people", "trees", "machines", "fish", "materials", "tickets",
    "medicines", "clubs", "citizens", "companies", "restaurants", "devices", "mammals", "spiders",
)  # fmt: skip
ALLOWED = (  # who should or may, the deed, yes and no in other words
    ("eat raw eggs", "may have them", "are advised against it"),
    ("enter the building", "have free access", "are stopped at the door"),
    ("drive at night", "may take the wheel after dark", "must leave the car after sunset"),
    ("take this medicine", "can be given it", "are at risk from it"),
    ("donate blood", "are welcome as donors", "are turned away"),
    ("swim here", "may go into the water", "have to stay out of the water"),
    ("sign the contract", "have the right to put their name to it", "lack the power to do so"),
    ("fly", "may board", "have to stay on the ground"),
    ("use the service", "can make use of it", "are shut out"),
    ("apply", "can hand in a form", "are ruled out"),
    ("drink this water", "can do so safely", "would become ill"),
)  # fmt: skip
GROUPS = (
    "children under six", "pregnant women", "tourists", "members", "residents", "people with gout",
    "students", "foreigners", "the elderly", "nurses", "beginners", "asthmatics", "smokers",
    "patients with a fever", "drivers", "veterans", "visitors", "teachers", "minors", "guests",
)  # fmt: skip
ATTRIBUTES = (  # question, answers, what repeats the question without an answer; {t} is the thing
    ("what colour is {t}", ("it was done in {v}", "{v}", "{t} shines in {v}"),
     ("{t} has a colour that visitors like", "the colour of {t} has been changed twice"),
     "red blue yellow green white black purple orange grey pink"),
    ("what is {t} made of", ("{v} was used", "it consists of {v}", "mostly {v}"),
     ("{t} was made by hand", "{t} is well made and was made long ago"),
     "wood steel marble glass concrete bronze brick plastic leather granite copper"),
    ("which language is spoken at {t}", ("people there talk {v}", "{v}", "one hears {v} there"),
     ("{t} is where language is spoken freely", "the language spoken at {t} sounds odd"),
     "French Russian Hindi Italian Korean Greek Portuguese Dutch Arabic"),
    ("on which day does {t} open", ("it opens on {v}", "every {v}", "the doors open on {v}"),
     ("{t} does open with a ceremony", "the day on which {t} opens is a holiday"),
     "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    ("who runs {t}", ("{p} is in charge", "{p}", "the manager is {p}"),
     ("{t} runs well", "{t} is run from nine to five", "{t} runs on gas"), ""),
    ("who owns {t}", ("it belongs to {p}", "{p} bought it", "{p} is the proprietor"),
     ("the owner of {t} is not at home", "{t} is owned since 1990"), ""),
    ("where is {t}", ("it stands in {p}", "near {p}", "one finds it in {p}"),
     ("{t} is where people meet", "{t} is well known", "{t} is over a century old"), ""),
    ("why is {t} famous", ("because of {w}", "{w} made its name", "for {w}"),
     ("{t} is famous", "{t} has been famous since 1920", "the famous {t} is closed on Sundays"),
     "its-ghost an-old-battle the-best-soup a-stolen-crown its-echo a-strange-clock its-roses"),
    ("how do you get to {t}", ("take the {v} and walk for five minutes", "by {v}", "use the {v}"),
     ("you get cake at {t}", "get to know {t}", "{t} is open to all"),
     "tram ferry bus underground cable-car train bicycle"),
    ("how many people work at {t}", ("there is a staff of {n}", "{n} employees", "about {n}"),
     ("people like to work at {t}", "many people at {t} work at night"), ""),
    ("how old is {t}", ("it was built {n} years ago", "{n} years", "it has stood for {n} years"),
     ("{t} is old", "the old part of {t} was pulled down"), ""),
    ("how much does {t} cost", ("the price is {n} dollars", "{n} pounds", "one pays {n} euros"),
     ("{t} does cost a lot", "the cost of {t} was paid by the town"), ""),
    ("when does {t} close", ("at {h} in the evening", "it is shut after {h}", "{h}"),
     ("{t} does close", "{t} will close its doors for good", "{t} is close to the station"), ""),
    ("how far is {t} from the station", ("{n} metres", "a walk of {m} minutes", "{m} miles"),
     ("{t} is far from the station", "the station and {t} were built together"), ""),
    ("how often is {t} cleaned", ("once a {d}", "every {d}", "twice a {d}"),
     ("{t} is cleaned with care", "{t} is cleaned by a firm"), ""),
    ("how big is {t}", ("{n} square metres", "it covers {m} acres", "{m} hectares"),
     ("{t} is big", "{t} is too big for many", "the big hall of {t} is new"), ""),
    ("what does {t} look like", ("grey walls and a pointed roof", "round, with a flat top"),
     ("{t} does look after its guests", "one has to look hard for {t}"), ""),
    ("what happened at {t}", ("two trains collided", "a peace was signed", "the roof fell in"),
     ("{t} is where it happened", "what happened at {t} is unknown"), ""),
)  # fmt: skip
EVENTS = (
    "concert", "trial", "strike", "election", "war", "flood", "wedding", "festival", "merger",
    "expedition", "siege", "tournament", "epidemic", "revolt", "experiment", "fire", "conference",
)  # fmt: skip
DEFINITIONS = (  # what it is, in words of its own
    ("ledger", "a book in which money in and out is written down"),
    ("sonnet", "fourteen lines of verse with a fixed rhyme"),
    ("kiln", "an oven hot enough to bake clay"), ("estuary", "where a river widens into the sea"),
    ("veto", "the right to stop a decision alone"), ("sextant", "a tool that tells sailors the "
     "height of the sun"), ("mortgage", "money lent for a home, which is the security"),
    ("compiler", "software that turns source text into something a processor runs"),
    ("biopsy", "a bit of tissue taken out and looked at"), ("quorum", "the least number of people "
     "who must be present"), ("tariff", "a charge on goods that come over the border"),
    ("gasket", "a ring that keeps a joint tight"), ("moraine", "stones left by ice"),
    ("alibi", "proof that somebody was elsewhere"), ("yeast", "a fungus that makes bread rise"),
    ("firewall", "it decides which network packets may pass"), ("placebo", "a pill without effect"),
    ("delta", "land of mud built where water meets the sea"), ("plasma", "the clear part of blood"),
    ("encore", "one more piece after the applause"), ("sonar", "finding things under water by "
     "sound"), ("silo", "a tower full of grain"), ("lichen", "a fungus and an alga in one body"),
    ("catalyst", "it quickens a reaction and is not used up"), ("dowry", "what a bride brings"),
    ("thesaurus", "words listed by what they mean"), ("monsoon", "a wind that brings months of "
     "rain"), ("franchise", "a licence to sell under another firm's name"),
    ("inertia", "bodies stay as they are unless pushed"), ("pivot", "the point that all turns on"),
    ("subpoena", "an order to appear before a court"), ("trellis", "a frame that plants climb"),
    ("cache", "a small fast memory for what is read often"), ("eclipse", "one body hides another"),
)  # fmt: skip
ABOUT = (  # what is said of a thing without saying what it is
    "many people have heard of a {x}", "a {x} was mentioned in the newspaper",
    "the {x} in this town is very old", "there are two kinds of {x}", "one {x} costs 40 dollars",
    "the word {x} has been used since 1600", "my brother knows all about the {x}",
    "a {x} is what they asked for", "everybody should know what a {x} is",
)  # fmt: skip
CONTESTS = (
    "chess championship", "rowing cup", "song contest", "film prize", "regatta", "marathon",
    "cycling tour", "ski race", "book prize", "football league", "tennis open", "debate",
)  # fmt: skip
ORDINALS = (
    ("first", "1st"), ("second", "2nd"), ("third", "3rd"), ("fourth", "4th"), ("fifth", "5th"),
    ("sixth", "6th"), ("seventh", "7th"), ("eighth", "8th"), ("ninth", "9th"), ("tenth", "10th"),
    ("eleventh", "11th"), ("twelfth", "12th"),
)  # fmt: skip
NUMERALS = "two three four five six seven eight nine ten eleven twelve".split()
COUNTED = (
    "cabin {n} beds", "boat {n} masts", "car {n} doors", "family {n} children", "house {n} floors",
    "band {n} members", "engine {n} cylinders", "tour {n} stops", "course {n} lessons",
    "crew {n} sailors", "bus {n} seats", "play {n} acts", "team {n} players", "pen {n} colours",
)  # fmt: skip
TAILS = (
    "in the spring", "last year", "without a word", "before noon", "near the river", "by accident",
    "as was planned", "to everybody's surprise", "for the second time", "in front of the station",
    "at the end of the war", "after a long dispute", "and left", "in 1987",
    "according to the paper",
)  # fmt: skip
ASIDES = ("{s}, it is said", "As far as is known, {s}", "{s}, as the records show", "In fact, {s}",
          "We read that {s}", "{s}, and that was all", "Later {s}",
          "By all accounts {s}")  # fmt: skip
OPENERS = ("tell me ", "do you know ", "i want to know ", "find out ", "question: ", "please say ")


@dataclass(frozen=True, slots=True)
class Template:
    """A question, a passage that answers it, and passages that do not."""

    kind: str
    query: str
    better: str
    worse: list[str]


@dataclass(slots=True)
class Fill:
    """What templates are filled with.

    Attributes:
        rng: of the step.
        names: rare names of the training sets.
        around: sentences of the training sets, to stand around an answer.
    """

    rng: random.Random
    names: list[str]
    around: list[str]

    def some(self, *listed: str) -> str:
        """One of them."""
        return self.rng.choice(listed)

    def chance(self, share: float) -> bool:
        """True in such a share of the calls."""
        return self.rng.random() < share

    def actors(self, count: int) -> list[str]:
        """So many of one kind: people by profession or name, animals."""
        roll = self.rng.random()
        if roll < 0.4:
            return [f"the {noun}" for noun in self.rng.sample(PEOPLE, count)]
        if roll < 0.5:
            return [f"the {noun}" for noun in self.rng.sample((*PEOPLE, *ANIMALS), count)]
        if roll < 0.7:
            return self.rng.sample(FIRST_NAMES, count)
        return self.named(count)

    def named(self, count: int) -> list[str]:
        """So many names without a word in common."""
        found: list[str] = []
        while len(found) < count:
            name = self.rng.choice(self.names)
            if not any(set(name.split()) & set(other.split()) for other in found):
                found.append(name)
        return found

    def thing(self) -> str:
        """Something named: "the Ashford library", or "the library"."""
        noun = self.rng.choice(THINGS)
        return f"the {noun}" if self.chance(0.4) else f"the {self.rng.choice(self.names)} {noun}"


Maker = Callable[[Fill], Template]


def template(fill: Fill, held_out: bool = False) -> Template:
    """One, of a kind that is trained on or of one that is not."""
    made = fill.rng.choice(UNSEEN if held_out else MAKERS)(fill)
    query = made.query
    if fill.chance(0.15):
        query = fill.some(*OPENERS) + query
    if fill.chance(0.3):
        query += "?"
    worse = list(dict.fromkeys(text for text in made.worse if text != made.better))
    fill.rng.shuffle(worse)
    worse = worse[:3]
    if made.kind != "echo" and len(worse) < 3 and fill.chance(0.4):
        worse.append(echoed(fill, made.query))
    better = made.better
    roll = fill.rng.random()
    if roll < 0.2:  # the answer alone is diluted
        better = among(fill, better)
    elif roll < 0.4:  # all are, in the same way
        before, after = fill.rng.sample(fill.around, 2)
        more = fill.chance(0.5)
        better, *worse = (
            f"{capital(text)} {after}" if more else f"{before} {capital(text)} {after}"
            for text in (better, *worse)
        )
    elif roll < 0.5:
        said = fill.some(*ASIDES)
        better, *worse = (said.format(s=text.rstrip(".")) for text in (better, *worse))
    return Template(made.kind, query, capital(better), [capital(text) for text in worse])


def capital(text: str) -> str:
    """With a capital at the start and an end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def among(fill: Fill, text: str) -> str:
    """A sentence among others."""
    others = fill.rng.sample(fill.around, fill.rng.randint(1, 5))
    others.insert(fill.rng.randint(0, len(others)), capital(text))
    return " ".join(others)


def echoed(fill: Fill, query: str) -> str:
    """The question without an answer."""
    roll, asked = fill.rng.random(), query + fill.some("", "?", "?")
    if roll < 0.4:
        return asked
    if roll < 0.7:
        return f"{asked} {' '.join(fill.rng.sample(BOILERPLATE, fill.rng.randint(1, 2)))}"
    if roll < 0.85:
        return f"{asked} {' '.join(fill.rng.sample(fill.around, fill.rng.randint(1, 3)))}"
    return f"{asked} {asked}" if fill.chance(0.5) else f"what is meant by {asked}"


def transitive(fill: Fill) -> Template:
    """Who did something to whom."""
    if fill.chance(0.25):
        (base, past, done), (a, b, c) = fill.some(*OF_GROUPS).split(), fill.named(3)
        who = fill.some("which company", "which country", "which team", "who", "which group")
    else:
        (base, past, done), (a, b, c) = fill.some(*TRANSITIVE).split(), fill.actors(3)
        who = fill.some("who", "who", "who", "which person")
    tail = fill.some("", "", "", *(f" {t}" for t in fill.rng.sample(TAILS, 2)))

    def says(x: str, y: str) -> str:
        return fill.some(
            f"{x} {past} {y}{tail}", f"{x} {past} {y}{tail}", f"{y} was {done} by {x}{tail}",
            f"it was {x} who {past} {y}{tail}", f"{y}, whom {x} {past}, went home{tail}",
            f"{x} was the one who {past} {y}", f"the one {done} by {x} was {y}",
            f"{x}, who {past} {y}, was known to all", f"{y} had been {done} by {x}{tail}",
        )  # fmt: skip

    if fill.chance(0.5):
        query = fill.some(f"{who} {past} {b}", f"{who} {past} {b}", f"{b} was {done} by whom",
                          f"by whom was {b} {done}", f"the one who {past} {b}")  # fmt: skip
        worse = [says(b, a), says(b, c)]
    else:
        query = fill.some(f"{who} did {a} {base}", f"{who} was {done} by {a}", f"{a} {past} whom",
                          f"the one whom {a} {past}", f"whom did {a} {base}")  # fmt: skip
        worse = [says(b, a), says(c, a)]
    if fill.chance(0.3):
        worse.append(fill.some(f"{a} never {past} {b}", f"{a} did not {base} {b}{tail}",
                               f"{b} was not {done} by {a}"))  # fmt: skip
    return Template("transitive", query, says(a, b), worse)


def natural(fill: Fill) -> Template:
    """What living things do to each other, in the present."""
    base, done = fill.some(*IN_NATURE).split()
    a, b, c = fill.rng.sample(SPECIES, 3)

    def says(x: str, y: str) -> str:
        return fill.some(f"{x} {base} {y}", f"{y} are {done} by {x}", f"{x} often {base} {y}",
                         f"many {x} {base} {y} in summer",
                         f"{y} that are {done} by {x}")  # fmt: skip

    if fill.chance(0.5):
        query = fill.some(f"which living things {base} {b}", f"what are {b} {done} by",
                          f"{b} are {done} by what")  # fmt: skip
        worse = [says(b, a), says(b, c)]
    else:
        query = fill.some(f"what do {a} {base}", f"what is {done} by {a}", f"what {a} {base}")
        worse = [says(b, a), says(c, a)]
    return Template("natural", query, says(a, b), worse)


def _related(fill: Fill, kind: str, pairs: tuple[tuple[str, str], ...]) -> Template:
    (one, other), (a, b, c) = fill.rng.choice(pairs), fill.actors(3)
    if fill.chance(0.5):
        one, other, a, b = other, one, b, a

    def says(x: str, y: str) -> str:  # x is the one of y
        return fill.some(f"{x} was the {one} of {y}", f"{y} was the {other} of {x}",
                         f"{y}'s {one} was {x}", f"{x}'s {other} was {y}",
                         f"{x} became the {one} of {y}", f"{y} had {x} as {one}")  # fmt: skip

    query = fill.some(f"who was the {one} of {b}", f"who was {b}'s {one}", f"{b}'s {one}",
                      f"whose {other} was {b}")  # fmt: skip
    return Template(kind, query, says(a, b), [says(b, a), says(b, c)])


def relation(fill: Fill) -> Template:
    """Who is what to whom."""
    return _related(fill, "relation", RELATIONS)


def kinship(fill: Fill) -> Template:
    """Likewise, in a family."""
    return _related(fill, "kinship", KINSHIP)


def giving(fill: Fill) -> Template:
    """Who gave what to whom."""
    (base, past, done), (a, b, c) = fill.rng.choice(GIVING), fill.actors(3)
    gift, other = fill.rng.sample(GIFTS, 2)

    def says(x: str, y: str, g: str) -> str:
        return fill.some(f"{x} {past} the {g} to {y}", f"the {g} was {done} to {y} by {x}",
                         f"{y} got the {g} from {x}", f"{x} {past} {y} the {g}")  # fmt: skip

    roll = fill.rng.random()
    if roll < 0.4:
        query = fill.some(f"who {past} the {gift} to {b}", f"who {past} {b} the {gift}")
        worse = [says(b, a, gift), says(b, c, gift)]
    elif roll < 0.8:
        query = fill.some(f"who did {a} {base} the {gift} to", f"to whom was the {gift} {done} "
                          f"by {a}", f"who got the {gift} from {a}")  # fmt: skip
        worse = [says(b, a, gift), says(c, a, gift)]
    else:
        query = f"what did {a} {base} to {b}"
        worse = [says(b, a, other), f"{a} {past} something to {c}"]
    return Template("giving", query, says(a, b, gift), worse)


def both_ways(fill: Fill) -> Template:
    """From one to another, and back."""
    asked, said, listed = fill.rng.choice(BOTH_WAYS)
    a, b, c = fill.rng.sample(listed.split(), 3)
    query = fill.some(*asked).format(a=a, b=b)
    better = fill.some(*said).format(a=a, b=b)
    repeated = fill.some(*asked, *said)
    worse = [repeated.format(a=b, b=a), fill.some(*said).format(a=b, b=a)]
    worse.append(fill.some(*said).format(a=b, b=c))
    return Template("both ways", query, better, worse)


def degree(fill: Fill) -> Template:
    """What is more so than another, and what it is more so than."""
    _, more, less, beats, loses = fill.rng.choice(DEGREES)
    if fill.chance(0.5):
        more, less, beats, loses = less, more, loses, beats
    a, b, c = fill.actors(3) if fill.chance(0.4) else fill.named(3)

    def says(x: str, y: str) -> str:
        return fill.some(f"{x} is {more} than {y}", f"{y} is {less} than {x}", f"{x} {beats} {y}",
                         f"{y} {loses} {x}", f"compared with {y}, {x} is {more}",
                         f"{y} is not {more} than {x}, but {less}")  # fmt: skip

    query = fill.some(f"what is {more} than {b}", f"who is {more} than {b}",
                      f"which one is {more} than {b}", f"{more} than {b}")  # fmt: skip
    worse = [says(b, a), says(b, c), f"{b} is {more} than {c}"]
    if fill.chance(0.2):
        query = f"which is {more}, {a} or {b}"
        worse = [f"{a} and {b} are both well known", f"{a} is {more} than it was, they say"]
    return Template("degree", query, says(a, b), worse)


def more_or_less(fill: Fill) -> Template:
    """What raises something and what lowers it."""
    ask, does, opposite = fill.rng.choice(MORE_OR_LESS)
    x, (a, b) = fill.some(*CHANGING), fill.rng.sample(MEANS, 2)
    undone = {"increase": "decrease", "improve": "worsen", "reduce": "increase", "lower": "raise",
              "prevent": "cause", "cause": "prevent", "start": "end", "end": "start"}  # fmt: skip
    query = fill.some(f"how to {ask} {x}", f"what can {ask} {x}", f"ways to {ask} {x}",
                      f"what helps to {ask} {x}")  # fmt: skip
    better = fill.some(f"{a} {does} it", f"{a} {does} {x}", f"it is {a} that {does} {x}")
    worse = [f"{b} {opposite} {x}", f"{a} {opposite} {x}"]
    if ask in undone:
        worse.append(fill.some(f"how to {undone[ask]} {x}: {b}", f"{b} is said to "
                               f"{undone[ask]} {x}"))  # fmt: skip
    return Template("more or less", query, better, worse)


def lacking(fill: Fill) -> Template:
    """What has a part and what lacks it."""
    kind, *parts = fill.rng.choice(LACKS)
    part, other = fill.rng.sample(parts, 2)
    bare = part.removeprefix("a ").removeprefix("an ")
    a, b, c, d = fill.named(4)
    lack = fill.some(f"have no {bare}", f"do not have {part}", f"lack {part}", f"do without {part}",
                     f"are free of {bare}", f"come without {part}", "have none",
                     f"never had {part}")  # fmt: skip
    have = fill.some(f"have {part}", f"come with {part}", f"include {part}", f"offer {part}",
                     f"are known for {part}", "have one")  # fmt: skip
    no = fill.some(f"{a} and {b} {lack}", f"{a} {lack}".replace("have", "has", 1),
                   f"among {kind}, {a} and {b} {lack}", f"there is no {bare} in {a}")  # fmt: skip
    yes = fill.some(f"{c} and {d} {have}", f"{c} and {d} are {kind} with {part}",
                    f"there is {part} in {c}")  # fmt: skip
    if fill.chance(0.6):
        query = fill.some(f"{kind} without {part}", f"which {kind} have no {bare}",
                          f"{kind} that do not have {part}", f"{kind} that lack {part}",
                          f"{kind} with no {bare}", f"{bare}-free {kind}",
                          f"{kind} not having {part}")  # fmt: skip
        worse = [yes, f"{c} and {d} are {kind} with {part}", f"{a} and {c} are {kind} without "
                 f"{other}"]  # fmt: skip
        return Template("lacking", query, no, worse)
    query = fill.some(f"{kind} with {part}", f"which {kind} have {part}", f"{kind} that have "
                      f"{part}", f"{kind} having {part}")  # fmt: skip
    worse = [no, f"{c} and {d} are {kind} without {part}", f"{kind} that have no {bare}: {a}"]
    return Template("lacking", query, yes, worse)


def not_so(fill: Fill) -> Template:
    """What does something and what does not, in other words."""
    does, otherwise, likewise = fill.rng.choice(DEEDS)
    kind, (a, b, c, d) = fill.some(*DOERS), fill.named(4)
    never = fill.some(f"do not {does}", f"never {does}", f"cannot {does}", otherwise, otherwise,
                      f"are unable to {does}", f"will not {does}", f"don't {does}")  # fmt: skip
    do = fill.some(does, likewise, likewise, f"always {does}", f"are able to {does}")
    no = fill.some(f"{a} and {b} {never}", f"{a} as well as {b} {never}", f"both {a} and {b} "
                   f"{never}")  # fmt: skip
    yes = fill.some(f"{c} and {d} {do}", f"{c} and {d} are {kind} that {do}")
    if fill.chance(0.6):
        query = fill.some(f"{kind} that do not {does}", f"which {kind} cannot {does}",
                          f"which {kind} never {does}", f"{kind} that don't {does}",
                          f"what {kind} will not {does}")  # fmt: skip
        worse = [yes, f"{c} and {d} are {kind} that {does}", f"which {kind} {does}? {c}"]
        return Template("not so", query, no, worse)
    query = fill.some(f"{kind} that {does}", f"which {kind} {does}", f"what {kind} can {does}")
    worse = [no, f"{a} and {b} are {kind} that do not {does}", f"{kind} that never {does}: {a}"]
    return Template("not so", query, yes, worse)


def allowed(fill: Fill) -> Template:
    """Who may and who may not."""
    deed, yes, no = fill.rng.choice(ALLOWED)
    a, b = fill.rng.sample(GROUPS, 2)
    may = fill.some(f"{a} {yes}", f"{a} may {deed}", f"{a} are allowed to {deed}")
    not_may = fill.some(f"{b} {no}", f"{b} should not {deed}", f"{b} are forbidden to {deed}",
                        f"{b} must never {deed}")  # fmt: skip
    if fill.chance(0.6):
        query = fill.some(f"who should not {deed}", f"who must not {deed}", f"who cannot {deed}",
                          f"people who are not allowed to {deed}")  # fmt: skip
        return Template("allowed", query, not_may, [may, f"{a} are allowed to {deed}",
                                                    f"{a} should {deed}"])  # fmt: skip
    query = fill.some(f"who may {deed}", f"who can {deed}", f"people who are allowed to {deed}")
    return Template("allowed", query, may, [not_may, f"{b} should not {deed}"])


def attribute(fill: Fill) -> Template:
    """One thing asked of something, and what else is said of it."""
    thing, (place, other) = fill.thing(), fill.named(2)
    chosen, another = fill.rng.sample(ATTRIBUTES, 2)

    def said(form: str, listed: str) -> str:
        value = fill.rng.choice(listed.split()).replace("-", " ") if listed else ""
        return form.format(t=thing, v=value, w=value, p=place, n=fill.rng.randint(13, 900),
                           m=fill.rng.randint(2, 40), d=fill.some("week", "month", "day", "year"),
                           h=fill.some("nine", "ten", "six", "7 p.m.", "midnight"))  # fmt: skip

    question, answers, vague, listed = chosen
    better = said(fill.some(*answers), listed)
    if fill.chance(0.25) and thing not in better:
        better = f"{thing}: {better}"
    worse = [said(fill.some(*vague), ""), f"{thing}: {said(fill.some(*another[1]), another[3])}"]
    worse.append(f"{said(fill.some(*vague), '')}, like {other}")
    return Template("attribute", question.format(t=thing), better, worse)


def event(fill: Fill) -> Template:
    """Who, when, where, why and how long, of an event."""
    name = f"the {fill.some(*fill.names)} {fill.some(*EVENTS)}"
    if fill.chance(0.4):
        name = f"the {fill.some(*EVENTS)}"
    person, place = fill.named(2)
    year, reason = fill.rng.randint(1500, 2024), fill.some(*REASONS)
    when = fill.some(f"in {year}", f"on {fill.rng.randint(1, 28)} {fill.some(*MONTHS)} {year}",
                     f"in {fill.some(*MONTHS)}", f"late in {year}")  # fmt: skip
    span = f"{fill.rng.randint(2, 40)} {fill.some('days', 'weeks', 'hours', 'months', 'years')}"
    facts = {
        "when": (("when did {e} begin", "when was {e}", "what year did {e} begin", "date of {e}"),
                 ("it began {when}", "{when}", "{e} began {when}", "the first day was {when}")),
        "where": (("where did {e} take place", "where was {e}", "place of {e}"),
                  ("it took place in {place}", "in {place}", "{e} was near {place}",
                   "{place} saw it")),
        "who": (("who started {e}", "who was behind {e}", "which person began {e}"),
                ("{person} did", "it was {person}", "{e} was started by {person}",
                 "{person} set it going")),
        "why": (("why did {e} begin", "reason for {e}", "what was the cause of {e}"),
                ("because {reason}", "{e} began because {reason}", "{reason}, which was enough")),
        "how long": (("how long did {e} last", "how long was {e}", "duration of {e}"),
                     ("{span}", "it went on for {span}", "{e} was over after {span}")),
        "none": ((), ("{e} began without warning", "everybody spoke of {e}", "{e} is well known",
                      "{e} was long ago and began slowly", "{e} started and lasted")),
    }  # fmt: skip
    values = {"e": name, "when": when, "place": place, "person": person, "reason": reason,
              "span": span}  # fmt: skip
    asked = fill.some(*(kind for kind in facts if kind != "none"))
    others = fill.rng.sample([kind for kind in facts if kind != asked], 2)
    worse = [next(text for text in reversed(facts[kind][1]) if "{e}" in text) for kind in others]
    worse.append(fill.some(*facts["none"][1]))
    return Template(
        "event",
        fill.some(*facts[asked][0]).format(**values),
        fill.some(*facts[asked][1]).format(**values),
        [text.format(**values) for text in worse],
    )


def defined(fill: Fill) -> Template:
    """What something is, in words of its own, and what is said of it."""
    (word, meaning), (_, other) = fill.rng.sample(DEFINITIONS, 2)
    query = fill.some(f"what is a {word}", f"what does {word} mean", f"{word} definition",
                      f"meaning of {word}", f"define {word}",
                      f"explain the word {word}")  # fmt: skip
    better = fill.some(meaning, f"it is {meaning}", f"a {word} is {meaning}", f"{word}: {meaning}")
    worse = [text.format(x=word) for text in fill.rng.sample(ABOUT, 2)] + [f"it is {other}"]
    return Template("defined", query, better, worse)


def echo(fill: Fill) -> Template:
    """An answer in its own words and the question without one."""
    made = fill.rng.choice((attribute, event, defined, defined, degree, not_so))(fill)
    return Template("echo", made.query, made.better, [echoed(fill, made.query) for _ in range(3)])


def contest(fill: Fill) -> Template:
    """The same in another year, or as another of a row."""
    (a, b, c), what = fill.named(3), fill.some(*CONTESTS)
    if fill.chance(0.5):
        year = fill.rng.randint(1900, 2024)
        other = year + fill.rng.choice((-20, -10, -4, -2, -1, 1, 2, 3, 4, 10))
        query = fill.some(f"who won the {what} in {year}", f"{what} {year} winner",
                          f"winner of the {year} {what}")  # fmt: skip
        better = fill.some(f"in {year} {a} came first", f"{a} won the {what} of {year}",
                           f"{year}: {a}", f"the {year} champion is {a}")  # fmt: skip
        worse = [f"{b} won the {what} in {other}", f"winner of the {other} {what}: {c}",
                 f"the {what} of {year} was cancelled"]  # fmt: skip
        return Template("contest", query, better, worse)
    (word, digits), (next_word, next_digits) = fill.rng.sample(ORDINALS, 2)
    role = fill.some("speaker", "duke", "director", "mayor", "chapter", "bishop", "stage")
    place = fill.named(1)[0]
    query = fill.some(f"{word} {role} of {place}", f"who was the {digits} {role} of {place}")
    better = fill.some(f"{a} was the {digits}", f"the {digits} {role} of {place} was {a}",
                       f"as the {word} {role} there, {a} took over")  # fmt: skip
    worse = [f"{b} was the {next_word} {role} of {place}", f"the {next_digits} {role} of {place} "
             f"was {c}"]  # fmt: skip
    return Template("contest", query, better, worse)


def counted(fill: Fill) -> Template:
    """A number as a word or in digits."""
    noun, _, many = fill.some(*COUNTED).split()
    one, other = fill.rng.sample(range(len(NUMERALS)), 2)
    spoken = (NUMERALS[one], str(one + 2)), (NUMERALS[other], str(other + 2))
    query = fill.some(f"{noun} with {fill.some(*spoken[0])} {many}")
    name = fill.named(1)[0]
    better = fill.some(f"this {noun} has {fill.some(*spoken[0])} {many}",
                       f"{fill.some(*spoken[0])} {many} belong to the {noun} of "
                       f"{name}")  # fmt: skip
    worse = [f"a {noun} with {fill.some(*spoken[1])} {many}", f"a {noun} with many {many}"]
    return Template("counted", query, better, worse)


def _older(maker: Callable[[minimal.Words], minimal.Minimal]) -> Maker:
    """A template of ``minimal.py``."""

    def made(fill: Fill) -> Template:
        pair = maker(minimal.Words(fill.names, fill.rng))
        return Template(pair.kind, pair.query, pair.better, [pair.worse])

    return made


_OLDER = [
    _older(maker)
    for maker in dict.fromkeys(minimal.MAKERS)
    if maker not in (minimal.trait, minimal.direction, minimal.measured)
]
MAKERS: tuple[Maker, ...] = (
    transitive, transitive, transitive, transitive, natural, relation, giving, both_ways, both_ways,
    degree, degree, more_or_less, lacking, lacking, not_so, not_so, allowed, attribute, attribute,
    attribute, event, event, defined, echo, echo, contest, counted, *_OLDER,
)  # fmt: skip
UNSEEN: tuple[Maker, ...] = (
    kinship, *(_older(maker) for maker in (minimal.trait, minimal.direction, minimal.measured)),
)  # fmt: skip
