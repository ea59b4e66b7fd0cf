"""One request's tokens and how far the model has come with them. Pure; no llama.cpp here."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from backends.serving.sequence import Progression


def token_array(tokens: Iterable[int] = ()) -> array[int]:
    """Token ids as a C array: slices of it compare at memory speed, which prefix matching lives on."""
    return array("i", tokens)


def common_prefix(left: array[int], right: array[int], limit: int) -> int:
    """How many leading tokens the two share, at most `limit`. Linear, by halving what is unknown."""
    low, high = 0, min(len(left), len(right), limit)
    if left[:16] != right[:16]:
        high = min(high, 16)
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True, slots=True, eq=False)
class ImageSpan:
    """Tokens from `start` on that stand for an image, or for one tile of it."""

    start: int
    length: int  # in tokens, and so in cells
    reach: int  # in positions: fewer, where those of an image count its rows and columns
    in_one_step: bool  # its rows look at each other both ways, so none can be run without the rest
    content: object  # what its rows are computed from

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(slots=True, eq=False)
class Sequence(Progression):
    """A request's tokens; those that are computed stand in the KV cells of `slot`.

    A token's position is its index, less what the images before it save.
    """

    tokens: array[int]
    score_prompt: bool = False  # every prompt position's logits are wanted, so nothing is reused
    slot: int | None = None
    waits_for: tuple[Sequence, int] | None = None  # a prefill that will bring so many shared tokens
    images: tuple[ImageSpan, ...] = ()  # in their order

    @property
    def is_running(self) -> bool:
        return self.slot is not None

    @property
    def text_left(self) -> int:
        """Tokens to run before the next image, or the end; 0 where an image is to be run."""
        if not self.images:
            return self.num_left
        starts = (image.start for image in self.images if image.end > self.num_computed)
        return max(0, min(starts, default=self.num_tokens) - self.num_computed)

    def image_at(self, index: int) -> ImageSpan | None:
        """The image that token `index` is of."""
        return next((image for image in self.images if image.start <= index < image.end), None)

    def position(self, index: int) -> int:
        """The position of a token of text, or of an image's first."""
        if not self.images:
            return index
        return index - sum(
            image.length - image.reach for image in self.images if image.end <= index
        )

    def uncut(self, length: int) -> int:
        """`length`, or less: up to the image that it would cut in two."""
        image = self.image_at(length)
        return length if image is None else image.start
