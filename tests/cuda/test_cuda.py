"""What only a GPU can show; skipped without one."""

from __future__ import annotations

import copy
import gc
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trimtab.config import Bf16, DecoderConfig, load_config
from trimtab.config.registry import EXTRAS
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.events import Event, RunEnded, StepsEnded
from trimtab.model import FeedForward, build_model, set_dropout_factor
from trimtab.objective import CausalLanguageModelingTask, CrossEntropy, head_loss
from trimtab.optimizer import AdamW, clip_by_norm, parameter_groups, skip_non_finite
from trimtab.optimizer.algorithms import adamw
from trimtab.signals import IGNORED, Batch, Gradients, Ring
from trimtab.trainer import Trainer
from trimtab.training import Precision, Step, columns_of_step
from trimtab.training.capture import capture
from trimtab.training.checkpoint import read_tensors

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


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
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
    run, cycles = Step.run, 160_000_000  # a window of them is long beside what evaluations vary by
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
        assert sum(seconds.steps[start : start + 20]) > 0.7 * 20 * asleep  # a warm clock counts quicker
    assert seconds.split["training"] > 0.7 * 60 * asleep
    assert seconds.split["evaluation"] < awake.split["evaluation"] + 5 * asleep


BF16 = "training.precision.name=bf16"


@pytest.mark.parametrize(
    "settings",
    [
        (BF16,),
        (BF16, "training.accumulation=1"),
        (BF16, "training.compile=on"),
        (BF16, "training.precision.parameters=fp32"),
        (BF16, "training.capture=off"),
        ("training.precision.name=fp16",),
    ],
    ids=["bf16", "no accumulation", "compiled", "autocast", "uncaptured", "fp16"],
)
def test_the_fast_ways_resume_exactly_with_dropout(text: Path, tmp_path: Path, settings: tuple[str, ...]) -> None:
    assert _resumes_exactly(text, tmp_path, *settings)


def test_what_is_saved_in_the_background_is_the_state_at_its_step(text: Path, tmp_path: Path) -> None:
    """Copied under the next micro-batches, while the host runs ahead: the same bytes as when it is waited for."""
    settings = (BF16, "training.deterministic=true", "checkpoint={every: 7, keep_latest: 20}")
    _fit(text, tmp_path / "a", *settings)
    _fit(text, tmp_path / "b", *settings, "checkpoint.background=false")
    folders = sorted(path.name for path in (tmp_path / "b" / "checkpoints").iterdir())
    assert len(folders) >= 9
    for folder in folders:
        for room in ("model/", "optimizer/"):
            a, b = (read_tensors(tmp_path / run / "checkpoints" / folder, room) for run in "ab")
            assert a.keys() == b.keys()
            assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_captured_run_is_the_uncaptured_one(text: Path, tmp_path: Path, accumulation: int) -> None:
    """Dropout included: a replay draws what the program would have drawn."""
    settings = (BF16, "training.deterministic=true", "training.compile=off", f"training.accumulation={accumulation}")
    _, captured = _fit(text, tmp_path / "a", *settings)
    _, plain = _fit(text, tmp_path / "b", *settings, "training.capture=off")
    assert json.loads((tmp_path / "a" / "plan.json").read_text())["capture"]["chosen"]
    assert not json.loads((tmp_path / "b" / "plan.json").read_text())["capture"]["chosen"]
    assert captured == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("averaging", ["{name: ema, decay: 0.9, every: 3}", "{name: swa, start: 0.5}"])
def test_averages_are_the_same_captured_and_resumed(text: Path, tmp_path: Path, averaging: str) -> None:
    """In a graph, and over bf16 weights: the program decides on the device what counts."""
    settings = (BF16, "training.deterministic=true", "training.compile=off", f"averaging={averaging}")
    settings = (*settings, "stopping.restore_best=false")
    _fit(text, tmp_path / "a", *settings)
    _fit(text, tmp_path / "b", *settings, "training.capture=off")
    assert json.loads((tmp_path / "a" / "plan.json").read_text())["capture"]["chosen"]
    a, b = (read_tensors(tmp_path / run / "checkpoints/step-00000060", "average/", "averaging/") for run in "ab")
    assert a.keys() == b.keys()
    assert a
    for name, tensor in a.items():
        assert torch.allclose(tensor.double(), b[name].double(), rtol=1e-2, atol=1e-3), name
    assert _resumes_exactly(
        text, tmp_path / "resumed", *settings, "checkpoint.metric=validation/loss@" + averaging[7:10]
    )


def test_a_switched_optimizer_is_captured_anew_and_resumes(text: Path, tmp_path: Path) -> None:
    """The second has other memory: a graph of the first would go on to change what is no longer there."""
    switch = "optimizer_switch={at: 25, to: {name: sgd, learning_rate: 0.1}}"
    settings = (BF16, "training.deterministic=true", "training.compile=off", switch)
    _, captured = _fit(text, tmp_path / "a", *settings)
    _, plain = _fit(text, tmp_path / "b", *settings, "training.capture=off")
    assert captured == pytest.approx(plain, rel=1e-2)
    assert captured[-1] != captured[25]
    assert _resumes_exactly(text, tmp_path / "resumed", *settings)


def test_a_replay_draws_new_randomness_and_settings_reach_it() -> None:
    step, batch = _small_step()
    step.captured = capture(step, batch, in_parts=False)
    step.set(learning_rate=0.0, weight_decay=0.0, clip_threshold=1.0)
    for number in (1, 2, 1):
        step.run([batch], number)
    first, second, again = step.ring.take().wait()[:, 0].tolist()
    assert first == again
    assert first != second
    before = step.optimizer.storage.weights["blocks.0.attention.qkv.weight"].clone()
    step.set(learning_rate=1e-2)
    step.run([batch], 4)
    assert not torch.equal(before, step.optimizer.storage.weights["blocks.0.attention.qkv.weight"])


@pytest.mark.parametrize("in_parts", [False, True])
def test_capturing_leaves_everything_as_it_was(in_parts: bool) -> None:
    step, batch = _small_step()
    step.run([batch], 1)

    def state() -> list[torch.Tensor]:
        optimizer = [t for slots in step.optimizer.state_by_name().values() for t in slots.values()]
        weights = [*step.optimizer.storage.weights.values(), *step.model.parameters(), *step.model.buffers()]
        return [t.detach().clone() for t in (*optimizer, *weights, step.ring.rows, step.ring.cursor)]

    before, random = state(), torch.cuda.get_rng_state()
    step.captured = capture(step, batch, in_parts=in_parts)
    assert torch.equal(random, torch.cuda.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))


def test_more_micro_batches_are_captured_anew() -> None:
    losses = []
    for captured in (True, False):
        step, batch = _small_step()
        if captured:
            step.captured = capture(step, batch, in_parts=False)
        for number, count in ((1, 1), (2, 3), (3, 1)):
            step.run([batch] * count, number)
        losses.append(step.ring.take().wait()[:, :3])
    assert np.allclose(losses[0], losses[1], rtol=2e-3)


def _small_step(objective: CrossEntropy | None = None) -> tuple[Step, Batch]:
    device = torch.device("cuda")
    config = DecoderConfig.model_validate(
        {"num_layers": 2, "hidden_size": 64, "num_heads": 2, "dropout": {"residual": 0.2}}
    )
    model = build_model(config, vocabulary_size=101, sequence_length=32, seed=0).to(device).train()
    task = CausalLanguageModelingTask((objective or CrossEntropy()).to(device))
    step = Step(
        model=model,
        task=task,
        optimizer=AdamW(parameter_groups(model, 0.1), compute_dtype=torch.bfloat16),
        transforms=[clip_by_norm(), skip_non_finite()],
        probes=[],
        precision=Precision(Bf16(), device, torch.bfloat16),
        ring=Ring(columns_of_step(task.term_names, scaled=False), 10, device),
        device=device,
        seed=0,
    )
    step.set(learning_rate=1e-3, weight_decay=1.0, clip_threshold=1.0)
    tokens = torch.randint(0, 101, (4, 32), generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(4, 32, dtype=torch.int32)
    return step, Batch(tokens, tokens.roll(-1, 1), zeros, zeros, torch.arange(4), 128)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("over_others", [False, True])
@pytest.mark.parametrize("z", [0.0, 0.1])
@pytest.mark.parametrize("classes", [23, 1000, 50257])
def test_the_loss_kernel_is_the_plain_loss(smoothing: float, over_others: bool, z: float, classes: int) -> None:
    torch.manual_seed(0)
    columns = classes + -classes % head_loss.VOCABULARY_MULTIPLE
    logits = 3.0 * torch.randn(65, columns, device="cuda")
    logits[:, classes:] = 9.0
    targets = torch.randint(0, classes, (65,), device="cuda")
    targets[3] = IGNORED
    # Two largest: the earlier is the answer.
    for row, (first, second) in enumerate(((0, 1), (0, classes - 1), (classes - 1, classes - 2)), start=4):
        logits[row, [first, second]], targets[row] = 20.0, max(first, second) if row % 2 else min(first, second)

    def weights_on(device: str) -> head_loss.Weights:
        share = torch.tensor(smoothing, dtype=torch.float64, device=device)
        return head_loss.Weights(share, smoothing > 0, over_others, torch.tensor(z, device=device))

    exact, ours = logits.cpu(), logits.clone()
    expected = head_loss.judge(exact, targets.cpu(), classes, weights_on("cpu"), True)
    given = head_loss.judge(ours, targets, classes, weights_on("cuda"), True)
    for a, b in zip(given, expected, strict=True):
        assert torch.allclose(a.cpu(), b, rtol=1e-5, atol=1e-5)
    assert torch.allclose(ours.cpu(), exact, rtol=1e-4, atol=1e-6)
    assert float(ours[:, classes:].abs().sum()) == 0.0


@pytest.mark.parametrize("fused", ["on", "off"])
def test_a_captured_step_takes_adjusted_smoothing_and_dropout(fused: Any) -> None:
    """Recorded once, it computes what an uncaptured step built with the new rates would."""

    def losses(captured: bool, factors: tuple[float, ...] = (1.0, 3.0, 0.0, 1.0)) -> list[float]:
        objective = CrossEntropy(0.1, "others", fused=fused)
        step, batch = _small_step(objective)
        if captured:
            step.captured = capture(step, batch, in_parts=False)
        found = []
        for number, factor in enumerate(factors, 1):
            objective.set_smoothing_factor(factor)
            set_dropout_factor(step.model, factor)
            step.run([batch], number)
            found.append(float(step.settings["loss"]))
        return found

    given = losses(captured=True)
    assert given == pytest.approx(losses(captured=False), rel=1e-3)
    unadjusted = losses(captured=True, factors=(1.0, 1.0, 1.0, 1.0))
    assert given[0] == unadjusted[0]
    assert all(abs(a - b) > 1e-3 for a, b in zip(given[1:3], unadjusted[1:3], strict=True))


def test_the_optimizers_kernel_is_its_torch_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(100, 333), nn.LayerNorm(333), nn.Linear(333, 4)).cuda()
        optimizer = AdamW(parameter_groups(model, 0.1), beta2=0.999, compute_dtype=torch.bfloat16)
        settings = {"learning_rate": torch.tensor(1e-2).cuda(), "weight_decay": torch.tensor(0.5).cuda()}
        for step in range(20):
            optimizer.storage.flat_gradient.normal_()
            skip = torch.tensor(float(step == 7), device="cuda")
            by_name, one = optimizer.storage.gradients, torch.ones((), device="cuda")
            optimizer.update(Gradients(by_name, one, one, 0.5 * one, skip), settings)
        slots = [t for slots in optimizer.state_by_name().values() for t in slots.values()]
        assert all(p.dtype == torch.bfloat16 for p in model.parameters())
        return [t.clone() for t in (*optimizer.storage.weights.values(), *slots, *model.parameters())]

    kernel = trained()
    monkeypatch.setattr(adamw, "_kernel", None)
    for ours, plain in zip(kernel, trained(), strict=True):
        assert torch.allclose(ours, plain, rtol=1e-2 if ours.dtype == torch.bfloat16 else 1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"custom"}))
def test_every_optimizer_captured_is_itself_uncaptured(text: Path, tmp_path: Path, name: str) -> None:
    """On bf16 weights over fp32 masters; an optimizer that cannot be captured says so, and trains."""
    for extra in OPTIMIZERS[name].needs:
        pytest.importorskip(EXTRAS[extra])
    rate = {"sgd": 0.1, "muon": 0.02, "adafactor": 1e-2, "lamb": 1e-2, "galore": 1e-2}.get(name, 1e-3)
    settings = (BF16, "training.deterministic=true", "training.compile=off", "training.steps=20", "schedule.warmup=2")
    settings = (*settings, f"optimizer={{name: {name}, learning_rate: {rate}, weight_decay: 0}}")
    settings = (*settings, "lint.allow=[schedule-free-with-decay]") if "schedule_free" in name else settings
    _, captured = _fit(text, tmp_path / "a", *settings)
    _, plain = _fit(text, tmp_path / "b", *settings, "training.capture=off")
    assert json.loads((tmp_path / "a" / "plan.json").read_text())["capture"]["chosen"] == OPTIMIZERS[name].capturable
    assert captured == pytest.approx(plain, rel=1e-3)
    assert captured[-1] < captured[0] - 0.1


def test_transforms_that_remember_are_captured(text: Path, tmp_path: Path) -> None:
    settings = (BF16, "training.deterministic=true", "training.compile=off", "training.steps=40")
    settings = (
        *settings,
        "gradients={clip: {name: quantile, memory: 10}, centralize: true}",
        "recovery.spikes={name: skip, deviations: 8, memory: 10}",
    )
    _, captured = _fit(text, tmp_path / "a", *settings)
    _, plain = _fit(text, tmp_path / "b", *settings, "training.capture=off")
    assert json.loads((tmp_path / "a" / "plan.json").read_text())["capture"]["chosen"]
    assert captured == pytest.approx(plain, rel=1e-2)


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_groups_with_settings_of_their_own_are_captured(text: Path, tmp_path: Path, name: str) -> None:
    schedules = "{'*norm*': {name: constant}, 'embedding*': {name: linear, warmup: 5}}"
    settings = (BF16, "training.deterministic=true", "training.compile=off", "training.steps=20")
    settings = (*settings, f"optimizer={{name: {name}, weight_decay: 0.2, decay: {{target: 0.8}}}}")
    settings = (*settings, f"optimizer.rates.schedules={schedules}", "gradients.clip.groups={'embedding*': 0.3}")
    _, captured = _fit(text, tmp_path / "a", *settings)
    _, plain = _fit(text, tmp_path / "b", *settings, "training.capture=off")
    assert json.loads((tmp_path / "a" / "plan.json").read_text())["capture"]["chosen"]
    assert captured == pytest.approx(plain, rel=1e-3)


def test_an_encoder_fills_holes(text: Path, tmp_path: Path) -> None:
    settings = [line.replace("TEXT", str(text)).replace(", yardsticks: false", "") for line in SETTINGS]
    settings += [BF16, "task={name: masked_lm}", "model={name: encoder, num_layers: 2, hidden_size: 64, num_heads: 2}"]
    losses = Losses()
    Trainer(load_config(None, settings), run=tmp_path / "run", monitors=[losses]).fit()
    assert sum(losses.values[-10:]) < sum(losses.values[:10])


def test_the_noise_scale_is_captured_and_never_waits(text: Path, tmp_path: Path) -> None:
    class Values:
        def __init__(self) -> None:
            self.seen: list[float] = []

        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded):
                self.seen += [event.values["gradient_noise"]] if "gradient_noise" in event.values else []

    run = Step.run

    def watched(self: Step, *arguments: Any, **named: Any) -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            run(self, *arguments, **named)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    told = []
    for name, capture_it in (("a", "auto"), ("b", "off")):
        settings = [
            *SETTINGS,
            "training.precision.name=fp32",  # it is a difference of norms: rounding would be most of it
            "training.deterministic=true",
            "logging.noise_scale.every=3",
            "training.compile=off",
            "model.dropout.residual=0.0",
        ]
        settings = [line.replace("TEXT", str(text)) for line in [*settings, f"training.capture={capture_it}"]]
        config = load_config(None, settings)
        values = Values()
        Step.run = watched  # type: ignore[method-assign]
        try:
            Trainer(config, run=tmp_path / name, monitors=[values]).fit()
        finally:
            Step.run = run  # type: ignore[method-assign]
        told.append(values.seen)
    assert len(told[0]) > 3
    assert told[0] == pytest.approx(told[1], rel=0.05)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gelu_within_the_products_is_gelu(bias: bool, dtype: torch.dtype) -> None:
    """Output and gradients as near to fp64 as those of the plain layers in 16 bits."""
    torch.manual_seed(0)
    block = FeedForward(96, 384, "gelu_tanh", bias).cuda().to(dtype)
    x = torch.randn(3, 50, 96, device="cuda", dtype=dtype)
    upstream = torch.randn_like(x)

    def results(block: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        x = x.clone().requires_grad_()
        y = block(x)
        gradients = torch.autograd.grad(y, [x, *block.parameters()], upstream.to(x.dtype))
        return [tensor.double() for tensor in (y, *gradients)]

    exact = results(copy.deepcopy(block).double(), x.double())
    plain = results(block, x)
    assert not block.fuses
    block.fuses = True
    assert block.can_fuse(x)
    for ours, theirs, true in zip(results(block, x), plain, exact, strict=True):
        assert (ours - true).norm() <= 1.5 * (theirs - true).norm() + 1e-6


@pytest.mark.parametrize("how", ["training.compile=off", "training.compile=on", "training.compile=whole"])
def test_a_run_with_gelu_within_the_products(text: Path, tmp_path: Path, how: str) -> None:
    settings = (BF16, how, "model.activation=gelu_tanh", "model.dropout.residual=0.0", "training.deterministic=true")
    _, fused = _fit(text, tmp_path / "a", *settings)
    _, plain = _fit(text, tmp_path / "b", *settings, "training.fused_activation=off")
    assert [json.loads((tmp_path / run / "plan.json").read_text())["activation"]["chosen"] for run in "ab"] == [
        "fused",
        "apart",
    ]
    assert fused == pytest.approx(plain, rel=2e-2)


def test_the_loss_in_chunks_is_the_loss() -> None:
    torch.manual_seed(0)
    features = torch.randn(1000, 64, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(301, 64, device="cuda", dtype=torch.bfloat16)
    targets = torch.randint(0, 301, (1000,), device="cuda")
    zero = torch.zeros((), device="cuda")
    weights = head_loss.Weights(zero, False, False, zero)
    found = []
    for chunks in (1, 4):
        f, w = features.clone().requires_grad_(), weight.clone().requires_grad_()
        total = head_loss.head_loss(f, w, targets, weights, chunks)[0]
        found.append([total.detach(), *torch.autograd.grad(total, [f, w])])
    for one, four in zip(*found, strict=True):
        assert (one.double() - four.double()).norm() <= 4e-3 * one.double().norm()


def test_the_largest_micro_batch_is_found_within_a_budget(text: Path, tmp_path: Path) -> None:
    settings = ("training.batch_size=64", "training.micro_batch_size=auto", "training.steps=4")
    free = [line for line in SETTINGS if not line.startswith("training.")]
    base = [line.replace("TEXT", str(text)) for line in free]

    def plan(name: str, *budget: str) -> dict[str, Any]:
        gc.collect()  # what other tests left counts as taken
        torch.cuda.empty_cache()
        Trainer(load_config(None, [*base, *settings, *budget]), run=tmp_path / name).fit()
        found: dict[str, Any] = json.loads((tmp_path / name / "plan.json").read_text())["micro_batch"]
        return found

    whole = plan("all")
    assert whole["chosen"] == 64
    between = (whole["tried"]["1"] + whole["tried"]["64"]) // 2
    part = plan("part", f"training.memory_budget_bytes={between}")
    assert 1 <= part["chosen"] < 64
    assert part["chosen"] * part["accumulation"] == 64


def test_memory_that_runs_out_halves_the_micro_batch(text: Path, tmp_path: Path) -> None:
    """The process may have a part of the device; a module asks for more than that, and torch refuses it."""

    class Hungry(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(257, 16), nn.Linear(16, 257)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            ballast = torch.ones(tokens.shape[0], 50_000_000, device=tokens.device)
            logits: torch.Tensor = self.head(self.embedding(tokens)) + 0.0 * ballast.mean()
            return logits

    few = ["training.steps=4", "evaluation.batch_size=1"]
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 1_200_000_000) / total)
    try:
        config = load_config(None, [line.replace("TEXT", str(text)) for line in SETTINGS] + few)
        result = Trainer(config, run=tmp_path / "run", model=Hungry()).fit()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.status == "finished"
    plan = json.loads((tmp_path / "run/plan.json").read_text())["micro_batch"]
    assert (plan["chosen"], plan["accumulation"]) == (4, 4)
