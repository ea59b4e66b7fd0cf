"""A vocabulary is read ahead, and nothing stands still meanwhile."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from itertools import pairwise

import pytest

from backends.serving import constraint, masks
from backends.serving.constraint import Compiler, GrammarError, Vocabulary
from backends.serving.masks import MaskError, Trie, Words
from tests.serving.test_forced_calls import END, Tokens


class Counted(Tokens):
    """A vocabulary that counts how often it is looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.num_reads = 0

    def piece(self, token: int) -> bytes:
        self.num_reads += 1
        return super().piece(token)


def test_what_is_prepared_is_not_read_again() -> None:
    async def main() -> None:
        tokens = Counted()
        compiler = Compiler(tokens, tokens.size)
        await compiler.prepare()
        read = tokens.num_reads
        assert read >= tokens.size
        await compiler.compile('start: "a"')
        assert tokens.num_reads == read
        await compiler.close()

    asyncio.run(main())


def test_preparing_ends_when_it_is_not_wanted_any_more() -> None:
    tokens = Counted()
    vocabulary = Vocabulary(tokens, tokens.size)
    vocabulary.prepare(lambda: False)
    assert tokens.num_reads <= tokens.size
    vocabulary.compile('start: "a"')
    assert tokens.num_reads > tokens.size


def test_who_needs_a_grammar_does_not_wait_for_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraint, "_PAUSE_S", 3600)

    async def main() -> None:
        tokens = Counted()
        compiler = Compiler(tokens, tokens.size)
        preparing = asyncio.create_task(compiler.prepare())
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await compiler.compile('start: "a"')
            await preparing
        await compiler.close()

    asyncio.run(main())


def test_threads_run_on_while_a_large_vocabulary_is_read() -> None:
    chance = random.Random(1)
    letters = b"abcdefghijklmnopqrstuvwxyz "
    words = Words(
        [b"\xff<end>", *(bytes(chance.choices(letters, k=8)) for _ in range(150_000))], [0]
    )
    moments = [time.perf_counter()]
    reading = threading.Thread(target=Trie, args=(words, lambda text: [1], ["[a-z]+"]))
    reading.start()
    while reading.is_alive():
        time.sleep(0.001)
        moments.append(time.perf_counter())
    longest = max(b - a for a, b in pairwise(moments))
    assert longest < (moments[-1] - moments[0]) / 2


def test_several_tokens_end_an_answer() -> None:
    trie = Trie(Words([b"a", b"b", b"\xff<one>", b"\xff<two>"], [2, 3]), lambda text: [0], [])
    matcher = trie.compile('start: "a"')
    assert int.from_bytes(matcher.mask(), "little") == 0b0001
    copy = matcher.copy()
    matcher.accept(0)
    assert int.from_bytes(matcher.mask(), "little") == 0b1100
    assert int.from_bytes(copy.mask(), "little") == 0b0001


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ("start: x", "unknown name"),
        ('start: "a\0"', "NUL"),
        ('start: "\ud800"', "surrogate"),
        ("start: X\nX: /a/ & /b/", "no answer fits"),
        ('start: %json {"$ref": "#"}', "no answer fits"),
    ],
)
def test_a_grammar_that_cannot_be_followed_is_refused(rules: str, reason: str) -> None:
    with pytest.raises(GrammarError, match=reason):
        Vocabulary(Tokens(), END + 1).compile(rules)


def test_what_is_said_of_a_lost_answer_does_not_show_the_grammar() -> None:
    trie = Trie(Words([b"a", b"\xff<end>"], [1]), lambda text: [0], [])
    matcher = trie.compile('start: "aaa"')
    with pytest.raises(MaskError) as raised:
        matcher.accept(1)
    assert len(str(raised.value)) < 200
    with pytest.raises(MaskError):
        matcher.mask()


def test_all_that_was_made_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[str] = []
    library = masks._library()

    def watch(name: str) -> None:
        free = getattr(library, name)
        monkeypatch.setattr(library, name, lambda pointer: (freed.append(name), free(pointer)))

    watch("llg_free_matcher")
    watch("llg_free_tokenizer")
    matcher = Trie(Words([b"a", b"\xff<end>"], [1]), lambda text: [0], []).compile('start: "a"')
    del matcher
    gc.collect()
    assert freed == ["llg_free_matcher", "llg_free_tokenizer"]
