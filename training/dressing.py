"""Makes a bare question look as people write: greetings, context, fillers, typos, case, marks."""

from random import Random

from training.spintax import expand
from training.words import listed

OPENERS = [
    "(hi|hello|hey|ok|okay|so|well|now|right|thanks|great|good|fine|sorry|excuse me|please|um|hm),",
    "(hi|hello|hey|good morning|thank you|alright)(.|!)",
    "(tell me|can you tell me|could you tell me|do you know|i wonder|just curious|quick question|one question|question|one more thing|next question|another one)(:|,)",
    "(and|but|so|also|then|now)",
    "(i am|i'm|we are) (new to this|a beginner|lost|confused|stuck|in a hurry|curious|not sure)(.|,|:)",
    "(my boss|my friend|a colleague|someone|a user|my team) (asks|wants to know|asked me)(:|,)",
    "(i read the docs|i looked everywhere|i have tried a lot|i am setting this up|i just started|i am at work)(.|, but| and now)",
    "(for|about) swapper(:|,)",
    "(on my|with my) (new|old|small|big) (laptop|server|machine|box)(,)",
]
TAILS = [
    "please|, please|thanks|, thanks|thank you|, thank you",
    "exactly|actually|then|again|really|now|today|here|normally|usually|in general|by default",
    "in swapper|with swapper|with it|in this program|on this server|with this",
    "(in short|briefly|in one sentence|quickly)|if i may ask|if at all|, do you know|, any idea",
    ". (i am new here|i need it soon|it is urgent|i forgot|i cannot find it|help)",
]
FILLERS = listed("just really actually maybe simply even also still ever exactly please")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def dress(question: str, rng: Random) -> str:
    words = question.split(" ")
    if rng.random() < 0.1 and len(words) > 3:
        words.insert(rng.randrange(1, len(words)), rng.choice(FILLERS))
    if rng.random() < 0.12 and len(words) > 4:
        del words[rng.randrange(len(words))]
    text = " ".join(words)
    if rng.random() < 0.18:
        text = f"{expand(f'({rng.choice(OPENERS)})', rng)} {text}"
    if rng.random() < 0.14:
        text = f"{text} {expand(f'({rng.choice(TAILS)})', rng)}".replace(" ,", ",").replace(
            " .", "."
        )
    if rng.random() < 0.12:
        text = misspell(text, rng)
    return punctuate(recase(text, rng), rng)


def misspell(text: str, rng: Random) -> str:
    at = rng.randrange(len(text))
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    if kind == 2:
        return text[:at] + rng.choice(LETTERS) + text[at + 1 :]
    return text[:at] + text[at : at + 2][::-1] + text[at + 2 :]


def recase(text: str, rng: Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return text
    if kind < 0.32:
        return text.upper()
    proper = text.replace(" i ", " I ").replace(" i'", " I'").replace("gpu", "GPU")
    if rng.random() < 0.4:
        proper = proper.replace("swapper", "Swapper")
    return proper[:1].upper() + proper[1:]


def punctuate(text: str, rng: Random) -> str:
    return (
        text.rstrip("?.! ") + rng.choices(("?", "", ".", "!", "??", " ?"), (60, 24, 9, 3, 2, 2))[0]
    )
