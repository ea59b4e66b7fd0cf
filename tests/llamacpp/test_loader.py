"""Files that cannot be loaded say why in one sentence, and memory safety is decided before a load."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import pytest

from backends.llamacpp import failures, loader
from backends.llamacpp.start import load
from backends.serving.engine import EngineError
from tests.serving.engine_client import EngineClient


def failure(path: Path | str, **options) -> EngineError:
    with pytest.raises(EngineError) as caught:
        load({"path": str(path), "threads": 1} | options, lambda _: None)
    assert "\n" not in caught.value.reason
    assert "Traceback" not in caught.value.reason
    return caught.value


def test_a_missing_file(tmp_path: Path) -> None:
    error = failure(tmp_path / "none.gguf")
    assert (error.kind, error.reason) == ("missing_file", "none.gguf does not exist")


def test_a_folder(tmp_path: Path) -> None:
    assert failure(tmp_path).kind == "bad_file"


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "is empty"), (b"PK\3\4 zip", "is not a GGUF file")]
)
def test_something_else(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    error = failure(path)
    assert (error.kind, error.reason) == ("bad_file", f"model.gguf {reason}")


def test_truncated_tensors(tmp_path: Path, tiny: Path) -> None:
    whole = tiny.read_bytes()
    path = tmp_path / "model.gguf"
    path.write_bytes(whole[:-10_000])
    error = failure(path)
    assert error.kind == "bad_file"
    assert error.reason.startswith(
        f"model.gguf is truncated: {len(whole) - 10_000} of {len(whole)}"
    )


@pytest.mark.parametrize("length", [10, 100, 3000])
def test_truncated_header(tmp_path: Path, tiny: Path, length: int) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny.read_bytes()[:length])
    error = failure(path)
    assert error.kind == "bad_file"
    assert "truncated" in error.reason


def test_an_unknown_architecture(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "nonesuch")
    writer.add_uint32("nonesuch.context_length", 8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    error = failure(path)
    assert error.kind == "unsupported"
    assert "nonesuch" in error.reason


def test_a_header_without_a_key(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("nothing in it")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    error = failure(path)
    assert error.kind == "bad_file"
    assert "llama.context_length" in error.reason


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (
            "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 9",
            "out_of_memory",
        ),
        ("cudaMalloc failed: out of memory", "out_of_memory"),
        (
            "error loading model: error loading model vocabulary: unknown pre-tokenizer type: 'x'",
            "unsupported",
        ),
        ("error loading model: missing tensor 'blk.0.attn_q.weight'", "bad_file"),
        ("error loading model: something new", "bad_file"),
    ],
)
def test_what_llama_logs_is_classified(tiny: Path, line: str, kind: str) -> None:
    error = failures.classified(str(tiny), ["llama_model_load: ", line + "\n"])
    assert error.kind == kind
    assert error.reason.startswith("tiny.gguf cannot be loaded: ")


def test_values_that_the_model_does_not_take(tiny: Path) -> None:
    assert failure(tiny, cache_type_k="q8_0").kind == "bad_options"  # heads of 16, blocks of 32
    assert failure(tiny, devices=["cuda:7"]).kind == "bad_options"


def test_a_context_beyond_the_table_of_positions(tiny_encoder: Path) -> None:
    assert failure(tiny_encoder, context=128).kind == "bad_options"


def test_a_missing_adapter(tiny: Path) -> None:
    error = failure(tiny, lora="none.gguf")
    assert error.kind == "bad_file"
    assert "none.gguf" in error.reason


def split(source: Path, folder: Path) -> list[Path]:
    """The model in two files, as llama.cpp names them."""
    reader = gguf.GGUFReader(source)
    names = [folder / f"tiny-0000{n}-of-00002.gguf" for n in (1, 2)]
    half = len(reader.tensors) // 2
    for number, path in enumerate(names):
        writer = gguf.GGUFWriter(path, "llama")
        if number == 0:
            for field in reader.fields.values():
                if field.name.startswith("GGUF.") or field.name == "general.architecture":
                    continue
                kind = field.types[0]
                inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in reader.tensors[:half] if number == 0 else reader.tensors[half:]:
            writer.add_tensor(tensor.name, tensor.data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return names


async def test_a_split_model_by_its_first_part(tmp_path, tiny, open_engine) -> None:
    first, second = split(tiny, tmp_path)
    async with open_engine(tiny) as engine:
        expected = await EngineClient(engine).ask("hello")
    async with open_engine(first) as engine:
        assert await EngineClient(engine).ask("hello") == expected
    error = failure(second)
    assert error.kind == "bad_options"
    assert first.name in error.reason
    second.unlink()
    error = failure(first)
    assert (error.kind, error.reason) == ("missing_file", f"{second.name} does not exist")


def test_progress_rises_to_one(tiny: Path, tmp_path: Path) -> None:
    copy = shutil.copy(tiny, tmp_path / "copy.gguf")
    seen: list[float] = []
    with pytest.raises(EngineError):
        load({"path": str(copy), "lora": "none.gguf", "threads": 1}, seen.append)
    assert seen
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)


WITH_AMX = "CPU : AVX512 = 1 | AMX_INT8 = 1 | LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1 | "
WITHOUT = "CPU : AVX512 = 1 | LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1 | "


@pytest.mark.parametrize(
    ("system_info", "flags", "broken"),
    [
        (WITH_AMX, "flags\t\t: fpu amx_bf16 avx512_fp16 amx_tile amx_int8 arch", True),
        (WITH_AMX, "flags\t\t: fpu avx2", False),
        (WITHOUT, "flags\t\t: fpu amx_int8", False),
        (WITHOUT, "", False),
    ],
)
def test_amx_is_seen_before_it_crashes(system_info: str, flags: str, broken: bool) -> None:
    assert loader.has_broken_amx(system_info, flags) == broken


def test_amx_turns_repacking_off_unless_it_is_insisted_on(monkeypatch, capsys) -> None:
    class Library:
        def llama_print_system_info(self) -> bytes:
            return WITH_AMX.encode()

    monkeypatch.setattr(loader, "L", Library())
    monkeypatch.setattr(loader, "cpu_flags", lambda: "flags: amx_int8")
    assert loader.uses_extra_buffers(-1) is False
    assert "repack" in capsys.readouterr().err
    assert loader.uses_extra_buffers(1) is True
    assert loader.uses_extra_buffers(0) is False
    monkeypatch.setattr(loader, "cpu_flags", lambda: "")
    assert loader.uses_extra_buffers(-1) is True


def test_the_slim_import_leaves_the_package_importable() -> None:
    code = (
        "import sys\n"
        "from backends.llamacpp import binding\n"
        "assert 'numpy' not in sys.modules\n"
        "import llama_cpp\n"
        "assert llama_cpp.llama_cpp is binding.L and llama_cpp.Llama\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
