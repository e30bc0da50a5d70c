"""What only a GPU can show; skipped without one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trimtab.config import load_config
from trimtab.events import Event, RunEnded, StepsEnded
from trimtab.optimizer import AdamW, parameter_groups
from trimtab.signals import Gradients
from trimtab.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

SETTINGS = [
    "data.source={name: text, path: TEXT}",
    "data.tokenizer={name: bytes}",
    "data.sequence_length=64",
    "model={name: decoder, num_layers: 2, hidden_size: 64, num_heads: 2, dropout: {residual: 0.1}}",
    "optimizer={name: adamw, learning_rate: 3e-3}",
    "training.steps=60",
    "training.micro_batch_size=8",
    "training.accumulation=2",
    "evaluation={every: 20, gap_tokens: 2048, max_tokens: 4096, yardsticks: false}",
]


class Losses:
    def __init__(self) -> None:
        self.values: list[float] = []

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded):
            self.values += event.per_step["train/loss"].tolist()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    source = Path(os.__file__).parent
    for name in ("heapq.py", "bisect.py", "textwrap.py", "queue.py", "argparse.py"):
        (folder / name).write_text((source / name).read_text())
    return folder


def _fit(text: Path, run: Path, *settings: str) -> tuple[Any, list[float]]:
    losses = Losses()
    config = load_config(None, [line.replace("TEXT", str(text)) for line in SETTINGS] + list(settings))
    trainer = Trainer(config, run=run, monitors=[losses])
    trainer.fit()
    return trainer.model, losses.values


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_learns_in_every_precision(text: Path, tmp_path: Path, precision: str) -> None:
    model, losses = _fit(text, tmp_path / "run", f"training.precision.name={precision}")
    assert next(model.parameters()).device.type == "cuda"
    assert len(losses) == 60
    assert losses[-1] < 0.7 * losses[0]


def test_compiled_learns_the_same(text: Path, tmp_path: Path) -> None:
    _, eager = _fit(text, tmp_path / "a", "training.compile=off", "model.dropout.residual=0.0")
    _, compiled = _fit(text, tmp_path / "b", "training.compile=on", "model.dropout.residual=0.0")
    assert compiled == pytest.approx(eager, rel=2e-2)


def _resumes_exactly(text: Path, folder: Path, *settings: str) -> bool:
    """Whether a run that was left in the middle ends at the bits of one that was not."""
    settings = ("training.deterministic=true", "checkpoint.every=20", *settings)
    whole, _ = _fit(text, folder / "a", *settings)

    class Leaves:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded) and event.last_step == 30:
                raise KeyboardInterrupt

    config = load_config(None, [line.replace("TEXT", str(text)) for line in SETTINGS] + list(settings))
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, run=folder / "b", monitors=[Leaves()]).fit()
    resumed, _ = _fit(text, folder / "b", *settings)
    return all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_resuming_on_cuda_is_exact_with_the_deterministic_flag(text: Path, tmp_path: Path) -> None:
    assert _resumes_exactly(text, tmp_path)


@pytest.mark.parametrize("target", ["torch.optim:SGD", "torch.optim:AdamW"])
def test_foreign_optimizers_resume_on_cuda(text: Path, tmp_path: Path, target: str) -> None:
    assert _resumes_exactly(text, tmp_path, f"optimizer={{name: custom, target: '{target}', learning_rate: 1e-3}}")


def test_adamw_on_the_device_is_adamw_on_the_host() -> None:
    def trained(device: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.LayerNorm(32), nn.Linear(32, 4)).to(device)
        optimizer = AdamW(parameter_groups(model, 0.1))
        settings = {"learning_rate": torch.tensor(1e-2), "weight_decay": torch.tensor(0.5)}
        settings = {name: value.to(device) for name, value in settings.items()}
        generator = torch.Generator().manual_seed(1)
        for step in range(30):
            optimizer.storage.zero_gradients()
            model(torch.randn(16, 8, generator=generator).to(device)).square().mean().backward()
            gradients = optimizer.storage.gradients
            norms = torch.stack([gradient.norm() for gradient in gradients.values()])
            skip = torch.tensor(float(step == 7), device=device)
            scale = torch.tensor(0.5, device=device)
            optimizer.update(Gradients(gradients, norms, norms.norm(), scale, skip), settings)
        return [parameter.detach().cpu() for parameter in model.parameters()]

    for host, device in zip(trained("cpu"), trained("cuda"), strict=True):
        assert torch.allclose(host, device, atol=1e-5)


def test_a_step_never_waits_for_the_device(text: Path, tmp_path: Path) -> None:
    """torch's own check raises at every operation that synchronizes; the steps between boundaries have none."""
    from trimtab.training.step import Step

    run = Step.run

    def watched(self: Step, *arguments: Any, **named: Any) -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            run(self, *arguments, **named)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    Step.run = watched  # type: ignore[method-assign]
    try:
        _, losses = _fit(text, tmp_path / "run", "training.precision.name=bf16")
    finally:
        Step.run = run  # type: ignore[method-assign]
    assert len(losses) == 60


def test_what_a_window_queued_is_its_own_time(text: Path, tmp_path: Path) -> None:
    """A device that sleeps in every step: the seconds of training hold it all, those of evaluation nothing of it."""
    from trimtab.training.step import Step

    run, cycles = Step.run, 40_000_000
    begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begun.record()
    torch.cuda._sleep(cycles)
    ended.record()
    torch.cuda.synchronize()
    asleep = begun.elapsed_time(ended) / 1_000

    def sleepy(self: Step, *arguments: Any, **named: Any) -> None:
        run(self, *arguments, **named)
        torch.cuda._sleep(cycles)

    class Seconds:
        def __init__(self) -> None:
            self.steps: list[float] = []
            self.split: dict[str, float] = {}

        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded):
                self.steps += event.per_step["step_seconds"].tolist()
            if isinstance(event, RunEnded):
                self.split = dict(event.time_split)

    def times(name: str) -> Seconds:
        seconds = Seconds()
        config = load_config(None, [line.replace("TEXT", str(text)) for line in SETTINGS])
        Trainer(config, run=tmp_path / name, monitors=[seconds]).fit()
        return seconds

    awake = times("awake")
    Step.run = sleepy  # type: ignore[method-assign]
    try:
        seconds = times("asleep")
    finally:
        Step.run = run  # type: ignore[method-assign]
    for start in (0, 20, 40):
        assert sum(seconds.steps[start : start + 20]) > 0.9 * 20 * asleep
    assert seconds.split["training"] > 0.9 * 60 * asleep
    assert seconds.split["evaluation"] < awake.split["evaluation"] + 5 * asleep
