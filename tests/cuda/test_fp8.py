"""fp8 where it is computed: on GPUs since Ada and Hopper; skipped elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trimtab.config import load_config
from trimtab.events import Event, StepsEnded
from trimtab.model.fp8 import E4M3, DelayedScaling, Fp8Linear, cast_both_ways, saturated
from trimtab.trainer import Trainer
from trimtab.training import Step
from trimtab.training.checkpoint import read_tensors

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9), reason="needs a GPU with fp8"
)

SETTINGS = [
    "data.source={name: text, path: TEXT}",
    "data.tokenizer={name: bytes}",
    "data.sequence_length=64",
    "model={name: decoder, num_layers: 2, hidden_size: 128, num_heads: 2, activation: gelu_tanh}",
    "optimizer={name: adamw, learning_rate: 3e-3}",
    "training.steps=60",
    "training.micro_batch_size=16",
    "training.accumulation=2",
    "evaluation={every: 20, gap_tokens: 2048, max_tokens: 4096, yardsticks: false}",
]
FP8, BF16 = "training.precision.name=fp8", "training.precision.name=bf16"


class Losses:
    def __init__(self, leaves_at: int | None = None) -> None:
        self.values: list[float] = []
        self._leaves_at = leaves_at

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded):
            self.values += event.per_step["train/loss"].tolist()
            if self._leaves_at is not None and event.last_step >= self._leaves_at:
                raise KeyboardInterrupt


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("heapq.py", "bisect.py", "textwrap.py", "queue.py", "argparse.py"):
        (folder / name).write_text((Path(os.__file__).parent / name).read_text())
    return folder


def _fit(text: Path, run: Path, *settings: str, leaves_at: int | None = None) -> tuple[Any, list[float]]:
    losses = Losses(leaves_at)
    config = load_config(None, [line.replace("TEXT", str(text)) for line in [*SETTINGS, *settings]])
    trainer = Trainer(config, run=run, monitors=[losses])
    trainer.fit()
    return trainer.model, losses.values


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_layer_is_near_bf16(bias: bool, compiled: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(512, 768, bias=bias).cuda().to(torch.bfloat16)
    layer = Fp8Linear(plain)
    scaling = DelayedScaling({"layer": layer}, 16, 0)
    x = torch.randn(3, 100, 512, device="cuda").to(torch.bfloat16).requires_grad_()
    upstream = torch.randn(3, 100, 768, device="cuda").to(torch.bfloat16) * 1e-6
    leaves = [x, *plain.parameters()]

    def results(module: nn.Module) -> list[torch.Tensor]:
        y = module(x)
        return [tensor.double() for tensor in (y.detach(), *torch.autograd.grad(y, leaves, upstream))]

    exact = results(plain)
    with scaling.measuring():
        results(layer)
    assert float(layer.largest_input) == float(x.detach().abs().max())
    assert float(layer.largest_gradient) == float(upstream.abs().max())
    scaling.update(torch.zeros((), device="cuda"))
    scaling.begin()
    if compiled:
        layer.compile(dynamic=False)
    found = results(layer)
    assert float(layer.largest_input) == float(x.detach().abs().max())
    assert float(layer.largest_gradient) == float(upstream.abs().max())
    for ours, true in zip(found[:2], exact[:2], strict=True):
        assert 1e-3 < (ours - true).norm() / true.norm() < 0.06
    for ours, true in zip(found[2:], exact[2:], strict=True):  # of weight and bias, as in bf16
        assert (ours - true).norm() <= 0.01 * true.norm()


@pytest.mark.parametrize("shape", [(768, 512), (48, 80), (4096, 1024)])
def test_the_kernel_narrows_weights_as_torch_does(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape, device="cuda").to(torch.bfloat16)
    scale, most = torch.tensor(256.0, device="cuda"), torch.zeros((), device="cuda")
    rows = torch.empty(shape, dtype=E4M3, device="cuda")
    columns = torch.empty(shape[::-1], dtype=E4M3, device="cuda")
    cast_both_ways(weight, scale, rows, columns, most)
    expected = saturated(weight, scale, E4M3)
    assert torch.equal(rows.view(torch.uint8), expected.view(torch.uint8))
    assert torch.equal(columns.view(torch.uint8), expected.t().contiguous().view(torch.uint8))
    assert float(most) == float(weight.abs().max())
    assert bool((expected.float().abs() == 448.0).any())  # some saturate
    weight[1, 2] = float("nan")
    cast_both_ways(weight, scale, rows, columns, most.zero_())
    assert bool(rows[1, 2].float().isnan())
    assert bool(columns[2, 1].float().isnan())


@pytest.mark.parametrize("how", ["training.compile=off", "training.compile=on"])
def test_it_learns_as_bf16_does(text: Path, tmp_path: Path, how: str) -> None:
    _, narrow = _fit(text, tmp_path / "a", FP8, how)
    _, wide = _fit(text, tmp_path / "b", BF16, how)
    assert len(narrow) == 60
    assert sum(narrow[-10:]) == pytest.approx(sum(wide[-10:]), rel=0.03)
    assert narrow[-1] < 0.7 * narrow[0]
    assert narrow != wide


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_captured_run_is_the_uncaptured_one(text: Path, tmp_path: Path, accumulation: int) -> None:
    settings = (FP8, "training.deterministic=true", "training.compile=off", f"training.accumulation={accumulation}")
    _, captured = _fit(text, tmp_path / "a", *settings)
    _, plain = _fit(text, tmp_path / "b", *settings, "training.capture=off")
    assert json.loads((tmp_path / "a" / "plan.json").read_text())["capture"]["chosen"]
    assert captured == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("how", ["training.compile=off", "training.compile=on", "training.accumulation=1"])
def test_it_resumes_to_the_same_bits(text: Path, tmp_path: Path, how: str) -> None:
    settings = (FP8, how, "training.deterministic=true", "checkpoint.every=20", "model.dropout.residual=0.1")
    _fit(text, tmp_path / "a", *settings)
    with pytest.raises(KeyboardInterrupt):
        _fit(text, tmp_path / "b", *settings, leaves_at=30)
    _fit(text, tmp_path / "b", *settings)
    newest = [sorted((tmp_path / run / "checkpoints").iterdir())[-1] for run in "ab"]
    assert newest[0].name == newest[1].name
    for room in ("model/", "optimizer/", "scaling/"):
        whole, resumed = (read_tensors(folder, room) for folder in newest)
        assert whole.keys() == resumed.keys()
        assert whole
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_step_never_waits_for_the_device(text: Path, tmp_path: Path) -> None:
    """The first finds the scales to begin with, and waits to see whether it did; no other does."""
    run = Step.run

    def watched(self: Step, batches: Any, step: int, **named: Any) -> None:
        torch.cuda.set_sync_debug_mode("default" if step == 1 else "error")
        try:
            run(self, batches, step, **named)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    Step.run = watched  # type: ignore[method-assign]
    try:
        _, losses = _fit(text, tmp_path / "run", FP8)
    finally:
        Step.run = run  # type: ignore[method-assign]
    assert len(losses) == 60
