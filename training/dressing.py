"""Makes a bare question look as people write: greetings, context, fillers, typos, case, marks."""

import re
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
    "(i have|there is|we bought) (a|one) (new laptop|big server|small box|server with 64 gb|pc at home|machine in the office)(.|,)",
    "(i use|we use|i work with) (linux|ubuntu|python|an editor|two models|several models|a small model)(.| and)",
    "(i am|i'm|we are) (building|writing|planning|trying) (an app|a script|a project|a small tool|something)(.| and)",
    "(let me ask|i want to ask|may i ask|can i ask|i was wondering|i would like to know|can you say)(:|,)",
    "(it is late|i have little time|i do not know much|i looked at the code|it runs now)(.|, but)",
    "(on my|with my) (new|old|small|big) (laptop|server|machine|box)(,)",
]
TAILS = [
    "please|, please|thanks|, thanks|thank you|, thank you",
    "exactly|actually|then|again|really|now|today|here|normally|usually|in general|by default",
    "in swapper|with swapper|with it|in this program|on this server|with this",
    "(in short|briefly|in one sentence|quickly)|if i may ask|if at all|, do you know|, any idea",
    ". (i am new here|i need it soon|it is urgent|i forgot|i cannot find it|help)",
]
# Words that any question may use for one another.
SAME = {
    "model": "llm",
    "models": "llms",
    "show": "display|print",
    "use": "utilise|employ",
    "make": "get",
    "need": "require",
    "want": "would like",
    "stop": "halt|end",
    "error": "problem|failure",
    "machine": "computer|pc|system",
    "server": "program|service|swapper",
    "happens": "is going to happen|takes place|goes on",
    "can": "could|may",
    "set": "configure|choose|define",
    "change": "modify|adjust|alter",
    "find": "locate|discover",
    "where": "in what place",
    "way": "possibility|method|chance",
    "possible": "feasible|doable",
    "request": "query|call|prompt",
    "requests": "queries|calls|prompts",
    "answer": "reply|response",
    "answers": "replies|responses",
    "client": "application|app|program",
    "clients": "applications|apps|users",
    "loaded": "in memory|active|resident",
    "running": "active|alive|working",
    "several": "multiple|two or more|many",
    "many": "lots of|numerous",
    "start": "launch|begin|run",
    "my": "our|the",
    "i": "we|one",
    "me": "us",
    "it": "swapper|the server|this program",
    "swapper": "the server|this program|it",
    "is": "would be",
    "does": "will|would",
    "do": "would|should",
    "give": "provide|supply",
    "explain": "clarify|describe|tell me",
    "big": "large|huge",
    "keep": "hold|leave",
    "add": "include|insert",
    "get": "obtain|receive",
    "put": "place|write",
    "after": "following|once past",
    "when": "as soon as|once|if|whenever",
    "if": "in case|when|supposing",
    "work": "function|operate|run",
    "too": "very|far too",
    "other": "another|further",
    "all": "every one of|the whole of",
    "the": "a|this|",
    "a": "one|some|the",
    "about": "on|concerning|regarding",
    "what": "which thing",
    "which": "what",
    "by": "through|with",
    "without": "with no|not using",
    "automatically": "by itself|on its own",
    "at": "during",
    "one": "a single|some",
    "before": "prior to|ahead of",
    "file": "document",
    "long": "much time",
    "have": "got|possess",
}
# Patterns are written in lower case; people write names as names, most of the time.
NAMES = listed("""GPU GPUs CPU CPUs YAML JSON API APIs HTTP URL URLs UI GUI GGUF GGUFs VRAM RAM OpenAI
Anthropic Ollama Claude Code Python vLLM CUDA NVIDIA Prometheus Grafana Linux Ubuntu LLM LLMs TTL MIT
KV AWQ GPTQ FP8 Q4_K_M Q8_0 MLX Docker Ctrl-C ChatGPT GPT SSE LRU OOM PC SDK IDE Unix AI Triton
PyTorch TGI LAN RTX CLI PID TCP SIGTERM Rust Java English French German Spanish Latin""")
AS_NAMES = {name.lower(): name for name in NAMES if name != "Code"} | {
    "hugging face": "Hugging Face",
    "claude code": "Claude Code",
    "open webui": "Open WebUI",
    "raspberry pi": "Raspberry Pi",
}
ANY_NAME = re.compile(r"\b(" + "|".join(sorted(AS_NAMES, key=len, reverse=True)) + r")\b")
FILLERS = listed("just really actually maybe simply even also still ever exactly please")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def dress(question: str, rng: Random) -> str:
    words = question.split(" ")
    if rng.random() < 0.3:
        words = [reworded(word, rng) if rng.random() < 0.3 else word for word in words]
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


def reworded(word: str, rng: Random) -> str:
    return rng.choice(SAME[word].split("|")) if word in SAME else word


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
    proper = text.replace(" i ", " I ").replace(" i'", " I'")
    if rng.random() < 0.8:
        proper = ANY_NAME.sub(lambda match: AS_NAMES[match[1]], proper)
    if rng.random() < 0.4:
        proper = proper.replace("swapper", "Swapper")
    return proper[:1].upper() + proper[1:]


def punctuate(text: str, rng: Random) -> str:
    return (
        text.rstrip("?.! ") + rng.choices(("?", "", ".", "!", "??", " ?"), (60, 24, 9, 3, 2, 2))[0]
    )
