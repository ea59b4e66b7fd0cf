"""Trains one demo model and exports it: `python -m training.train demo-chat --out swapper/demo`.

Steps and seed are fixed, but bf16 sums differ between processors: a second run gives a model as
good, not the same bytes.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from training.batches import Encoded, Writer, batch, endless
from training.export import export
from training.model import Llama
from training.recipes import RECIPES, Recipe
from training.tokenizer import train_tokenizer

LEARNING_RATE, LOWEST, WARM_UP = 2e-3, 0.03, 60
TOKENS_PER_STEP, SHORT = 8192, 512
SHORT_SHARE = 0.78  # the rest is trained at full context, or long chats would be new to the model
TOKENIZER_DOCUMENTS = 6000


def main() -> None:
    arguments = parse()
    recipe = RECIPES[arguments.name]
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(recipe.seed)
    tokenizer, model = begin(recipe, arguments.start)
    train(model, recipe, tokenizer, arguments.steps or recipe.steps, arguments.checkpoint)
    export(model, recipe, tokenizer, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a demo model and export it.")
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, required=True, help="folder for the model's files")
    parser.add_argument("--steps", type=int, help="train for fewer steps, to try things out")
    parser.add_argument("--start", type=Path, help="go on from an exported model's folder")
    parser.add_argument("--checkpoint", type=Path, help="file to save the weights in on the way")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def begin(recipe: Recipe, start: Path | None) -> tuple[Tokenizer, Llama]:
    model = Llama(recipe.shape)
    if start is None:
        return make_tokenizer(recipe), model
    model.load_state_dict(load_file(start / "model.safetensors"))
    return Tokenizer.from_file(str(start / "tokenizer.json")), model


def make_tokenizer(recipe: Recipe) -> Tokenizer:
    texts = plain_texts(recipe.write, Random(recipe.seed))
    return train_tokenizer(texts, recipe.pre_tokenizer, recipe.shape.vocab_size)


def plain_texts(write: Writer, rng: Random) -> Iterator[str]:
    for _ in range(TOKENIZER_DOCUMENTS):
        yield from (segment.text for segment in write(rng))


def train(
    model: Llama, recipe: Recipe, tokenizer: Tokenizer, steps: int, checkpoint: Path | None
) -> None:
    started = time.monotonic()
    source = endless(recipe.write, Random(recipe.seed + 1), tokenizer)
    optimisers = make_optimisers(model)
    loss_of = torch.compile(model.loss, dynamic=False)
    for step in range(steps):
        tokens, weights = next_batch(source, step, steps, recipe)
        set_rate(optimisers, step, steps)
        loss = one_step(model, loss_of, optimisers, tokens, weights)
        if step % 50 == 0 or step == steps - 1:
            minutes = (time.monotonic() - started) / 60
            print(f"step {step:5d}  loss {loss:.3f}  {minutes:5.1f} min", flush=True)
        if checkpoint and step % 200 == 199:
            torch.save(model.state_dict(), checkpoint)


def next_batch(
    source: Iterator[Encoded], step: int, steps: int, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    length = SHORT if step < steps * SHORT_SHARE else recipe.shape.context
    return batch(source, TOKENS_PER_STEP // length, length)


def make_optimisers(model: Llama) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embedding and norms."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and "embed" not in name
        (matrices if is_matrix else others).append(parameter)
    return [
        torch.optim.Muon(matrices, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def set_rate(optimisers: list[torch.optim.Optimizer], step: int, steps: int) -> None:
    fall = 0.5 * (1 + math.cos(math.pi * step / steps))
    rate = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * (LOWEST + (1 - LOWEST) * fall)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate


def one_step(
    model: Llama,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimisers: list[torch.optim.Optimizer],
    tokens: Tensor,
    weights: Tensor,
) -> float:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(tokens, weights)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad()
    return float(loss.detach())


if __name__ == "__main__":
    main()
