"""FlexAttention on a GPU: against masked attention in float64; compiled, captured, resumed to the same bits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.config import DecoderConfig, EncoderConfig, load_config
from trimtab.events import Event, StepsEnded
from trimtab.model import build_model, refuses_flex, set_flex
from trimtab.model.masks import attend_to_blocks, seen, seen_blocks
from trimtab.model.recompute import set_recompute
from trimtab.signals import Batch, Outputs
from trimtab.trainer import Trainer
from trimtab.training.attention import choose_attention

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
DEVICE = torch.device("cuda")
CASES: dict[str, dict[str, Any]] = {
    "documents": {"causal": True, "window": None},
    "window": {"causal": True, "window": 100, "documents": False},
    "both": {"causal": True, "window": 200},
    "encoder": {"causal": False, "window": None},
    "encoder in a window": {"causal": False, "window": 60},
}


@pytest.fixture(autouse=True)
def _compiled_anew() -> None:
    torch._dynamo.reset()  # after 8 shapes of one function torch computes it as written


def documents(rows: int, length: int, seed: int = 0) -> Tensor:
    """Of some 100 tokens each; the last row ends with padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = (torch.rand(rows, length, generator=generator) < 0.01).cumsum(1).int()
    ids[-1, -length // 3 :] = -1
    return ids.to(DEVICE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("length", "size", "groups"), [(512, 64, 4), (300, 32, 2)])
def test_it_is_masked_attention(case: str, dtype: torch.dtype, length: int, size: int, groups: int) -> None:
    torch.manual_seed(0)
    about = {"device": DEVICE} | CASES[case]
    ids = documents(3, length) if about.pop("documents", True) else None
    shapes = [(3, length, heads, size) for heads in (4, groups, groups)]
    given = [torch.randn(shape, device=DEVICE, dtype=dtype).transpose(1, 2).requires_grad_() for shape in shapes]
    upstream = torch.randn_like(given[0])
    wide = [one.detach().double().requires_grad_() for one in given]
    mask = seen(length, ids, **about)
    expected = F.scaled_dot_product_attention(*wide, attn_mask=mask, enable_gqa=groups != 4)
    expected.backward(upstream.double())
    found = attend_to_blocks(*given, seen_blocks(length, ids, **about))
    found.backward(upstream)
    assert found.dtype == dtype
    limit = 0.02 if dtype == torch.bfloat16 else 2e-5
    for one, other in [(found, expected), *((a.grad, b.grad) for a, b in zip(given, wide, strict=True))]:
        assert one is not None
        assert other is not None
        assert torch.isfinite(one).all()
        assert float((one.double() - other).norm() / other.norm()) < limit


def test_making_blocks_waits_for_nothing() -> None:
    ids = documents(4, 512)
    torch.cuda.set_sync_debug_mode("error")
    try:
        seen_blocks(512, ids, causal=True, window=100, device=DEVICE)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def model_of(length: int = 256, **others: Any) -> torch.nn.Module:
    shape = {"num_layers": 2, "hidden_size": 128, "num_heads": 4, "document_mask": True}
    config = DecoderConfig.model_validate(shape | others)
    return build_model(config, vocabulary_size=64, sequence_length=length, seed=0).to(DEVICE).train()


def gradients(model: torch.nn.Module, tokens: Tensor, ids: Tensor) -> Tensor:
    model.zero_grad()
    model(tokens, None, ids).features.square().sum().backward()
    return torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


@pytest.mark.parametrize("scope", ["as written", "blocks", "whole", "recomputed"])
def test_a_model_with_it_has_the_same_gradients(scope: str) -> None:
    """Of several documents one after another, for which nothing is compiled anew."""
    model = model_of(window=200)
    assert refuses_flex(model, DEVICE, 256) is None
    tokens, ids = torch.randint(0, 64, (3, 256), device=DEVICE), [documents(3, 256, seed) for seed in range(3)]
    expected = [gradients(model, tokens, one) for one in ids]
    set_flex(model, True)
    if scope == "recomputed":
        set_recompute(model, "full")
    for module in [model] if scope == "whole" else model.all_blocks if scope == "blocks" else ():  # type: ignore[union-attr]
        module.compile(dynamic=False)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    found = [gradients(model, tokens, ids[0])]
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    found += [gradients(model, tokens, one) for one in ids[1:]]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled
    assert scope in ("as written", "recomputed") or compiled > before
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-4


def test_packed_documents_are_as_apart() -> None:
    """Features and gradients of two texts in one row, and in two."""
    model = model_of(512)
    set_flex(model, True)
    apart = torch.randint(0, 64, (2, 256), device=DEVICE)
    packed, ids = apart.view(1, 512), torch.arange(2, dtype=torch.int32, device=DEVICE).repeat_interleave(256)[None]
    places = torch.arange(256, dtype=torch.int32, device=DEVICE).repeat(2)[None]
    alone = model(apart, places[:, :256].expand(2, -1), torch.zeros_like(apart, dtype=torch.int32)).features
    weights = torch.randn_like(alone)
    first = torch.autograd.grad((alone * weights).sum(), model.embedding.weight)[0]  # type: ignore[arg-type]
    together = model(packed, places, ids).features
    second = torch.autograd.grad((together * weights.view(1, 512, -1)).sum(), model.embedding.weight)[0]  # type: ignore[arg-type]
    torch.testing.assert_close(together.view_as(alone), alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-4)


class Losses:
    def __init__(self, leaves_at: int | None = None) -> None:
        self.values: list[float] = []
        self.leaves_at = leaves_at

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded):
            self.values += event.per_step["train/loss"].tolist()
            if self.leaves_at is not None and event.last_step >= self.leaves_at:
                raise KeyboardInterrupt


def fit(folder: Path, *settings: str, leaves_at: int | None = None) -> tuple[dict[str, Tensor], list[float], Any]:
    text = folder.parent / "text"
    if not text.exists():
        text.mkdir()
        source = Path(os.__file__).parent
        for name in ("heapq.py", "bisect.py", "textwrap.py", "queue.py", "argparse.py"):
            for number, part in enumerate((source / name).read_text().split("\n\n\n")):
                (text / f"{name}-{number}.txt").write_text(part)
    lines = [
        f"data={{source: {{name: text, path: {text}}}, tokenizer: {{name: bytes}}, sequence_length: 256}}",
        "model={name: decoder, num_layers: 2, hidden_size: 64, num_heads: 2, document_mask: true}",
        "model.dropout.residual=0.1",
        "training={steps: 30, micro_batch_size: 4, accumulation: 2, attention: flex, compile: off}",
        "evaluation={every: 10, gap_tokens: 1024, max_tokens: 2048, yardsticks: false}",
        "stopping={name: none}",
        "optimizer.learning_rate=3e-3",
        "logging.every=5",
    ]
    losses = Losses(leaves_at)
    trainer = Trainer(load_config(None, lines + list(settings)), run=folder, monitors=[losses])
    if leaves_at is None:
        trainer.fit()
        model = trainer.model
        assert model is not None
        return dict(model.state_dict()), losses.values, json.loads((folder / "plan.json").read_text())
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    return {}, losses.values, None


@pytest.mark.parametrize("more", [(), ("training.compile=on", "training.precision.name=bf16")])
def test_a_run_is_captured_and_resumed_to_the_same_bits(tmp_path: Path, more: tuple[str, ...]) -> None:
    settings = ("training.deterministic=true", "checkpoint.every=10", *more)
    whole, losses, plan = fit(tmp_path / "whole", *settings)
    assert plan["attention"] == {"chosen": "flex", "reason": "training.attention is flex"}
    assert plan["capture"]["chosen"]
    assert losses[-1] < 0.8 * losses[0]
    fit(tmp_path / "left", *settings, leaves_at=15)
    resumed, _, _ = fit(tmp_path / "left", *settings)
    assert all(torch.equal(one, whole[name]) for name, one in resumed.items())


def test_a_captured_run_learns_as_under_a_mask(tmp_path: Path) -> None:
    """A graph reads the blocks of each batch anew."""
    flex, plan = fit(tmp_path / "flex", "model.dropout.residual=0")[1:]
    assert plan["capture"]["chosen"]
    masked = fit(tmp_path / "masked", "model.dropout.residual=0", "training.attention=flash")[1]
    assert flex == pytest.approx(masked, rel=5e-3)


def example(model: torch.nn.Module, length: int) -> Batch:
    tokens = torch.randint(0, 64, (8, length))
    ids = documents(8, length).cpu()
    return Batch(tokens, tokens, ids, ids, torch.arange(8), tokens.numel())


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_auto_measures_both_where_a_run_is_long(kind: str) -> None:
    model: torch.nn.Module = model_of(1024)
    if kind == "encoder":
        shape = EncoderConfig(num_layers=2, hidden_size=128, num_heads=4)
        outputs = Outputs(64, of_tokens=True)
        model = build_model(shape, vocabulary_size=64, sequence_length=1024, outputs=outputs, seed=0).to(DEVICE).train()
    config = load_config(None, ["data.source={name: embedded}", "training.steps=10"])
    short = choose_attention(config, model, torch.bfloat16, example(model, 1024), None, accumulation=1)
    assert short["chosen"] == "torch"
    assert "flex is tried from 60 s on" in short["reason"]
    assert not model.flex
    config = load_config(None, ["data.source={name: embedded}", "training.steps=100000000"])
    long = choose_attention(config, model, torch.bfloat16, example(model, 1024), None, accumulation=1)
    print(long)
    assert long["chosen"] == ("flex" if long["flex"] < long["torch"] else "torch")
    assert np.isfinite([long["flex"], long["torch"]]).all()
    assert model.flex == (long["chosen"] == "flex")
    kept = choose_attention(config, model, torch.bfloat16, example(model, 1024), long, accumulation=1)
    assert kept == long


def test_where_it_does_not_fit_a_line_says_so(tmp_path: Path) -> None:
    plan = fit(tmp_path / "run", "data.sequence_length=64", "training.steps=2", "evaluation.every=2")[2]
    assert plan["attention"]["chosen"] == "torch"
    assert plan["attention"]["fallback"]
    assert "shorter than one block" in plan["attention"]["reason"]
