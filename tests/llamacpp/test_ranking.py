"""Models that rank: what they read, what they answer, and that transformers agrees."""

from __future__ import annotations

import math
from pathlib import Path

import gguf
import numpy as np
import pytest

from backends.llamacpp.ranking import score
from backends.serving.engine import EngineError
from tests.llamacpp.test_worker import started

QUERY = "hello a b"
DOCUMENTS = ["world", "hello hello", "c d e f", "a b"]
CLS, SEP = 2, 3


def test_a_score_is_a_probability() -> None:
    assert score([0.0]) == 0.5
    assert score([2.0]) == pytest.approx(0.8807970779778823)
    assert 0.0 <= score([-1e6]) < 1e-9
    assert score([1e6]) == 1.0
    assert score([0.7, 0.3]) == 0.7  # yes, and no


async def test_query_and_document_stand_between_the_models_marks(open_engine, tiny_ranker) -> None:
    async with open_engine(tiny_ranker) as engine:
        assert engine.info.capabilities == {"rerank"}
        query = engine.tokenizer.encode(QUERY, add_special=False, parse_special=False)
        text = engine.tokenizer.encode("world [SEP]", add_special=False, parse_special=False)
        assert engine.pair(QUERY, "world [SEP]") == [CLS, *query, SEP, *text, SEP]
        assert SEP not in text
        with pytest.raises(EngineError) as caught:
            await engine.embed([[CLS, SEP]])
        assert caught.value.kind == "unsupported"


async def test_scores_are_those_of_transformers(open_engine, tiny_ranker) -> None:
    torch = pytest.importorskip("torch")
    reference = _reference(tiny_ranker)
    async with open_engine(tiny_ranker) as engine:
        pairs = [engine.pair(QUERY, document) for document in DOCUMENTS]
        together = await engine.rank(pairs)
        alone = [(await engine.rank([pair]))[0] for pair in pairs]
    assert together == pytest.approx(alone, abs=1e-3)
    with torch.no_grad():
        wanted = [reference(torch.tensor([pair])).logits.item() for pair in pairs]
    assert [math.log(p / (1 - p)) for p in together] == pytest.approx(wanted, abs=1e-2)
    assert max(wanted) - min(wanted) > 0.5


def test_over_http(tmp_path: Path, tiny_ranker: Path) -> None:
    with started(tmp_path, path=str(tiny_ranker)) as worker:
        assert worker.last_event()["capabilities"] == ["rerank"]
        body = {"model": "tiny", "query": QUERY, "documents": DOCUMENTS}
        status, answer = worker.post("/v1/rerank", body)
        assert status == 200
        scores = [result["relevance_score"] for result in answer["results"]]
        assert scores == sorted(scores, reverse=True)
        assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2, 3]
        assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 8

        objects = [{"text": text} for text in DOCUMENTS]
        some = body | {"documents": objects, "top_n": 2, "return_documents": True}
        status, best = worker.post("/v1/rerank", some)
        assert status == 200
        assert len(best["results"]) == 2
        for result, other in zip(best["results"], answer["results"], strict=False):
            assert result.pop("document") == {"text": DOCUMENTS[result["index"]]}
            assert result == other
        assert worker.post("/v1/rerank", body | {"documents": []})[1]["results"] == []

        for wrong, param in (
            ({"documents": [1]}, "documents"),
            ({"top_n": 0}, "top_n"),
            ({"query": "a " * 70}, "query with a document"),
        ):
            status, answer = worker.post("/v1/rerank", body | wrong)
            assert (status, answer["error"]["param"]) == (400, param)
        assert worker.post("/v1/embeddings", {"model": "tiny", "input": "hello"})[0] == 404


def _reference(path: Path):
    """The same weights in transformers."""
    transformers = pytest.importorskip("transformers")
    import torch

    tensors = {
        tensor.name: torch.from_numpy(np.array(tensor.data))
        for tensor in gguf.GGUFReader(path).tensors
    }
    size, width = tensors["token_embd.weight"].shape
    config = transformers.BertConfig(
        vocab_size=size,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        layer_norm_eps=1e-12,
        num_labels=1,
        hidden_act="gelu",
    )
    model = transformers.BertForSequenceClassification(config).eval()
    state = {_their_name(name): value for name, value in tensors.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("position_ids" in name or "token_type_ids" in name for name in missing)
    return model


NAMES = {
    "token_embd_norm": "bert.embeddings.LayerNorm",
    "token_embd": "bert.embeddings.word_embeddings",
    "position_embd": "bert.embeddings.position_embeddings",
    "token_types": "bert.embeddings.token_type_embeddings",
    "cls.output": "classifier",
    "cls": "bert.pooler.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "attn_output": "attention.output.dense",
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}


def _their_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem.startswith("blk."):
        _, layer, part = stem.split(".")
        return f"bert.encoder.layer.{layer}.{NAMES[part]}.{kind}"
    return f"{NAMES[stem]}.{kind}"
