"""The two demo models: what each is made of and how long it is trained."""

from dataclasses import dataclass

from training import corpus_chat, corpus_story
from training.batches import Writer
from training.model import Shape


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str
    summary: str
    write: Writer
    template: str
    pre_tokenizer: str
    shape: Shape
    steps: int
    quantise: bool
    seed: int = 2026


CHAT = Recipe(
    name="demo-chat",
    summary="Answers questions about swapper",
    write=corpus_chat.write,
    template=corpus_chat.TEMPLATE,
    pre_tokenizer="smollm",
    shape=Shape(
        vocab_size=1024,
        hidden=256,
        layers=4,
        heads=4,
        kv_heads=2,
        head_dim=64,
        ffn=512,
        context=2048,
    ),
    steps=2300,
    quantise=False,
)
STORY = Recipe(
    name="demo-story",
    summary="Tells short stories",
    write=corpus_story.write,
    template=corpus_story.TEMPLATE,
    pre_tokenizer="qwen2",
    shape=Shape(
        vocab_size=1536,
        hidden=256,
        layers=3,
        heads=4,
        kv_heads=1,
        head_dim=64,
        ffn=512,
        context=1024,
    ),
    steps=1100,
    quantise=True,
)
RECIPES = {recipe.name: recipe for recipe in (CHAT, STORY)}
