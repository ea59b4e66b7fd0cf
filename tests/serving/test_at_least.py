"""`min_tokens` as a grammar: alone, and within another."""

from __future__ import annotations

from backends.serving.at_least import AtLeast
from backends.serving.engine import Constraint

SIZE = 40  # tokens: two words of a mask
END, OTHER_END, TEXT = 3, 39, 5


def allowed(constraint: Constraint) -> set[int]:
    mask = constraint.mask()
    assert len(mask) == 8
    bits = int.from_bytes(mask, "little")
    return {token for token in range(SIZE) if bits >> token & 1}


class Given:
    """A grammar that allows the same tokens each time, and is complete by the last of `num_tokens`."""

    def __init__(self, tokens: set[int], num_tokens: int = 99) -> None:
        self.tokens = tokens
        self.num_tokens = num_tokens

    def start(self) -> Given:
        return Given(self.tokens, self.num_tokens)

    def mask(self) -> bytes:
        return sum(1 << token for token in self.tokens).to_bytes(8, "little")

    def accept(self, token: int) -> bool:
        assert token in self.tokens
        self.num_tokens -= 1
        return self.num_tokens == 0


def test_nothing_ends_it_before_its_time() -> None:
    grammar = AtLeast(2, [END, OTHER_END], SIZE, None)
    one, other = grammar.start(), grammar.start()
    everything = set(range(SIZE))
    for _ in range(2):
        assert allowed(one) == everything - {END, OTHER_END}
        assert not one.accept(TEXT)
    assert allowed(one) == everything
    assert allowed(other) == everything - {END, OTHER_END}  # each answer counts its own


def test_within_a_grammar() -> None:
    constraint = AtLeast(2, [END], SIZE, Given({END, TEXT, 7}, 3)).start()
    for _ in range(2):
        assert allowed(constraint) == {TEXT, 7}
        assert not constraint.accept(TEXT)
    assert allowed(constraint) == {END, TEXT, 7}
    assert constraint.accept(TEXT)  # the grammar says that it is complete


def test_a_grammar_that_lets_nothing_else_follow_ends_it() -> None:
    constraint = AtLeast(9, [END], SIZE, Given({END})).start()
    assert allowed(constraint) == {END}
