"""That nothing waits for a device but what is meant to, on a device that computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError

from backends.paged import kernels
from backends.paged.architectures import describe
from backends.paged.arena import Arena, cache_shape
from backends.paged.batch import KvCache
from backends.paged.block_manager import BlockManager
from backends.paged.chooser import Chooser
from backends.paged.decoder import Decoder
from backends.paged.device import to_device
from backends.paged.engine import _Work
from backends.paged.graphs import _SharedMemoryCapture
from backends.paged.runner import Runner
from backends.paged.scheduler import Chunk, Scheduler
from backends.paged.sequence import Sequence
from backends.paged.stepper import Answer, Embedding, Pooling, Stepper
from backends.serving.engine import EngineError, GenerateRequest, SamplingParams
from tests.paged.checkpoints import LLAMA
from tests.paged.fake_device import CUDA, FakeDevice, Waits, fake_device, pinned
from tests.paged.models.test_architectures import CASES

CONTEXT = 4096
SMALL = LLAMA | {"vocab_size": 3000, "max_position_embeddings": CONTEXT}
CUTS = [
    {"top_k": top_k, "top_p": top_p, "min_p": min_p, "typical_p": typical_p}
    for top_k in (0, 5, 2000)
    for top_p in (1.0, 0.9)
    for min_p in (0.0, 0.1)
    for typical_p in (1.0, 0.8)
]
SHAPES: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.1, "penalty_last_n": 3},
    {"presence_penalty": 0.5, "frequency_penalty": 0.5},
    {"logit_bias": {3: 1.0}},
    {"ignore_eos": True},
    {"logprobs": 0},
    {"logprobs": 4},
    {"grammar": True},
]


FAULTS: dict[str, Callable[[Tensor], object]] = {
    "a value": lambda x: x.sum().item(),
    "a truth": lambda x: bool((x > 0).any()),
    "all values": lambda x: x.tolist(),
    "equal": lambda x: torch.equal(x, x + 1),
    "where": lambda x: x.nonzero(),
    "by bools": lambda x: x[x > 0],
    "by bools, written": lambda x: x.__setitem__(x > 0, 1.0),
    "selected": lambda x: x.masked_select(x > 0),
    "once each": lambda x: x.unique(),
    "repeated": lambda x: x.repeat_interleave(x.long()),
    "not known": lambda x: x.multinomial(1),
    "made there": lambda x: torch.tensor([1.0, 2.0], device=CUDA),
    "blocking": lambda x: pinned(torch.ones(3)).to(CUDA),
    "not pinned": lambda x: torch.ones(3).to(CUDA, non_blocking=True),
    "converted": lambda x: pinned(torch.ones(3)).to(CUDA, torch.float64, non_blocking=True),
    "with gaps": lambda x: pinned(torch.ones(3, 4)[:, 1:]).to(CUDA, non_blocking=True),
    "blocking back": lambda x: x.cpu(),
    "converted back": lambda x: x.to("cpu", torch.float64, non_blocking=True),
    "into what is not pinned": lambda x: torch.ones(3).copy_(x, non_blocking=True),
    "written blocking": lambda x: x.copy_(torch.ones(3)),
    "by places on the host": lambda x: x[torch.tensor([1])],
    "two devices": lambda x: x + torch.ones(3),
    "two devices, selected": lambda x: x.index_select(0, torch.tensor([1])),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_waits_is_seen(fault: str, inference: bool) -> None:
    with fake_device(), torch.inference_mode(inference):
        values = torch.zeros(3, device=CUDA)
        with pytest.raises((AssertionError, FakeTensorDeviceMismatchError)):
            FAULTS[fault](values)


def capture(step: Callable[[], Tensor]) -> None:
    with fake_device():
        _SharedMemoryCapture()(step)


def test_a_capture_that_copies_from_the_host_is_seen() -> None:
    with pytest.raises(Waits, match="same place"):
        capture(lambda: to_device(torch.ones(3), CUDA))


def test_a_capture_that_compiles_is_seen() -> None:
    def step() -> Tensor:
        rows = torch.zeros(3, 64, device=CUDA)
        return kernels.rms_norm(rows, rows[0], 1e-5)

    with pytest.raises(AssertionError, match="compiles _norm"):
        capture(step)
    with fake_device():
        step()
        _SharedMemoryCapture()(step)


def test_a_capture_that_leaves_something_in_the_memory_of_others_is_seen() -> None:
    left = []

    def step() -> Tensor:
        left.append(torch.zeros(3, device=CUDA))
        return left[-1] + 1

    with pytest.raises(AssertionError, match="only its result"):
        capture(step)


def decoder_of(config: dict[str, Any]) -> Decoder:
    """It has no memory yet."""
    return Decoder(describe(config)[0], torch.bfloat16, "meta", CONTEXT)


def arena_of(decoder: Decoder, num_blocks: int = 64) -> Arena:
    image = pinned(torch.empty(decoder.num_bytes, dtype=torch.uint8))
    decoder.place(image)
    return Arena(decoder, image, num_blocks, CUDA)


def sequence(serial: int, length: int) -> Sequence:
    made = Sequence(serial, [1] * length, 99)
    made.seat, made.blocks = serial, list(range(8 * serial, 8 * serial + 8))
    return made


BY_TYPE = dict(reversed(CASES.values()))


@pytest.mark.parametrize("model_type", BY_TYPE)
def test_every_architecture(model_type: str) -> None:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from tests.paged.models.oracle import TINY

    config = transformers.AutoConfig.for_model(model_type, **(TINY | BY_TYPE[model_type])).to_dict()
    decoder = decoder_of(
        config | {"architectures": [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]]}
    )
    with fake_device() as device:
        runner = Runner(decoder, CUDA, max_running=4, context=CONTEXT)
        decoder.place(torch.empty(decoder.num_bytes, dtype=torch.uint8, device=CUDA))
        runner.cache = KvCache.view(
            torch.empty(1 << 20, dtype=torch.uint8, device=CUDA), *cache_shape(decoder)
        )
        runner.warm_up(64)
        assert device.log.count("capture") == 1
        chunks = [Chunk(sequence(0, 40), 39, 1), Chunk(sequence(1, 30), 3, 27)]
        hidden = runner.run(chunks)
        logits = runner.logits(hidden, [0, 27])
        assert (logits.device, logits.shape, logits.dtype) == (CUDA, (2, 97), torch.float32)
        assert not device.waits


def test_without_triton_nothing_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.paged.device.HAS_TRITON", False)
    with fake_device():
        assert Runner(decoder_of(SMALL), CUDA, max_running=4, context=CONTEXT).graphs is None


class Anything:
    """A grammar that allows all that there is."""

    def start(self) -> Anything:
        return self

    def mask(self) -> bytes:
        return b"\xff" * (4 * -(-SMALL["vocab_size"] // 32))

    def accept(self, token: int) -> bool:
        return False


def answer(serial: int, *, prompt: int = 20, count: int = 6, **settings: Any) -> Answer:
    if settings.get("grammar"):
        settings["grammar"] = Anything()
    prompt_logprobs = settings.pop("prompt_logprobs", False)
    request = GenerateRequest(
        prompt=[1 + serial] * prompt,
        max_tokens=count,
        sampling=SamplingParams(seed=1, **settings),
        prompt_logprobs=prompt_logprobs,
    )
    return Answer.of(request, serial, frozenset({7}))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_way_of_choosing(shape: dict[str, Any]) -> None:
    rows = [answer(i, temperature=0.8, **shape, **cut) for i, cut in enumerate(CUTS)]
    greedy = answer(99, temperature=0.0, **shape)
    groups = [[greedy], *([row] for row in rows), [*rows, greedy, answer(100)]]
    size = SMALL["vocab_size"]
    with fake_device() as device:
        chooser = Chooser(size, CUDA)
        for group in groups:
            logits = torch.zeros(len(group), size, device=CUDA)
            masks = [row.constraint and row.constraint.mask() for row in group]
            chosen = chooser.choose(logits, group, masks)
            assert (chosen.tokens.device, chosen.tokens.shape) == (CUDA, (len(group),))
            assert not device.waits
            tokens = chosen.read()
            assert [token and token.id for token in tokens] == [0] * len(group)
            assert device.waits.pop() == 0


class TestSteps:
    @pytest.fixture
    def device(self) -> Iterator[FakeDevice]:
        with fake_device() as device:
            yield device

    @pytest.fixture
    def decoder(self) -> Decoder:
        return decoder_of(SMALL)

    @pytest.fixture
    def arena(self, decoder: Decoder, device: FakeDevice) -> Arena:
        return arena_of(decoder)

    @pytest.fixture
    def stepper(self, decoder: Decoder, arena: Arena, device: FakeDevice) -> Stepper:
        runner = Runner(decoder, CUDA, max_running=4, context=CONTEXT)
        runner.cache = arena.cache
        scheduler = Scheduler(BlockManager(64), budget=32, max_running=4)
        chooser = Chooser(SMALL["vocab_size"], CUDA)
        stepper = Stepper(scheduler, runner, chooser, frozenset({7}), overlaps=True)
        stepper.warm_up()
        assert device.waits.pop() == 0
        return stepper

    def test_what_is_read_was_launched_a_step_before(
        self, stepper: Stepper, device: FakeDevice
    ) -> None:
        """So that the device has something to do while the host reads and tells it."""
        tasks = [
            answer(0),
            answer(1, prompt=100, prompt_logprobs=True, logprobs=2),
            answer(2, repetition_penalty=1.1, temperature=0.0),
            answer(3, grammar=True),
            answer(4, prompt=1, count=9),
            *(Embedding.of([9] * 50, 5 + i, "", how) for i, how in enumerate(get_args(Pooling))),
        ]
        for task in tasks:
            stepper.submit(task)
        compiled = set(device.compiled)
        outcomes = []
        while stepper.has_work:
            outcomes += stepper.step()
        assert {task for task, _ in outcomes} == set(tasks)
        assert not any(isinstance(item, EngineError) for _, item in outcomes)
        *before, last = device.waits
        assert min(before) > 20  # a step's launches
        assert last < 5  # nothing follows
        assert device.compiled == compiled  # nobody waited for a compiler

    def test_asleep_it_holds_nothing_of_the_device(
        self, stepper: Stepper, arena: Arena, device: FakeDevice
    ) -> None:
        work = _Work(stepper, arena, lambda outcomes: None)
        big = stepper.runner.decoder.num_bytes
        for _ in range(2):
            stepper.submit(answer(0, presence_penalty=1.0))
            stepper.submit(Embedding.of([9] * 50, 1, "", "mean"))
            while stepper.has_work:
                stepper.step()
            assert device.held() > big
            assert device.graphs
            device.log.clear()
            work.sleep()
            assert device.log == ["synchronize", "empty_cache"]
            assert device.held() < big / 20
            assert not device.graphs
            work.wake()

    def test_without_room_it_does_not_wake_and_holds_nothing(
        self, stepper: Stepper, arena: Arena, device: FakeDevice
    ) -> None:
        work = _Work(stepper, arena, lambda outcomes: None)
        work.sleep()
        asleep = device.held()
        for share in (0.5, 1.1):  # of the weights; of these and the KV cache
            device.capacity = asleep + int(share * stepper.runner.decoder.num_bytes)
            with pytest.raises(EngineError) as caught:
                work.wake()
            assert caught.value.kind == "out_of_memory"
            assert device.held() == asleep
        device.capacity = None
        work.wake()
        stepper.submit(answer(0))
        assert not stepper.step()

    def test_a_step_without_room_fails_alone_unless_all_do(
        self, stepper: Stepper, device: FakeDevice
    ) -> None:
        def failed() -> list[Any]:
            stepper.submit(answer(0))
            device.capacity = device.held()
            with pytest.raises(torch.OutOfMemoryError) as caught:
                stepper.step()
            device.capacity = None
            return [(item.kind, item.reason) for _, item in stepper.fail(caught.value)]

        def works() -> None:
            stepper.submit(answer(0))
            while stepper.has_work:
                stepper.step()

        short = "there is not enough memory"
        again = f"The model failed to compute ({short}); the request can be sent again"
        for _ in range(2):
            assert failed() == failed() == [("unavailable", again)]
            works()
        assert failed() == failed() == [("unavailable", again)]
        assert failed() == [("crashed", f"The model cannot compute any more: {short}")]
