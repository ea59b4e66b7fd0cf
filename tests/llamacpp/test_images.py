"""Images: the engine's answers are those of libmtmd's own way through the same prompt."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from backends.llamacpp import loader
from backends.llamacpp import projector as projector_module
from backends.llamacpp.start import load
from backends.serving.engine import EngineError, GenerateRequest, SamplingParams, SeenPrompt
from tests.llamacpp.conftest import write_model
from tests.llamacpp.projectors import answer_by_libmtmd, png, write_projector

BEFORE = "It was a bright cold day in April, and this is what the clocks saw: "
AFTER = " So what was striking thirteen?"
KINDS = ["mlp", "tiles", "gemma3", "qwen2vl_merger"]
COUNT = 12


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Model and projector of each kind."""
    folder = tmp_path_factory.mktemp("images")
    plain = write_model(folder / "plain.gguf")
    grid = write_model(folder / "grid.gguf", architecture="qwen2vl", sections=[4, 2, 2, 0])
    return {
        kind: (
            grid if kind == "qwen2vl_merger" else plain,
            write_projector(folder / f"mmproj-{kind}.gguf", kind),
        )
        for kind in KINDS
    }


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


class Seer:
    """Asks an engine about images."""

    def __init__(self, engine) -> None:
        self.engine = engine

    async def request(self, parts, count=COUNT, scope="") -> GenerateRequest:
        seen: SeenPrompt = await self.engine.see(parts, add_special=False)
        sampling = SamplingParams(temperature=0.0, ignore_eos=True, logprobs=4)
        return GenerateRequest(seen.tokens, count, sampling, scope, images=seen.images)

    async def ask(self, parts, **more):
        """The answer's tokens, and how much of the prompt was taken over."""
        steps = [step async for step in self.engine.generate(await self.request(parts, **more))]
        return [token for step in steps for token in step.tokens], steps[0].num_cached_tokens


def prompt(*images: bytes) -> list[str | bytes]:
    parts: list[str | bytes] = [BEFORE]
    for image in images:
        parts += [image, AFTER]
    return parts


def assert_as_by_libmtmd(tokens, files: tuple[Path, Path], parts) -> None:
    expected, rows = answer_by_libmtmd(*files, parts, COUNT)
    for token, id, row in zip(tokens, expected, rows, strict=True):
        shifted = row - row.max()
        assert token.id == id, f"{token.id} is {shifted[token.id]} behind {id}"


@pytest.mark.parametrize("options", [{}, {"batch": 16}, {"parallel": 1}])
async def test_answers_are_those_of_libmtmd(open_engine, files, kind, options) -> None:
    model, projector = files[kind]
    parts = prompt(png(1), png(2, 96, 32))
    async with open_engine(model, mmproj=str(projector), **options) as engine:
        tokens, _ = await Seer(engine).ask(parts)
    assert_as_by_libmtmd(tokens, files[kind], parts)


@pytest.mark.parametrize("kept_in_cells", [False, True])
async def test_the_same_image_is_taken_over_and_another_is_not(
    open_engine, files, kind, kept_in_cells, monkeypatch
) -> None:
    if kept_in_cells:  # as where a GPU holds the cells
        monkeypatch.setattr(loader, "kept_tokens", lambda *_: None)
    model, projector = files[kind]
    async with open_engine(model, mmproj=str(projector)) as engine:
        seer = Seer(engine)
        first, _ = await seer.ask(prompt(png(1)))
        again, cached = await seer.ask(prompt(png(1)))
        assert [token.id for token in again] == [token.id for token in first]
        length = len((await seer.request(prompt(png(1)))).prompt)
        assert cached == length - 1
        other, cached = await seer.ask(prompt(png(2)))
        assert cached == (await seer.request(prompt(png(2)))).images[0].start
        foreign, cached = await seer.ask(prompt(png(1)), scope="another key")
        assert cached == 0
        assert [token.id for token in foreign] == [token.id for token in first]
    assert_as_by_libmtmd(again, files[kind], prompt(png(1)))
    assert_as_by_libmtmd(other, files[kind], prompt(png(2)))


async def test_many_at_once_answer_as_alone(open_engine, files, kind) -> None:
    model, projector = files[kind]
    asked = [
        prompt(png(1)),
        prompt(png(2)),
        prompt(png(1), png(2)),
        prompt(png(3, 120, 40), png(1)),
        [BEFORE, AFTER],
        [png(4), AFTER],
    ]
    async with open_engine(model, mmproj=str(projector), batch=24, kv_tokens=1024) as engine:
        answers = await asyncio.gather(*(Seer(engine).ask(parts) for parts in asked))
    for (tokens, _), parts in zip(answers, asked, strict=True):
        assert_as_by_libmtmd(tokens, files[kind], parts)


async def test_an_image_is_encoded_once_for_all_who_ask(open_engine, files, monkeypatch) -> None:
    model, projector = files["mlp"]
    encoded = []
    encode = projector_module.Projector._encode
    monkeypatch.setattr(
        projector_module.Projector,
        "_encode",
        lambda self, piece: encoded.append(piece.key) or encode(self, piece),
    )
    async with open_engine(model, mmproj=str(projector), batch=16) as engine:
        seer = Seer(engine)
        await asyncio.gather(*(seer.ask(prompt(png(1))) for _ in range(4)))
        assert len(encoded) == 1
        await seer.ask(["Something else: ", png(1), AFTER])
        assert len(encoded) == 1
        await seer.ask(prompt(png(1)), scope="another key")
        assert len(encoded) == 2, "what one key's images came to is nothing to another's"


async def test_who_leaves_within_an_image_leaves_nothing_behind(open_engine, files, kind) -> None:
    model, projector = files[kind]
    async with open_engine(model, mmproj=str(projector), batch=16, parallel=2) as engine:
        seer = Seer(engine)
        talking = asyncio.create_task(seer.ask([BEFORE, AFTER], count=64))
        for seed in range(6):
            leaving = asyncio.create_task(seer.ask(prompt(png(seed), png(9))))
            for _ in range(seed):  # so many steps later, within the first image or the second
                await engine._thread.ask(lambda: None)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
        await talking
        tokens, _ = await seer.ask(prompt(png(5), png(9)))
        engine._stepper.scheduler.check_integrity()
    assert_as_by_libmtmd(tokens, files[kind], prompt(png(5), png(9)))


async def test_answers_go_on_while_an_image_is_encoded(open_engine, files, monkeypatch) -> None:
    model, projector = files["mlp"]
    may_encode = threading.Event()
    encode = projector_module.Projector._encode
    monkeypatch.setattr(
        projector_module.Projector,
        "_encode",
        lambda self, piece: may_encode.wait(20) and encode(self, piece),
    )
    async with open_engine(model, mmproj=str(projector)) as engine:
        seer = Seer(engine)
        looking = asyncio.create_task(seer.ask(prompt(png(1))))
        leaving = asyncio.create_task(seer.ask(prompt(png(2))))
        tokens, _ = await seer.ask([BEFORE, AFTER])
        while not engine._projector._encoding:
            await engine._thread.ask(lambda: None)
        leaving.cancel()
        again, _ = await seer.ask([BEFORE, AFTER])
        assert not looking.done()
        assert not await engine._thread.ask(engine.step), "it sleeps until the image is there"
        may_encode.set()
        seen, _ = await looking
    assert [token.id for token in again] == [token.id for token in tokens]
    assert_as_by_libmtmd(seen, files["mlp"], prompt(png(1)))


async def test_closing_does_not_wait_for_what_nobody_wants(open_engine, files) -> None:
    model, projector = files["mlp"]
    async with open_engine(model, mmproj=str(projector)) as engine:
        seer = Seer(engine)
        left = [asyncio.create_task(seer.ask(prompt(png(seed)))) for seed in range(4)]
        await seer.ask([BEFORE, AFTER])
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def test_an_image_that_cannot_be_encoded_is_its_own_request_s_failure(
    open_engine, files, monkeypatch
) -> None:
    model, projector = files["mlp"]
    async with open_engine(model, mmproj=str(projector)) as engine:
        monkeypatch.setattr(projector_module.M, "mtmd_encode_chunk", lambda *_: 1)
        seer = Seer(engine)
        talking = asyncio.create_task(seer.ask([BEFORE, AFTER], count=COUNT))
        with pytest.raises(EngineError, match="cannot be encoded"):
            await seer.ask(prompt(png(1)))
        tokens, _ = await talking
        monkeypatch.undo()
        again, _ = await seer.ask(prompt(png(1)))
    assert_as_by_libmtmd(tokens, files["mlp"], [BEFORE, AFTER])
    assert_as_by_libmtmd(again, files["mlp"], prompt(png(1)))


async def test_models_with_a_state_instead_of_a_cache(
    open_engine, tiny_recurrent, tmp_path
) -> None:
    files = tiny_recurrent, write_projector(tmp_path / "mmproj.gguf", "mlp", width=32)
    asked = [prompt(png(1)), prompt(png(1), png(2)), prompt(png(2), png(1))]
    async with open_engine(files[0], mmproj=str(files[1]), batch=16) as engine:
        seer = Seer(engine)
        answers = await asyncio.gather(*(seer.ask(parts) for parts in asked))
        first = await seer.request(asked[0])
        said = [token.id for token in answers[0][0]]
        tokens = [
            *first.prompt,
            *said[:-1],
            *engine.tokenizer.encode("Go on", add_special=False, parse_special=True),
        ]
        steps = [step async for step in engine.generate(replace(first, prompt=tokens))]
        assert steps[0].num_cached_tokens == len(first.prompt) + len(said) - 1
    for (tokens, _), parts in zip(answers, asked, strict=True):
        assert_as_by_libmtmd(tokens, files, parts)


async def test_penalties_look_at_words_alone(open_engine, files) -> None:
    model, projector = files["mlp"]
    async with open_engine(model, mmproj=str(projector)) as engine:
        request = await Seer(engine).request(prompt(png(1)))
        sampling = SamplingParams(temperature=0.0, ignore_eos=True, repetition_penalty=1.3)
        steps = [step async for step in engine.generate(replace(request, sampling=sampling))]
    assert sum(len(step.tokens) for step in steps) == COUNT


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([BEFORE, png(1)[:200], AFTER], "cannot be decoded"),
        ([BEFORE, b"RIFF\0\0\0\0WAVEfmt ", AFTER], "cannot be decoded"),
        ([BEFORE, b"\0\0\0\x18ftypmp42", AFTER], "cannot be decoded"),
        ([BEFORE, png(1)], "cannot end with an image"),
    ],
)
async def test_images_that_cannot_be_read(open_engine, files, parts, words) -> None:
    model, projector = files["mlp"]
    async with open_engine(model, mmproj=str(projector)) as engine:
        with pytest.raises(EngineError, match=words) as raised:
            await engine.see(parts, add_special=False)
        assert raised.value.kind == "bad_request"
        tokens, _ = await Seer(engine).ask(prompt(png(1)))
    assert_as_by_libmtmd(tokens, files["mlp"], prompt(png(1)))


async def test_rows_that_see_each_other_must_fit_into_one_step(open_engine, files) -> None:
    model, projector = files["gemma3"]
    async with open_engine(model, mmproj=str(projector), ubatch=8) as engine:
        with pytest.raises(EngineError, match=r"takes 9 tokens.*ubatch is 8"):
            await engine.see(prompt(png(1)), add_special=False)


@pytest.mark.parametrize(
    ("kind", "options", "length"),
    [
        ("qwen2vl_merger", {}, 512),
        ("qwen2vl_merger", {"image_tokens": 40}, 40),
        ("mlp", {"image_tokens": 20}, 36),  # always as many: its images are scaled to one size
    ],
)
async def test_a_large_image_takes_no_more_tokens_than_it_may(
    open_engine, files, kind, options, length
) -> None:
    model, projector = files[kind]
    async with open_engine(model, mmproj=str(projector), **options) as engine:
        seen = await engine.see([BEFORE, png(1, 1600, 1200), AFTER], add_special=False)
    assert 0.8 * length <= seen.images[0].length <= length


async def test_no_program_is_started_for_what_is_no_image(
    open_engine, files, monkeypatch, tmp_path
) -> None:
    """libmtmd would take it for a film and ask ffmpeg."""
    for name in ("ffmpeg", "ffprobe"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    model, projector = files["mlp"]
    async with open_engine(model, mmproj=str(projector)) as engine:
        for file in (b"\0\0\0\x18ftypmp42" + bytes(64), b"RIFF\0\0\0\0WEBPVP8 " + bytes(64)):
            with pytest.raises(EngineError, match="cannot be decoded"):
                await engine.see([BEFORE, file, AFTER], add_special=False)
    assert not (tmp_path / "started").exists()


def test_projectors_that_do_not_belong(files, tmp_path) -> None:
    model, _ = files["mlp"]

    def refused(**options) -> EngineError:
        with pytest.raises(EngineError) as raised:
            load({"path": str(model), "threads": 1} | options, lambda _: None)
        return raised.value

    other = write_projector(tmp_path / "mmproj-other.gguf", "mlp", width=128)
    error = refused(mmproj=str(other))
    assert error.kind == "bad_options"
    assert "mmproj-other.gguf" in error.reason
    assert "another model" in error.reason
    unknown = write_projector(tmp_path / "mmproj-new.gguf", "telescope")
    assert refused(mmproj=str(unknown)).kind == "unsupported"
    grid, projector = files["qwen2vl_merger"]
    assert "image_tokens" in refused(path=str(grid), mmproj=str(projector), image_tokens=2).reason
    assert refused(mmproj=str(tmp_path / "none.gguf")).kind == "missing_file"
    assert refused(mmproj=str(model)).kind == "bad_file"


async def test_what_takes_no_images(open_engine, tiny) -> None:
    async with open_engine(tiny) as engine:
        assert "vision" not in engine.info.capabilities
        with pytest.raises(EngineError, match="takes no images"):
            await engine.see(prompt(png(1)), add_special=False)
