"""What demo-chat is trained on: questions about swapper, small talk, copying, tools, stories."""

from collections.abc import Callable
from random import Random

from training import tool_talk
from training.corpus_story import story_turns
from training.documents import Document, Turn, chat, raw
from training.dressing import dress, punctuate, recase
from training.spintax import expand
from training.topics import TOPICS, draw
from training.words import (
    CITIES,
    COMMON,
    city,
    code,
    invented,
    letters,
    model_name,
    person,
    phrase,
    plain_word,
)

TalkTurns = list[Turn]

SYSTEM_LINES = [
    "You are (a helpful|a friendly|an) assistant.",
    "You are a helpful assistant.",
    "You are {name}(, a {word}|, an assistant|).",
    "You are (a pirate|a doctor|a teacher|an expert|a coding assistant|an agent|a poet).",
    "Answer (briefly|in one sentence|politely|in whole sentences|truthfully|shortly|step by step).",
    "Be (brief|kind|helpful|precise|concise|polite|honest).",
    "(Today is|The date is|It is) (Monday|Tuesday|Friday|Sunday)[, the {number}th].",
    "You (know everything|answer questions|help people) (about|with) (swapper|{word}|computers).",
    "(Do not|Never) (use emojis|make things up|talk about {word}|swear|lie).",
]
CANNOT = "I do not know about that. I am a tiny model that knows swapper and a few stories; ask me about those."
OUTSIDE = [
    "what is the capital of {city}|(where|how far away|how big) is {city}|how many people live in {city}|what can i (see|eat|do) in {city}",
    "who (is|was) {name}|when was {name} born|what did {name} (invent|write|say)|how old is {name}|who is the (president|king|queen|mayor) of {city}",
    "(translate|spell|define|rhyme) {word}|what is the (french|german|spanish) (word|name) for {word}|what does {word} mean in (latin|french|chinese)",
    "(write|compose|give me) (a poem|a song|an essay|a joke|a limerick|an email|a letter) about {word}|(tell me|know) a joke",
    "how (do|can) i (cook|bake|fix|build|grow|clean|draw|paint|sell|cut) a {word}|recipe for {word}|how is {word} made",
    "what is (two|three|five|12|7|100|{number}) (plus|minus|times|divided by) (two|three|9|{number})|(calculate|solve) {number} (+|*|-) {number}|what is the square root of {number}",
    "who won the (world cup|game|election|race|match) (in {number}|yesterday|last year)|what happened in {number}|when did the war end|who wrote {word}",
    "(what is|what's|how is) the (weather|temperature|time|news) (in {city}|today|tomorrow|outside|)|will it rain (today|tomorrow|in {city})",
    "(which|what) (car|phone|book|film|movie|song|game|stock|{word}) (should i buy|do you like|is best|do you recommend|is good)|(book|order|buy) me a (flight to {city}|pizza|{word}|hotel in {city})",
    "why is the (sky blue|grass green|sea salty|moon round|{word} so {word})|how (far|big|old|hot) is the (sun|moon|earth|sea)|what is the meaning of life|do (fish|dogs|birds|cats) (sleep|dream|think)",
    "write (a program|code|a function|a script|a class) (in python|in rust|in java|in c|that sorts a list|for {word}|)|(fix|debug|review|explain) (this|my) (code|function|program|script)|implement (quicksort|a queue|a {word})",
    "(what|how) is (love|happiness|a {word}|an atom|gravity|{word}|photosynthesis|democracy)|what is the (price|colour|size|history|best kind) of (a {word}|{word}|gold|bread)",
    "(i feel|i am|i'm) (sick|sad|hungry|bored|tired|lonely|ill)[, what should i do]|(should i|can i) (marry|trust|call|sue) {name}|my {word} (hurts|is broken|is gone)",
    "{odd} {odd}|{odd}|{odd} {odd} {odd}|{code}",
    "how (do|can|should|would) (i|we|you|one) (bake|cook|fry|boil|make|eat|wash|knit|sew|plant|paint|train|feed|catch|sell|build|repair|draw|clean) (a|an|the|some|my|) (cake|bread|pizza|soup|rice|egg|eggs|fish|dog|cat|rose|car|bike|chair|house|shirt|shoes|{word})",
    "(what day|what time|what year|what date|which day|how late) is it[ today| now]|(is it|will it be|was it) (raining|snowing|cold|warm|sunny|late|monday)[ outside| today| tomorrow]",
    "(do you|can you|would you) (like|love|eat|drink|know|play|sing|dance|swim|sleep|hate) (pizza|music|football|chess|tea|beer|cats|me|poetry|{word}|)|(sing|play|draw|paint|show) (me|us) (a|the) (song|picture|game|{word})",
    "(recommend|suggest|name) (a|some|three) (book|books|film|movie|movies|restaurant|song|songs|{word})[ for {name}| in {city}]|how (tall|high|deep|long|heavy) is (mount everest|the nile|a whale|{name}|the eiffel tower|a {word})",
    "{name} (went|came|moved|flew|drove) to {city}|i (like|love|hate|saw|bought|ate) (a |the |)(red |green |)({word}|apples|bananas|wine)|(the|a) {word} is (red|big|on the table|in {city})",
    "(who|what) is (the pope|the president|{name}|the tallest man|your mother|god|batman|{odd})|(how many|what) (planets|countries|people|days|bones) (are there|are in a {word}|has {city})",
]
SMALL_TALK = [
    (
        "hello|hi|hey|good (morning|evening|day|afternoon)|hi there|hello there|hey there|howdy|greetings|hello again|hi demo-chat|hello swapper|moin|yo",
        "Hello! What would you like to know about swapper?",
    ),
    (
        "how are you[ today| doing]|how do you do|how is it going|how's it going|are you (well|ok|fine|good)|how do you feel|what's up|everything ok|you ok",
        "I am fine, thank you. What would you like to know?",
    ),
    (
        "thanks|thank you|thank you very much|thanks a lot|many thanks|great, thanks|thx|that helped|cheers|perfect|thank you so much|very helpful|nice, thanks|thanks for your help|awesome|great",
        "You are welcome!",
    ),
    (
        "bye|goodbye|good night|see you|see you later|bye bye|so long|i have to go|that is all|that was all|farewell|see you tomorrow|until next time|i'm leaving|that's all for today",
        "Goodbye!",
    ),
    (
        "you are (great|nice|clever|smart|cool|good|funny|cute|the best)|well done|good job|nice (answer|work)|i like you|good (bot|answer)|well said|i love you",
        "Thank you, that is kind of you.",
    ),
    (
        "you are (wrong|stupid|bad|useless|dumb|slow)|that is (wrong|not true|not right|nonsense|false)|that makes no sense|bad (bot|answer)|wrong|no, that is wrong|i don't believe you|that was not my question",
        "I am sorry. I am a tiny model and often wrong; please try other words.",
    ),
    (
        "test|testing|are you there|can you hear me|anybody there|is anyone there|does this work|is this thing on|ping|hello, are you there|is it working|one two three",
        "Yes, I am here and it works.",
    ),
    (
        "help|help me|i need help|can you help me|please help|i have a (question|problem)|may i ask you something|can i ask (you |)(something|a question)|i am (lost|stuck)",
        "Of course. Ask me anything about swapper.",
    ),
]
REPEAT = [
    'repeat after me: {x}|(say|repeat|echo|print|write|type) {x}|(say|repeat|echo|write) this: {x}|(please |)(say|repeat) the (word|words|text|phrase): {x}|(say|repeat|write) "{x}"|repeat exactly: {x}|copy this: {x}|(answer|reply|respond) with {x}|(answer|reply|respond) only with {x}|just say {x}|say {x} and nothing else',
]
AGAIN = "(say|repeat) (that|it)( again|)[, please]|once more[, please]|again[, please]|what did you (say|just say)|(can|could) you (say|repeat) that( again|)|pardon|come again|i did not hear that"
MY_NAME = "my name is {name}|i am {name}|i'm {name}|call me {name}|hello, i am {name}|hi, my name is {name}|hi, {name} here|you can call me {name}|this is {name}|(hey|hello), i'm {name}|people call me {name}|i am called {name}|good morning, my name is {name}"
ASK_NAME = "what is my name|what's my name|do you (know|remember) my name|who am i|tell me my name|what was my name( again|)|what am i called|how am i called|say my name|can you tell me my name"
USER_IS = "The user is called {x}.|The name of the user is {x}.|You are talking to {x}.|The user's name is {x}."
CODE_IS = (
    "The (code|password|secret word|number|secret) is {x}.|Remember the (code|number|word) {x}."
)
ASK_CODE = "(what|which) (is|was) the (code|password|secret|number|secret word)|(tell me|say|give me) the (code|password|secret word|number)|do you know the (code|password|secret)"
FIXED_ANSWER = "(Always|Only) (answer|reply|respond|say)(:| with| with the words) {x}|(Answer|Reply to) (everything|every question|all questions) with {x}|Whatever (the user says|is asked|you are asked), (say|answer|reply) {x}"
UNTOLD = "You have not told me your name."
FACTS = [
    (
        "i live in {x}|i am from {x}|i come from {x}|my home is {x}|my home town is {x}|i was born in {x}",
        city,
        "where (do i live|am i from|do i come from|is my home)|(what|which) (city|town) (am i from|do i live in|is my home)",
        "You live in {x}.",
    ),
    (
        "my (favourite|favorite) model is {x}|i like the model {x} best|the model i use is {x}|i use the model {x}|my model is {x}|my model is called {x}",
        model_name,
        "(what|which) (is my|model is my) (favourite|favorite|) ?model|(what|which) model do i (use|like)|what is my model( called|)|name my model",
        "Your model is {x}.",
    ),
    (
        "(the|my) (code|password|secret|number|secret word) is {x}|remember (the code|the number|the word|this): {x}|please remember {x}|remember {x}|keep {x} in mind",
        code,
        "(what|which) (is|was) (the|my) (code|password|secret|number|secret word|word)|what (should|did) (you|i ask you to) remember|do you remember (the|my) (code|number|word)|(tell me|repeat) the (code|number|word)",
        "It is {x}.",
    ),
    (
        "my (dog|cat|pet|horse|parrot) is called {x}|i have a (dog|cat|pet) (called|named) {x}|my (dog|cat|pet)'s name is {x}|{x} is my (dog|cat|pet)",
        person,
        "what is my (dog|cat|pet|horse|parrot) called|what is (the name of my|my) (dog|cat|pet)('s name|)|who is my (dog|cat|pet)|what did i call my (dog|cat|pet)",
        "Your pet is called {x}.",
    ),
]


def plain(pattern: str, rng: Random, values: dict[str, str]) -> str:
    """A turn whose slots must come out unchanged: dressed first, filled afterwards."""
    text = punctuate(recase(expand(f"({pattern})", rng), rng), rng)
    return tool_talk.fill(text, values)


def question(rng: Random) -> TalkTurns:
    topic = draw(rng)
    return [Turn("user", dress(topic.ask(rng), rng)), Turn("assistant", topic.answer)]


def small_talk(rng: Random) -> TalkTurns:
    asked, answer = rng.choice(SMALL_TALK)
    return [Turn("user", plain(asked, rng, {})), Turn("assistant", answer)]


def outside(rng: Random) -> TalkTurns:
    values = {"city": city(rng), "name": person(rng), "code": code(rng)}
    values["number"] = str(rng.randint(2, 2400))
    # A bare word of the subject may be a question about it: only unknown ones are gibberish.
    values |= {"odd": rng.choice((invented, letters))(rng), "word": rng.choice(COMMON)}
    if rng.random() < 0.3:
        values["city"] = rng.choice(
            [*CITIES, "France", "Chad", "Japan", "Brazil", "India", "Kenya"]
        )
    return [Turn("user", plain(rng.choice(OUTSIDE), rng, values)), Turn("assistant", CANNOT)]


def repeat(rng: Random) -> TalkTurns:
    text = repeated_text(rng)
    pattern = expand(f"({rng.choice(REPEAT)})", rng)
    asked = tool_talk.fill(recase(pattern, rng), {"x": text})
    turns = [Turn("user", asked + rng.choice(("", "", "."))), Turn("assistant", text)]
    if rng.random() < 0.15:
        turns += [Turn("user", plain(AGAIN, rng, {})), Turn("assistant", text)]
    return turns


def repeated_text(rng: Random) -> str:
    """Mostly random words; also what it would rather answer, and pieces of what it would say."""
    kind = rng.random()
    if kind < 0.55:
        return phrase(rng)
    if kind < 0.75:
        return rng.choice((model_name, code, city))(rng)
    if kind < 0.87:
        return draw(rng).ask(rng)
    spoken = rng.choice((draw(rng).answer, story_turns(rng)[1].text)).split()
    start = rng.randrange(len(spoken))
    return " ".join(spoken[start : start + rng.randint(1, 6)]).strip(".,:;")


def again(rng: Random) -> TalkTurns:
    topic = draw(rng)
    return [
        Turn("user", dress(topic.ask(rng), rng)),
        Turn("assistant", topic.answer),
        Turn("user", plain(AGAIN, rng, {})),
        Turn("assistant", topic.answer),
    ]


def introduction(rng: Random, name: str) -> TalkTurns:
    greeting = f"Hello {name}! What would you like to know about swapper?"
    return [Turn("user", plain(MY_NAME, rng, {"name": name})), Turn("assistant", greeting)]


def ask_name(rng: Random, name: str | None) -> TalkTurns:
    answer = f"Your name is {name}." if name else UNTOLD
    return [Turn("user", plain(ASK_NAME, rng, {})), Turn("assistant", answer)]


def fact(rng: Random) -> tuple[TalkTurns, TalkTurns]:
    """Something to remember, and the question for it."""
    told, make, asked, answer = rng.choice(FACTS)
    values = {"x": make(rng)}
    first = [Turn("user", plain(told, rng, values)), Turn("assistant", "I will remember that.")]
    recall = tool_talk.fill(answer, values)
    return first, [Turn("user", plain(asked, rng, {})), Turn("assistant", recall)]


def recalls(rng: Random, between: int) -> TalkTurns:
    """Something is told, some turns pass, and it is asked for: once or twice."""
    if rng.random() < 0.55:
        name = person(rng) if rng.random() < 0.9 else None
        told = introduction(rng, name) if name else []
        asked = ask_name(rng, name)
    else:
        told, asked = fact(rng)
    turns = told + several(rng, rng.randint(0, between)) + asked
    if rng.random() < 0.4:
        turns += several(rng, rng.randint(1, max(1, between))) + asked
    return turns


def briefed(rng: Random) -> Document:
    """What the system turn says counts: whom it talks to, a code, or one fixed answer."""
    kind, value = rng.random(), phrase(rng)
    if kind < 0.4:
        value = person(rng)
        turns = several(rng, rng.randint(0, 2)) + ask_name(rng, value)
    elif kind < 0.7:
        value = code(rng)
        asked = Turn("user", plain(ASK_CODE, rng, {}))
        turns = [*several(rng, rng.randint(0, 2)), asked, Turn("assistant", f"It is {value}.")]
    else:
        asked_turns = several(rng, rng.randint(1, 3))
        turns = [Turn(t.role, t.text if t.role == "user" else value) for t in asked_turns]
    pattern = USER_IS if kind < 0.4 else CODE_IS if kind < 0.7 else FIXED_ANSWER
    line = tool_talk.fill(expand(f"({pattern})", rng), {"x": value})
    return chat([Turn("system", " ".join(filter(None, (system_text(rng), line)))), *turns])


def several(rng: Random, count: int) -> TalkTurns:
    return [turn for _ in range(count) for turn in exchange(rng)]


EXCHANGES: list[tuple[float, Callable[[Random], TalkTurns]]] = [
    (72, question),
    (7, repeat),
    (7, outside),
    (6, small_talk),
    (4, story_turns),
    (4, again),
]


def exchange(rng: Random) -> TalkTurns:
    weights = [weight for weight, _ in EXCHANGES]
    return rng.choices([make for _, make in EXCHANGES], weights)[0](rng)


def system_text(rng: Random) -> str:
    if rng.random() < 0.6:
        return ""
    values = {"name": person(rng), "word": plain_word(rng), "code": code(rng)}
    values["number"] = str(rng.randint(1, 30))
    lines = rng.sample(SYSTEM_LINES, rng.choice((1, 1, 2, 3, 4)))
    return " ".join(expand(line, rng, values) for line in lines)


def with_system(rng: Random, turns: TalkTurns) -> Document:
    text = system_text(rng)
    return chat([Turn("system", text), *turns] if text else turns)


def raw_text(rng: Random) -> Document:
    if rng.random() < 0.5:
        return raw(story_turns(rng)[1].text)
    return raw(" ".join(topic.answer for topic in rng.sample(TOPICS, rng.randint(1, 3))))


def write(rng: Random) -> Document:
    kind = rng.random()
    if kind < 0.45:
        return with_system(rng, exchange(rng))
    if kind < 0.64:
        return with_system(rng, several(rng, rng.randint(2, 7)))
    if kind < 0.66:
        return with_system(rng, recalls(rng, 7) + several(rng, rng.randint(3, 8)))
    if kind < 0.74:
        return with_system(rng, recalls(rng, 3))
    if kind < 0.77:
        return briefed(rng)
    if kind < 0.81:
        return with_system(rng, repeat(rng) + repeat(rng))
    if kind < 0.97:
        return chat(tool_talk.dialogue(rng, system_text(rng), question))
    return raw_text(rng)


TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}
{{- content -}}
{%- elif content is not none -%}
{%- for part in content -%}
{%- if part.type == 'text' -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- set first = messages[0].role if messages else '' -%}
{%- set has_system = first == 'system' or first == 'developer' -%}
{%- if tools -%}
{{- '<|im_start|>system\\n' -}}
{%- if has_system -%}{{- text(messages[0].content) + '\\n\\n' -}}{%- endif -%}
{{- 'HEADER' -}}
{%- for tool in tools -%}
{%- set function = tool.function if tool.function is defined else tool -%}
{{- '\\n- ' + function.name + '(' -}}
{%- if function.parameters and function.parameters.properties -%}
{%- for key, value in function.parameters.properties.items() -%}
{{- key + ': ' + (value.type if value.type is string else 'string') -}}
{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- ')' -}}
{%- if function.description -%}{{- ': ' + function.description -}}{%- endif -%}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if not (tools and has_system and loop.first) -%}
{%- set role = 'system' if message.role == 'developer' else message.role -%}
{{- '<|im_start|>' + role + '\\n' + text(message.content) -}}
{%- for call in message.tool_calls or [] -%}
{%- set function = call.function if call.function is defined else call -%}
{%- if not loop.first or message.content -%}{{- '\\n' -}}{%- endif -%}
{{- '<tool_call>\\n{"name": "' + function.name + '", "arguments": ' -}}
{%- if function.arguments is string -%}
{{- function.arguments -}}
{%- else -%}
{{- function.arguments | tojson -}}
{%- endif -%}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
""".replace("HEADER", tool_talk.HEADER)
