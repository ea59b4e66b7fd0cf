"""The next tokens out of rows of logits, on whatever device these are.

The order is llama.cpp's: bias, penalties, what may not be chosen, top-k, typical, top-p, min-p,
temperature, draw. Repetition is counted over prompt and answer; presence and frequency, as in OpenAI's
API, over the answer alone.

Each of top-k, typical, top-p and min-p leaves the tokens whose logits lie in one interval. So only
values are sorted, equal ones stay or go together, and what is drawn is drawn in the order of the
vocabulary: a row's token depends on its logits, its seed and its position, never on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backends.paged.device import to_device
from backends.serving.engine import SamplingParams

COLDEST = 1e-4  # below this temperature the best is all there is, and dividing by it overflows
FEW = 1024  # likeliest values looked at first for top-p; where they are too few, all are sorted

_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # splitmix64 (Steele, Lea, Flood 2014): a counter and a mixer


@dataclass(frozen=True, slots=True)
class Way:
    """How one sequence's tokens are chosen. `seed` is `params.seed`, or a fresh one where that is None."""

    params: SamplingParams
    seed: int
    banned: frozenset[int] = frozenset()  # never chosen

    @property
    def is_greedy(self) -> bool:
        return self.params.temperature < COLDEST

    @property
    def is_penalised(self) -> bool:
        params = self.params
        return params.repetition_penalty != 1.0 or bool(
            params.presence_penalty or params.frequency_penalty
        )

    @property
    def is_cut(self) -> bool:
        """Whether values must be sorted for it."""
        params = self.params
        return not self.is_greedy and (params.top_k > 0 or min(params.top_p, params.typical_p) < 1)


@dataclass(frozen=True, slots=True)
class History:
    """The tokens so far of the rows named by `Settings.penalised`, in that order."""

    tokens: Tensor  # [P, longest] int64, prompt first; beyond a row's length: anything in the vocabulary
    lengths: Tensor  # [P] int64
    num_prompt: Tensor  # [P] int64

    @classmethod
    def of(
        cls, tokens: Sequence[Sequence[int]], num_prompt: Sequence[int], device: torch.device
    ) -> History:
        lengths = [len(row) for row in tokens]
        padded = torch.zeros(len(tokens), max(lengths, default=0), dtype=torch.int64)
        for row, known in zip(padded, tokens, strict=True):
            row[: len(known)] = torch.as_tensor(known, dtype=torch.int64)
        return cls(
            to_device(padded, device),
            to_device(torch.tensor(lengths, dtype=torch.int64), device),
            to_device(torch.tensor(num_prompt, dtype=torch.int64), device),
        )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Rows that are drawn, D of them, and by what."""

    rows: Tensor  # [D] int64
    keys: Tensor  # [D] int64
    temperatures: Tensor  # [D, 1] float32
    min_gaps: Tensor  # [D, 1] float32, log(min_p): -inf where it is off
    has_min_p: bool


@dataclass(frozen=True, slots=True)
class _Cut:
    """Rows, among those drawn, with top-k, typical or top-p; C of them."""

    rows: Tensor  # [C] int64, places in _Drawn.rows
    top_k: Tensor  # [C, 1] int64; the vocabulary where it is off
    top_p: Tensor  # [C, 1] float64
    typical_p: Tensor  # [C, 1] float64
    count: int  # values to sort at first
    has_typical: bool
    may_need_all: bool  # whether `count` may turn out too few


@dataclass(frozen=True, slots=True)
class _Penalties:
    """Of the penalised rows, P of them."""

    rows: Tensor  # [P] int64
    repetition: Tensor  # [P, 1] float32
    presence: Tensor  # [P, 1] float32
    frequency: Tensor  # [P, 1] float32
    reach: Tensor  # [P, 1] int64, tokens looked back over


@dataclass(frozen=True, slots=True)
class Settings:
    """How B rows are sampled, on their device. Made anew only when the rows change."""

    penalised: tuple[int, ...]  # rows that a History must be given for
    biased: tuple[Tensor, Tensor, Tensor] | None  # rows, tokens, what is added
    banned: tuple[Tensor, Tensor] | None  # rows, tokens
    penalties: _Penalties | None
    drawn: _Drawn | None  # None: all rows are greedy
    cut: _Cut | None

    @classmethod
    def of(cls, ways: Sequence[Way], vocab_size: int, device: torch.device) -> Settings:
        penalised = tuple(i for i, way in enumerate(ways) if way.is_penalised)
        drawn = [i for i, way in enumerate(ways) if not way.is_greedy]
        cut = [place for place, i in enumerate(drawn) if ways[i].is_cut]
        biased = [
            (i, token, bias)
            for i, way in enumerate(ways)
            for token, bias in way.params.logit_bias.items()
            if 0 <= token < vocab_size
        ]
        banned = [(i, token) for i, way in enumerate(ways) for token in sorted(way.banned)]
        on = _Builder(device)
        return cls(
            penalised=penalised,
            biased=(
                on.ints([b[0] for b in biased]),
                on.ints([b[1] for b in biased]),
                on.floats([b[2] for b in biased]),
            )
            if biased
            else None,
            banned=(on.ints([b[0] for b in banned]), on.ints([b[1] for b in banned]))
            if banned
            else None,
            penalties=on.penalties(penalised, ways) if penalised else None,
            drawn=on.drawn(drawn, ways) if drawn else None,
            cut=on.cut(cut, [ways[drawn[place]].params for place in cut], vocab_size)
            if cut
            else None,
        )


class _Builder:
    """Numbers of Python to tensors of one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def ints(self, values: Sequence[int]) -> Tensor:
        return to_device(torch.tensor(values, dtype=torch.int64), self._device)

    def floats(self, values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
        return to_device(torch.tensor(values, dtype=dtype), self._device)

    def penalties(self, rows: Sequence[int], ways: Sequence[Way]) -> _Penalties:
        params = [ways[i].params for i in rows]
        return _Penalties(
            self.ints(rows),
            self.floats([p.repetition_penalty for p in params])[:, None],
            self.floats([p.presence_penalty for p in params])[:, None],
            self.floats([p.frequency_penalty for p in params])[:, None],
            self.ints([p.penalty_last_n if p.penalty_last_n >= 0 else 1 << 40 for p in params])[
                :, None
            ],
        )

    def drawn(self, rows: Sequence[int], ways: Sequence[Way]) -> _Drawn:
        params = [ways[i].params for i in rows]
        gaps = [math.log(min(p.min_p, 1.0)) if p.min_p > 0 else -math.inf for p in params]
        return _Drawn(
            self.ints(rows),
            self.ints([_as_signed(_mix(ways[i].seed & _MASK64)) for i in rows]),
            self.floats([p.temperature for p in params])[:, None],
            self.floats(gaps)[:, None],
            has_min_p=any(p.min_p > 0 for p in params),
        )

    def cut(self, rows: Sequence[int], params: Sequence[SamplingParams], vocab_size: int) -> _Cut:
        top_k = [p.top_k if 0 < p.top_k < vocab_size else vocab_size for p in params]
        # Typical prefers neither end of the distribution: without a small top-k all values count.
        needs_all = any(
            k > FEW and (k < vocab_size or p.typical_p < 1)
            for k, p in zip(top_k, params, strict=True)
        )
        largest = max(top_k)
        count = vocab_size if needs_all else min(largest, FEW, vocab_size)
        return _Cut(
            self.ints(rows),
            self.ints(top_k)[:, None],
            self.floats([p.top_p for p in params], torch.float64)[:, None],
            self.floats([p.typical_p for p in params], torch.float64)[:, None],
            count,
            has_typical=any(p.typical_p < 1 for p in params),
            may_need_all=count < largest,
        )


def sample(
    logits: Tensor,
    settings: Settings,
    positions: Tensor,
    history: History | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """One token for each row of `logits`, [B, V] float32: [B] int64; -1 where nothing may follow.

    `positions`, [B] int64, are the positions that the tokens will have in their sequences; with the
    seed they choose the random number. `history` goes with `settings.penalised`. `mask`,
    [B, ceil(V / 32)] int32, has the bit of every token that may follow. `logits` is not changed.
    """
    shaped = _shape(logits, settings, history, mask)
    top, tokens = shaped.max(dim=-1)
    drawn = settings.drawn
    if drawn is not None:
        is_every = len(drawn.rows) == len(logits)
        values = shaped if is_every else shaped.index_select(0, drawn.rows)
        chosen = _draw(values, drawn, settings.cut, positions.index_select(0, drawn.rows))
        tokens = chosen if is_every else tokens.index_copy(0, drawn.rows, chosen)
    return tokens.masked_fill(top == -math.inf, -1)


def _shape(
    logits: Tensor, settings: Settings, history: History | None, mask: Tensor | None
) -> Tensor:
    biased, penalties, banned = settings.biased, settings.penalties, settings.banned
    if biased is None and penalties is None and banned is None and mask is None:
        return logits
    shaped = logits.clone()
    if biased is not None:
        shaped.index_put_(biased[:2], biased[2], accumulate=True)
    if penalties is not None:
        if history is None:
            raise ValueError("penalties need the tokens so far")
        values = shaped.index_select(0, penalties.rows)
        shaped.index_copy_(0, penalties.rows, _penalised(values, penalties, history))
    if banned is not None:
        shaped.index_put_(banned, shaped.new_full((), -math.inf))
    if mask is not None:
        shaped.masked_fill_(~_allowed(mask, logits.shape[1]), -math.inf)
    return shaped


def _penalised(values: Tensor, penalties: _Penalties, history: History) -> Tensor:
    places = torch.arange(history.tokens.shape[1], device=values.device)
    lengths = history.lengths[:, None]
    near = (places < lengths) & (places >= lengths - penalties.reach)
    answered = near & (places >= history.num_prompt[:, None])
    seen = torch.zeros_like(values).scatter_add_(1, history.tokens, near.to(values.dtype)) > 0
    counts = torch.zeros_like(values).scatter_add_(1, history.tokens, answered.to(values.dtype))
    weaker = torch.where(values > 0, values / penalties.repetition, values * penalties.repetition)
    values = torch.where(seen, weaker, values)
    taken = penalties.presence + penalties.frequency * counts
    return torch.where(counts > 0, values - taken, values)


def _allowed(mask: Tensor, vocab_size: int) -> Tensor:
    """[B, ceil(V / 32)] int32 -> [B, V] bool"""
    if mask.shape[1] != (vocab_size + 31) // 32:
        raise ValueError(f"a mask of {mask.shape[1]} words for {vocab_size} tokens")
    bits = torch.arange(32, dtype=torch.int32, device=mask.device)
    return ((mask[..., None] >> bits) & 1).flatten(1)[:, :vocab_size].bool()


def _draw(values: Tensor, drawn: _Drawn, cut: _Cut | None, positions: Tensor) -> Tensor:
    """[D, V] -> [D]"""
    top = values.amax(dim=-1, keepdim=True)
    best = top
    if cut is not None:
        everyone = len(cut.rows) == len(values)
        low, high = _interval(values if everyone else values.index_select(0, cut.rows), cut)
        if not everyone:
            low = torch.full_like(top, -math.inf).index_copy_(0, cut.rows, low)
            high = top.index_copy(0, cut.rows, high)
        values = values.masked_fill((values < low) | (values > high), -math.inf)
        best = high
    if drawn.has_min_p:
        values = values.masked_fill(values < best + drawn.min_gaps, -math.inf)
    weights = ((values - best) / drawn.temperatures).exp_().to(torch.float64).cumsum_(dim=-1)
    wanted = _uniform(drawn.keys, positions)[:, None] * weights[:, -1:]
    # The first whose sum exceeds what is wanted: its weight is not zero.
    return (
        torch.searchsorted(weights, wanted, right=True).squeeze(1).clamp_(max=values.shape[1] - 1)
    )


def _interval(values: Tensor, cut: _Cut) -> tuple[Tensor, Tensor]:
    """The lowest and the highest logit, [C, 1] each, that top-k, typical and top-p leave."""
    norms = values.logsumexp(dim=-1, keepdim=True).to(torch.float64)
    best = _largest(values, cut.count)
    shares = _shares(best, norms, cut)
    if cut.may_need_all and bool(_is_short(shares, cut).any()):  # the one wait for the device
        best = _largest(values, values.shape[1])
        shares = _shares(best, norms, cut)
    kept = shares > 0
    if cut.has_typical:
        kept &= (cut.typical_p >= 1) | _typical(shares, cut.typical_p)
    shares = shares * kept
    before = shares.cumsum(-1) - shares
    wanted = cut.top_p * shares.sum(-1, keepdim=True)
    kept &= (cut.top_p >= 1) | (before < wanted) | (before == 0)
    low = best.masked_fill(~kept, math.inf).amin(dim=-1, keepdim=True)
    high = best.masked_fill(~kept, -math.inf).amax(dim=-1, keepdim=True)
    return low, high


def _is_short(shares: Tensor, cut: _Cut) -> Tensor:
    """Where more values than these have to be looked at for top-p."""
    return (cut.top_k > shares.shape[1]) & (shares.sum(-1, keepdim=True) < cut.top_p)


def _largest(values: Tensor, count: int) -> Tensor:
    if count < values.shape[1]:
        return values.topk(count, dim=-1).values
    return values.sort(dim=-1, descending=True).values


def _shares(best: Tensor, norms: Tensor, cut: _Cut) -> Tensor:
    """What share of the distribution that top-k leaves each of the largest has; 0 beyond top-k."""
    ranks = torch.arange(best.shape[1], device=best.device)
    shares = (best.to(torch.float64) - norms).exp_().masked_fill_(ranks >= cut.top_k, 0.0)
    is_whole = cut.top_k > best.shape[1]
    return shares / torch.where(is_whole, 1.0, shares.sum(-1, keepdim=True))


def _typical(shares: Tensor, mass: Tensor) -> Tensor:
    """Those whose surprise is closest to what is to be expected, as many as make up `mass`."""
    surprise = -shares.clamp(min=1e-300).log_()
    distance = (surprise - (shares * surprise).sum(-1, keepdim=True)).abs_()
    closest, order = distance.sort(dim=-1, stable=True)
    sums = shares.gather(1, order).cumsum_(-1)
    last = (sums < mass * sums[:, -1:]).sum(-1, keepdim=True).clamp_(max=shares.shape[1] - 1)
    return distance <= closest.gather(1, last)


@dataclass(frozen=True, slots=True)
class Scores:
    """Logprobs of the model's own distribution, before anything was done to it."""

    chosen: Tensor  # [n] float32
    top_ids: Tensor  # [n, num_top] int64, likeliest first
    top: Tensor  # [n, num_top] float32


def score(logits: Tensor, tokens: Tensor, num_top: int) -> Scores:
    """Of `tokens`, [n], and the `num_top` likeliest, in rows of `logits`, [n, V]."""
    norms = logits.logsumexp(dim=-1, keepdim=True)
    best = logits.topk(min(num_top, logits.shape[1]), dim=-1)
    chosen = logits.gather(1, tokens[:, None]) - norms
    return Scores(chosen.squeeze(1), best.indices, best.values - norms)


def _uniform(keys: Tensor, positions: Tensor) -> Tensor:
    """[D] float64 in [0, 1): the number that each sequence has for each position.

    52 bits: one less than a double holds, so that its product with a sum stays below the sum.
    """
    bits = _mix_tensor(keys + positions * _as_signed(_GOLDEN))
    return (_shift_right(bits, 12)).to(torch.float64) * 2.0**-52


def _mix_tensor(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _as_signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift_right(z, 27)) * _as_signed(0x94D049BB133111EB)
    return z ^ _shift_right(z, 31)


def _mix(z: int) -> int:
    z = (z + _GOLDEN) & _MASK64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK64
    return z ^ (z >> 31)


def _shift_right(z: Tensor, by: int) -> Tensor:
    """Of int64 taken as unsigned."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def _as_signed(z: int) -> int:
    return z - (1 << 64) if z >> 63 else z
