"""Names, cities and strings to be copied.

Copying is the last thing a tiny model learns, and it learns it only for the kinds of strings it was
shown. So these are wide: real names and words, syllables with consonant clusters, runs of any
letters, digits, hyphens, model names, codes.
"""

import re
from pathlib import Path
from random import Random


def listed(text: str) -> list[str]:
    return text.split()


def listed_lines(text: str) -> list[str]:
    return text.splitlines()


FIRST_NAMES = listed("""Anna Ben Clara David Elena Felix Greta Hugo Irene Jonas Karin Leon Maria Nils Olivia
Paul Quentin Rosa Samuel Tessa Ursula Victor Wanda Xavier Yara Zoe Ahmed Bianca Chloe Dmitri Esther
Farid Gloria Hana Ivan Julia Kofi Laila Marco Nadia Omar Priya Rafael Sofia Tariq Vera Wei Yusuf
Aaron Beatrice Carlos Diana Erik Fatima George Helen Isabel Jack Kevin Linda Michael Nancy Oscar
Peter Rachel Simon Thomas Valerie William Andrew Barbara Charles Deborah Edward Frank Gabriel Henry
Jessica Kathleen Lawrence Margaret Nicholas Patricia Robert Stephanie Timothy Arthur Charlotte
Emma Noah Mia Liam Ella Lucas Sven Ingrid Bjorn Freya Astrid Matteo Giulia Pierre Camille""")

CITIES = listed("""Paris London Berlin Madrid Rome Vienna Prague Warsaw Athens Dublin Cairo Lagos Nairobi
Delhi Mumbai Tokyo Osaka Seoul Beijing Shanghai Bangkok Hanoi Jakarta Manila Sydney Perth Auckland
Toronto Montreal Boston Chicago Denver Austin Seattle Miami Lima Bogota Quito Santiago Havana Munich
Hamburg Cologne Frankfurt Zurich Geneva Basel Lyon Marseille Toulouse Barcelona Valencia Seville
Milan Naples Turin Venice Florence Bristol Glasgow Leeds Cardiff Ghent Bruges Antwerp Rotterdam
Copenhagen Aarhus Gothenburg Bergen Tampere Turku Gdansk Krakow Budapest Belgrade Sofia Bucharest
Ankara Beirut Amman Doha Dubai Tehran Lahore Dhaka Colombo Brisbane Christchurch Phoenix Portland
Detroit Baltimore Atlanta Houston Springfield Cambridge Plymouth Newcastle Southampton""")

COMMON = listed("""apple river stone window garden bottle yellow forest silver morning pencil mountain
rocket button candle basket thunder winter summer castle bridge paper monkey violin carpet hammer
ladder magnet needle orange pepper rabbit saddle ticket umbrella velvet walnut zipper anchor blanket
cheese dragon engine feather guitar helmet island jacket kettle lemon mirror nickel oyster planet
quartz ribbon scissors tunnel vessel whistle world earth hello goodbye banana cherry coffee butter
brown quick lazy jump bright quiet sharp smooth strange twelve purple square circle market doctor
teacher student kitchen hospital airport station library museum theatre church school bicycle
train truck bus boat plane street village country ocean desert storm cloud rain snow wind fire
chocolate strawberry knight spring branch throne glimpse crystal rhythm sphinx growth length
friend fresh ground strong script split sprout shrimp thrift world wrist knife lamb island
quiz jazz fizz box fox wax yoga zebra vivid kayak ivory onyx jungle hazard exotic""")

MODEL_STEMS = listed("""coder chat llama mistral qwen gemma phi falcon granite vision embed small big fast
tiny draft reason math code writer helper mini large base instruct nova atlas comet delta zephyr
hermes solar yi vega titan pixel""")

# Words it knows how to speak of must be copied as well as those it never saw.
SPOKEN = Path(__file__).with_name("topics.txt").read_text()
KNOWN = sorted(set(re.findall(r"\b[a-z]{3,}\b", SPOKEN)))
SAYINGS = listed_lines("""the early bird catches the worm
good evening everybody
I like red wine and old cheese
we shall meet at the station
the quick brown fox jumps over the lazy dog
all is well that ends well
my hovercraft is full of eels
see you on Thursday
an apple a day
to be or not to be
peace and quiet
twelve angry men
never say never
roses are red and violets are blue
time flies like an arrow
home sweet home
I think therefore I am
happy birthday to you
ready when you are
the door is open""")

LETTERS = "abcdefghijklmnopqrstuvwxyz"
STARTS = (
    listed("""b c d f g h j k l m n p r s t v w z bl br ch cl cr dr fl fr gl gr kn kr pl pr ph qu sc sch
sh sk sl sm sn sp spr st str sw th tr tw vl wh wr y x""")
    + [""] * 4
)
MIDDLES = listed("a e i o u a e i o u ai au ea ee ei ie io oa oo ou y ue oe")
ENDS = (
    listed("""b ck d f g l ll m n nd ng nk nt p r rd rk rl rm rn rt s ss st t th tz x z lm ln lf ft pt sk
sch mp""")
    + [""] * 16
)


def syllables(rng: Random, count: int) -> str:
    parts = (rng.choice(STARTS) + rng.choice(MIDDLES) + rng.choice(ENDS) for _ in range(count))
    return "".join(parts)


def letters(rng: Random, shortest: int = 3, longest: int = 9) -> str:
    return "".join(rng.choices(LETTERS, k=rng.randint(shortest, longest)))


def digits(rng: Random, longest: int = 6) -> str:
    return "".join(rng.choices("0123456789", k=rng.randint(1, longest)))


def invented(rng: Random) -> str:
    return syllables(rng, rng.choice((1, 2, 2, 2, 3, 3)))


def plain_word(rng: Random) -> str:
    known = rng.choice(rng.choice((COMMON, KNOWN, KNOWN)))
    return rng.choice((known, known, invented(rng), invented(rng), letters(rng)))


def proper(rng: Random, known: list[str]) -> str:
    """A capitalised word, mostly one that no list holds."""
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(known)
    if kind < 0.32:
        return letters(rng).capitalize()
    return invented(rng).capitalize()


def person(rng: Random) -> str:
    return proper(rng, FIRST_NAMES)


def city(rng: Random) -> str:
    if rng.random() < 0.1:
        return f"{rng.choice(('New', 'San', 'Port', 'Saint', 'Los', 'Bad'))} {proper(rng, CITIES)}"
    return proper(rng, CITIES)


def model_name(rng: Random) -> str:
    stem = rng.choice((rng.choice(MODEL_STEMS), plain_word(rng), plain_word(rng)))
    size = f"{digits(rng, 2)}{rng.choice(('b', 'b', 'm', 'k', ''))}"
    version = f"{rng.randint(1, 9)}.{rng.randint(0, 9)}"
    shapes = (
        stem,
        f"{stem}-{size}",
        f"{stem}-{rng.choice((plain_word(rng), rng.choice(MODEL_STEMS)))}",
        f"{stem}{version}",
        f"{stem}-{version}-{size}",
        f"{stem}_{plain_word(rng)}",
        f"{stem.capitalize()}-{size.upper()}",
        f"{stem}:{size}",
    )
    return rng.choice(shapes)


def code(rng: Random) -> str:
    shapes = (
        digits(rng),
        f"{letters(rng, 1, 3).upper()}-{digits(rng)}",
        f"{letters(rng, 2, 4)}{digits(rng, 4)}",
        f"{digits(rng, 3)}-{digits(rng, 4)}",
        "".join(rng.choices(LETTERS + "0123456789", k=rng.randint(4, 9))),
        letters(rng).upper(),
        f"{plain_word(rng)}_{plain_word(rng)}",
        f"{plain_word(rng)}.{rng.choice(('txt', 'py', 'yaml', 'gguf', 'json', 'md'))}",
    )
    return rng.choice(shapes)


def phrase(rng: Random) -> str:
    """A few words to be repeated."""
    if rng.random() < 0.08:
        return rng.choice(SAYINGS)
    count = rng.choice((1, 1, 2, 2, 3, 4, 5))
    makers = (plain_word, plain_word, plain_word, plain_word, person, code)
    text = " ".join(rng.choice(makers)(rng) for _ in range(count))
    return text.capitalize() if rng.random() < 0.3 else text
