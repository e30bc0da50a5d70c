"""On a GPU: what is computed again in captured steps, and the window, give what they give without and on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab.config import DecoderConfig, load_config
from trimtab.model import build_model
from trimtab.model.recompute import set_recompute
from trimtab.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def run(tmp_path: Path, how: str, dropout: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    text = tmp_path / "text.txt"
    text.write_text("what is not kept is computed again\n" * 900)
    settings = {
        "model": {"name": "decoder", "num_layers": 3, "hidden_size": 64, "num_heads": 2, "dropout": dropout},
        "data": {"sequence_length": 64, "source": {"name": "text", "path": str(text)}, "tokenizer": {"name": "bytes"}},
        "training": {
            "steps": 6, "micro_batch_size": 4, "accumulation": 2, "compile": "off", "device": "cuda",
            "attention": "flash", "recompute": how, "deterministic": True,
        },
        "evaluation": {"every": 6, "gap_tokens": 0, "yardsticks": False},
        "stopping": {"name": "none"},
    }  # fmt: skip
    trainer = Trainer(load_config(settings, environment={}), run=tmp_path / how)
    trainer.fit()
    return trainer.trained()[0].state_dict(), json.loads((tmp_path / how / "plan.json").read_text())


@pytest.mark.parametrize("dropout", [{}, {"residual": 0.1, "layer": 0.2}])
def test_runs_end_with_the_same_weights_captured_where_nothing_is_drawn(
    tmp_path: Path, dropout: dict[str, Any]
) -> None:
    plain, plan = run(tmp_path, "none", dropout)
    assert plan["capture"]["chosen"]
    for how in ("selective", "full"):
        again, plan = run(tmp_path, how, dropout)
        assert plan["capture"]["chosen"] == (how == "selective" or not dropout)
        if not plan["capture"]["chosen"]:
            assert "dropout in blocks" in plan["capture"]["reason"]
            continue  # a graph draws from its own place in the generator's stream
        for name, value in plain.items():
            torch.testing.assert_close(again[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("how", ["selective", "full"])
def test_less_memory_is_allocated(how: Any) -> None:
    model = build_model(
        DecoderConfig(num_layers=8, hidden_size=128), vocabulary_size=64, sequence_length=256, seed=0
    ).cuda()
    tokens = torch.randint(0, 64, (16, 256), device="cuda")
    peaks = {}
    for one in ("none", how):
        set_recompute(model, one)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.autograd.backward(model(tokens).features.sum())
        peaks[one] = torch.cuda.max_memory_allocated() - before
        model.zero_grad()
    assert peaks[how] < (0.5 if how == "full" else 0.9) * peaks["none"]


def test_a_window_is_as_on_the_cpu() -> None:
    config = DecoderConfig(num_layers=2, hidden_size=64, num_heads=2, window=5, document_mask=True)
    model = build_model(config, vocabulary_size=64, sequence_length=48, seed=0).eval()
    tokens, ids = torch.randint(0, 64, (2, 48)), torch.tensor([[0] * 20 + [1] * 28, [0] * 48], dtype=torch.int32)
    here = model(tokens, None, ids).features
    there = model.cuda()(tokens.cuda(), None, ids.cuda()).features
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)
