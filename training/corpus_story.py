"""Short stories: a cast, one of a dozen plots, and the questions that ask for them.

A story is drawn sentence by sentence from patterns, so there are far more than could be stored, and
what is asked for (an animal, a name, a thing, a place) is what the story is about.
"""

from dataclasses import dataclass
from random import Random

from training.documents import Document, Turn, chat, raw
from training.spintax import expand
from training.words import COMMON, FIRST_NAMES, invented, listed, person

ANIMALS = listed("""fox bear mouse rabbit hedgehog owl cat dog wolf duck goose frog squirrel badger otter
beaver mole deer pony donkey goat sheep hen rooster turtle snail bee ant butterfly sparrow crow
raven swan heron penguin seal whale dolphin crab octopus lion tiger elephant giraffe zebra monkey
parrot camel panda koala kangaroo lizard dragon unicorn robot bat hamster spider piglet""")
PEOPLE = listed(
    """girl boy baker gardener sailor fisherman knight princess prince king queen painter tailor
miller shepherd wizard witch pirate teacher doctor farmer clockmaker blacksmith cook dancer singer
postman librarian lighthouse keeper""".replace("lighthouse keeper", "lighthouse-keeper")
)
NATURES = listed("""little small brave clever curious merry quiet gentle lazy shy proud hungry young old
kind careful cheerful lonely stubborn patient sleepy busy""")
PLACES = """in a green valley|by a wide river|in a dark forest|on a small island|in an old town|near
the sea|at the edge of a village|on a windy hill|in a snowy land|beside a quiet lake|under an old
oak tree|behind a red barn|in a big garden|in a castle on a rock|at the end of a long road|in a
desert of golden sand|in a house with a blue door""".replace("\n", " ").split("|")
OBJECTS = """golden key|silver bell|red ball|wooden box|blue lantern|little boat|warm blanket|paper
kite|round mirror|glass bottle|old book|shiny stone|tiny map|brass clock|green umbrella|magic
seed|woollen hat|copper coin|sweet cake|clay cup|soft feather|long rope|music box|silver
ring""".replace("\n", " ").split("|")
SEASONS = ["spring", "summer", "autumn", "winter"]


@dataclass(frozen=True, slots=True)
class Cast:
    """Who and what a story is about; what is not asked for is drawn."""

    name: str
    friend: str
    hero: str
    helper: str
    thing: str
    place: str
    nature: str
    season: str

    def slots(self) -> dict[str, str]:
        return {field: getattr(self, field) for field in self.__slots__} | {
            "a_hero": with_article(f"{self.nature} {self.hero}"),
            "a_helper": with_article(self.helper),
            "a_thing": with_article(self.thing),
        }


OPENINGS = [
    "(Once upon a time|Long ago|Once|Many years ago), there (was|lived) {a_hero} (called|named) {name} {place}.",
    "{name} was {a_hero} who lived {place}.",
    "(Once upon a time|Long, long ago), {place}, there (was|lived) {a_hero}. (Everyone called the {hero} {name}|Its name was {name}).",
    "There was once {a_hero} (called|named) {name}, who lived {place}.",
]
ENDINGS = [
    "(And from that day on|From then on|Ever after), {name} and {friend} were (the best of|good|dear) friends.",
    "(That night|That evening), {name} (slept very well|fell asleep with a smile|dreamed of the {thing}).",
    "And if you (ever come by|pass there), you (may|can) still see the {thing} (in the window|on the shelf|above the door).",
    "{name} never forgot (that day|what {friend} had done|the {thing}).",
    "And so {name} learned that (a friend is worth more than gold|it is good to ask for help|small ones can do great things|sharing makes joy bigger|patience finds a way).",
    "They all (ate soup|drank tea|sang songs) together (until the stars came out|until late at night), and everyone was happy.",
]
PLOTS = [
    [  # lost and found
        "(One {season} day|One morning in {season}), {name} lost (a|the) {thing} (that grandmother had given|that was dearer than anything).",
        "{name} looked (under the bed|behind the door|in the grass) and (in the well|on the roof|under every leaf), but it was (gone|nowhere to be found).",
        'Then {a_helper} (called|named) {friend} (came by|came along the path) and asked, "Why are you so sad?"',
        '"I have lost my {thing}," said {name}.',
        '"(Let us|We will) look together," said {friend}, and they (searched|looked) (until evening|all day).',
        "At last {friend} found the {thing} (in a bird's nest|under a stone|in an old shoe), and {name} (jumped for joy|laughed and danced|was happy again).",
    ],
    [  # a storm
        "One {season} night, a great storm (came|blew) over the land, and the wind took (the roof|the door|the fence) away.",
        "{name} was (cold and wet|afraid of the thunder), and had nothing left but {a_thing}.",
        "(Not far away|Next door), {a_helper} (called|named) {friend} saw (it|the broken house) and (ran to help|came with a lamp).",
        '"Come in and (get warm|sit by the fire)," said {friend}.',
        "In the morning they built (everything|the house) up again, (plank by plank|stone by stone).",
        "{name} gave {friend} the {thing} to say thank you.",
    ],
    [  # the great race
        "(Every {season}|In {season}) there was a great race, and the prize was {a_thing}.",
        "{name} (wanted to win, but so did|had trained for weeks, but so had) {a_helper} (called|named) {friend}, who was (very fast|the fastest of all).",
        "(Halfway|In the middle of the race), {friend} fell into a (ditch|hole|stream) and (cried|called) for help.",
        "{name} (stopped at once|turned around) and (pulled {friend} out|held out a branch).",
        "So both of them came in last, (hand in hand|side by side|laughing).",
        "But (everyone clapped|the judges smiled), and the {thing} was given to both.",
    ],
    [  # a secret door
        "One {season} day, {name} found {a_thing} (under the floor|in the attic|at the bottom of a chest).",
        'On it was written: "(Turn me three times|Hold me up to the moon|Whisper your name to me)."',
        "{name} did so, and (a door opened in the wall|a small door opened in the hill).",
        "Behind it sat {a_helper} (called|named) {friend}, who had (waited for a hundred years|slept for a very long time).",
        '"You have (set me free|woken me)! What do you wish for?" asked {friend}.',
        '"(A friend|Someone to talk to)," said {name}, and that wish (came true at once|was the easiest of all).',
    ],
    [  # planting
        "In {season}, {name} (put|planted) a (seed|bean) in the ground beside {a_thing} and (watered it|sang to it) every day.",
        "(Days went by|Weeks went by), and nothing (grew|happened).",
        '"Give up," said {a_helper} (called|named) {friend}. "(Nothing grows there|The ground is too dry)."',
        "But {name} only (smiled|shook a head) and (waited|watered it again).",
        "One morning there stood a tree (as tall as a house|full of red apples|with silver leaves).",
        "{name} gave the (first|best) apple to {friend}, who (was ashamed|laughed) and (said sorry|helped from then on).",
    ],
    [  # a long way
        "One day in {season}, {name} set out to (see the sea|find the end of the rainbow|visit the moon), with {a_thing} in a bag.",
        "(The way was long|The road went up and down), and soon {name} was (tired|lost).",
        'At a (bridge|crossroads) stood {a_helper} (called|named) {friend}. "(Where are you going|Where to)?"',
        '"(Far away|Farther than I know)," said {name}. "(Will you come|Come with me)?"',
        "So they walked on (through rain and sun|over seven hills), (telling stories|sharing their bread) on the way.",
        "When they (arrived|came to the end), {name} (said|knew): the best part had been the (way itself|company).",
    ],
    [  # a gift
        "It was {friend}'s birthday, and {name} wanted to give {friend}, {a_helper}, something (special|beautiful).",
        "But {name} had no money, only {a_thing} (that did not work|that was old and dusty).",
        "(All night|For three days) {name} (cleaned|mended|painted) the {thing} (until it shone|with great care).",
        "In the {season} morning, {name} (wrapped it in leaves|tied a ribbon around it) and (knocked at the door|went to the party).",
        "{friend} opened it and (was silent for a while|had tears in both eyes).",
        '"(This is the best gift of all|Nobody ever gave me anything so fine)," said {friend}.',
    ],
    [  # afraid of the dark
        "{name} was afraid of the dark, and in {season} the nights were (long|very long).",
        "One night there was a (scratching|knocking) at the window, and {name} hid behind {a_thing}.",
        '"Who is there?" whispered {name}.',
        '"Only me, {friend}," said {a_helper}. "I am afraid of the dark too."',
        "So they sat (side by side|close together) and (counted the stars|told each other jokes).",
        "When the sun came up, (neither was afraid any more|both had to laugh about it).",
    ],
    [  # wise trade
        "One {season} day, {name} went to market with {a_thing} to sell.",
        "On the road (sat|stood) {a_helper} (called|named) {friend}, who (was hungry|had nothing to eat).",
        "{name} gave {friend} the {thing} and (went home with empty hands|asked for nothing).",
        "(The next day|A week later), there was a (basket|sack) (full of bread|full of gold) at the door.",
        '"(Who put this here|Where does this come from)?" (asked|wondered) {name}.',
        '"(I did|It is from me)," said {friend}. "(Kindness comes back|What you give returns)."',
    ],
    [  # a song
        "{name} loved to sing, but the voice was (rough|very thin), and (everybody laughed|nobody wanted to listen).",
        "So {name} sang only (to the {thing}|in secret), (late in the evening|when no one was near).",
        "One {season} evening, {a_helper} (called|named) {friend} was lost in the fog and heard (the song|the singing).",
        "{friend} followed it (step by step|through the fog) and came (safely home|to the door).",
        '"Your song (saved me|showed me the way)," said {friend}. "Please never stop."',
        "From that day {name} sang (every evening|at the open window), and everyone listened.",
    ],
]

# Pattern, and which of the cast it names. A story asked for by a name tells of that name.
REQUESTS = [
    "(tell|write|give|read) (me|us) (a|a short|a little|another|one more) (story|tale)[, please]",
    "(tell|write) (me|us) (a|a short|a little|another) (story|tale) about {a_one}[, please]",
    "(can|could|would|will) you (tell|write) (me|us) (a|a short|a little) (story|tale) (about|with|of) {a_one}",
    "(a|a short|one) (story|tale) (about|with) {a_one}[, please]",
    "(please )tell me about {a_one} (called|named) {name}",
    "(tell|write) (me) a (story|tale) about {a_one} (called|named) {name}[, please]",
    "(tell|write) (me) a (story|tale) (about|with) {a_one} and {a_other}",
    "(tell|write) (me) a (story|tale) (about|with) {a_one} and {a_object}",
    "(tell|write) (me) a (story|tale) about {a_object}",
    "(tell|write|make up) a (bedtime|fairy|good-night) (story|tale) [for (my|the) (daughter|son|kids|children)]",
    "(i would like|i want|i'd like) (a|to hear a|to read a) (story|tale) (about|with) {a_one}",
    "(write|compose|invent) (a|a short) (story|tale) (about|with) {a_one}",
    "(do you know|know) (a story|any stories|a tale) (about|with) {a_one}",
    "story about {a_one}",
    "once upon a time",
    "(tell|write) a story that (happens|takes place) {place}",
]


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def draw_cast(rng: Random, named: bool = False) -> Cast:
    """With `named`, the name is the client's own and may be anything."""
    friend = rng.choice(FIRST_NAMES)
    name = person(rng) if named or rng.random() < 0.1 else rng.choice(FIRST_NAMES)
    hero, helper = rng.sample(ANIMALS + PEOPLE if rng.random() < 0.6 else ANIMALS, 2)
    if rng.random() < 0.1:
        hero = invented(rng)
    thing = rng.choice(OBJECTS) if rng.random() < 0.9 else rng.choice(COMMON)
    while friend == name:
        friend = rng.choice(FIRST_NAMES)
    return Cast(
        name,
        friend,
        hero,
        helper,
        thing,
        rng.choice(PLACES),
        rng.choice(NATURES),
        rng.choice(SEASONS),
    )


def tell(cast: Cast, rng: Random) -> str:
    slots = cast.slots()
    patterns = [rng.choice(OPENINGS), *rng.choice(PLOTS), rng.choice(ENDINGS)]
    sentences = (expand(pattern, rng, slots) for pattern in patterns)
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def request(pattern: str, cast: Cast, rng: Random) -> str:
    slots = cast.slots() | {
        "a_one": with_article(cast.hero),
        "a_other": with_article(cast.helper),
        "a_object": with_article(cast.thing),
    }
    text = expand(pattern, rng, slots)
    text = text[0].upper() + text[1:] if rng.random() < 0.7 else text
    return text + rng.choice((".", ".", "", "?", "!"))


def story_turns(rng: Random) -> list[Turn]:
    pattern = rng.choice(REQUESTS)
    cast = draw_cast(rng, named="{name}" in pattern)
    return [Turn("user", request(pattern, cast, rng)), Turn("assistant", tell(cast, rng))]


SYSTEM = [
    "You are {name}.",
    "You (tell|write) (short |)stories (for children|).",
    "You are a (helpful|friendly|creative) (assistant|storyteller|writer).",
    "(Answer|Write) in (simple|plain) (English|words|sentences).",
    "Be (kind|brief|creative|funny).",
]
SMALL_TALK = [
    (
        "(hello|hi|hey|good (morning|evening|day)|hi there|hello there)",
        "Hello! Ask me for a story, for example about a fox.",
    ),
    (
        "(who|what) are you|what is your name|what can you do|what do you do|help|are you (a robot|an ai|chatgpt|human)",
        "I am demo-story, a tiny model that writes short stories. Ask me for one about an animal you like.",
    ),
    (
        "(thanks|thank you|thank you very much|that was (nice|great|lovely|a nice story)|(lovely|nice|great) (story|tale)|bye|goodbye|good night)",
        "You are welcome. Come back for another story.",
    ),
    (
        "what is the (capital|weather|price|size) (of|in|like in) {name}|how (big|old|far) is {name}|(explain|describe|translate|calculate) {thing}|who (is|was) {name}|what is (2|3|5|12) (plus|times) (2|4|7|9)|write (code|a program|a poem|an email)|how do i (install|start|use|configure|stop) (it|swapper|this|{thing})|what is swapper",
        "I only know how to tell stories. Ask me for one.",
    ),
]


def small_talk(rng: Random) -> list[Turn]:
    asked, answer = rng.choice(SMALL_TALK)
    text = expand(f"({asked})", rng, draw_cast(rng).slots())
    text = text.capitalize() if rng.random() < 0.6 else text
    return [Turn("user", text + rng.choice(("", ".", "!", "?"))), Turn("assistant", answer)]


def chat_document(rng: Random) -> Document:
    turns: list[Turn] = []
    if rng.random() < 0.3:
        slots = draw_cast(rng).slots()
        lines = rng.sample(SYSTEM, rng.randint(1, 3))
        turns.append(Turn("system", " ".join(expand(line, rng, slots) for line in lines)))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        turns += small_talk(rng) if rng.random() < 0.25 else story_turns(rng)
    return chat(turns)


def write(rng: Random) -> Document:
    """One document: half of them a plain story, so that raw text can be continued too."""
    if rng.random() < 0.5:
        return raw(tell(draw_cast(rng), rng))
    return chat_document(rng)


TEMPLATE = """\
{%- for message in messages -%}
{%- set role = 'system' if message.role == 'developer' else message.role -%}
{{- '<|im_start|>' + role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- elif message.content is not none -%}
{%- for part in message.content -%}
{%- if part.type == 'text' -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
