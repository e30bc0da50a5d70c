"""The gradient noise scale against a plain re-computation, against known covariances, and through a kill; with it, so
that no run is made twice, the cosine of successive gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rig import Rig
from tiny_step import make_batch, make_step

from trimtab.config import Bf16, Fp16, Fp32, load_config
from trimtab.errors import ConfigError
from trimtab.events import RunStarted, StepsEnded
from trimtab.monitor.probes import GradientNoiseScale
from trimtab.signals import Batch, Gradients, StepSignals
from trimtab.training import Step

CPU = torch.device("cpu")
ONE, NO = torch.ones(()), torch.zeros(())


def values(probe: GradientNoiseScale) -> dict[str, float]:
    nothing = Gradients({}, NO, NO, ONE, NO)
    return dict(zip(probe.columns, probe.read(StepSignals(nothing, {}, {})).tolist(), strict=True))


def feed(probe: GradientNoiseScale, gradients_KP: torch.Tensor, sequences: int) -> None:
    """A step whose micro-batches have these mean gradients."""
    sums = {"w": torch.zeros(gradients_KP.shape[1])}
    for index, gradient in enumerate(gradients_KP):
        sums["w"] += gradient / len(gradients_KP)
        probe.part(sums, first=index == 0)
    probe.whole(sums, len(gradients_KP), sequences, ONE)
    probe.settle(NO)


def plainly(step: Step, batches: list[Batch]) -> tuple[float, float]:
    """Noise and signal as in the paper, in float64, from gradients that are computed one by one."""
    parameters = list(step.model.parameters())
    num_targets = sum(batch.count for batch in batches)
    mine = []
    for batch in batches:
        logits = step.model(batch.tokens_BT).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum")
        gradients = torch.autograd.grad(loss / num_targets, parameters)
        mine.append(torch.cat([gradient.double().flatten() for gradient in gradients]).numpy())
    k, rows = len(batches), batches[0].tokens_BT.shape[0]
    small_batch, big_batch = rows, rows * k
    small = float(np.mean([np.sum((k * gradient) ** 2) for gradient in mine]))
    big = float(np.sum(np.sum(mine, axis=0) ** 2))
    signal = (big_batch * big - small_batch * small) / (big_batch - small_batch)
    noise = (small - big) / (1 / small_batch - 1 / big_batch)
    return noise, signal


@pytest.mark.parametrize(
    "precision,parameters,tolerance",
    [
        (Fp32(), torch.float32, 1e-4),
        (Fp16(initial_scale=256.0), torch.float32, 2e-2),
        (Bf16(), torch.bfloat16, 8e-2),
    ],
    ids=["fp32", "fp16 and its loss scale", "bf16 weights over masters"],
)
def test_against_a_plain_computation(precision: Any, parameters: torch.dtype, tolerance: float) -> None:
    probe = GradientNoiseScale(1, 50, CPU)
    step = make_step(precision=precision, parameters=parameters, parts_probe=probe)
    batches = [make_batch(2, seed) for seed in range(4)]
    noise, signal = plainly(make_step(), batches)
    step.run(batches, 1)
    told = values(probe)
    assert told["gradient_noise"] == pytest.approx(noise, rel=tolerance)
    assert told["gradient_signal"] == pytest.approx(signal, rel=tolerance, abs=tolerance * noise)
    assert told["batch_size"] == 8
    assert np.isnan(told["gradient_noise_error"]), "one measurement says nothing of its own error"


@pytest.mark.parametrize("k,rows", [(2, 4), (8, 1), (5, 3)])
def test_a_known_covariance(k: int, rows: int) -> None:
    """Sequences whose gradients are normal, with mean G and covariance diag(v): tr(v) / |G|², within its own error."""
    generator = torch.Generator().manual_seed(k)
    mean, variance = torch.tensor([0.6, -0.8, 0.0, 0.5]), torch.tensor([4.0, 1.0, 0.25, 2.0])
    truth = float(variance.sum() / mean.square().sum())
    probe = GradientNoiseScale(1, 1_000, CPU)
    for _ in range(1_000):
        samples = mean + variance.sqrt() * torch.randn(k, rows, 4, generator=generator)
        feed(probe, samples.mean(dim=1), k * rows)
    told = values(probe)
    assert told["gradient_noise"] == pytest.approx(float(variance.sum()), rel=0.1)
    assert told["gradient_noise_error"] < 0.15
    assert abs(told["gradient_noise_scale"] - truth) < 3.5 * told["gradient_noise_error"] * truth


def test_the_error_is_that_of_repetitions() -> None:
    """The standard error told is the scatter of the noise scale over repetitions with other samples."""
    generator = torch.Generator().manual_seed(0)
    scales, errors = [], []
    for _ in range(60):
        probe = GradientNoiseScale(1, 200, CPU)
        for _ in range(100):
            feed(probe, 1.0 + torch.randn(4, 6, generator=generator), 4)
        scales.append(values(probe)["gradient_noise_scale"])
        errors.append(values(probe)["gradient_noise_error"] * scales[-1])
    assert np.mean(errors) == pytest.approx(np.std(scales), rel=0.3)


def test_running_means_by_hand() -> None:
    """Two micro-batches of one sequence: noise |a - b|² / 2, signal a · b; a memory of 2 halves what was before."""
    probe = GradientNoiseScale(1, 2, CPU)
    pairs = [((3.0, 1.0), 2.0, 3.0), ((2.0, 2.0), 0.0, 4.0), ((1.0, 5.0), 8.0, 5.0)]
    for pair, _, _ in pairs:
        feed(probe, torch.tensor(pair)[:, None], 2)
    told = values(probe)
    assert told["gradient_noise"] == pytest.approx(((2 + 0) / 2 + 8) / 2)
    assert told["gradient_signal"] == pytest.approx(((3 + 4) / 2 + 5) / 2)
    assert told["gradient_noise_scale"] == pytest.approx(4.5 / 4.25)


def test_a_signal_that_drowns_has_no_scale_and_nothing_measured_says_nothing() -> None:
    probe = GradientNoiseScale(1, 10, CPU)
    assert all(np.isnan(value) for value in values(probe).values())
    feed(probe, torch.tensor([[1.0], [-1.0]]), 2)
    told = values(probe)
    assert np.isnan(told["gradient_noise_scale"])
    assert (told["gradient_noise"], told["gradient_signal"]) == (2.0, -1.0)


@pytest.mark.parametrize("why", ["skipped", "not finite"])
def test_a_skipped_step_changes_nothing(why: str) -> None:
    probe = GradientNoiseScale(1, 10, CPU)
    feed(probe, torch.tensor([[1.0], [2.0]]), 2)
    before = {name: slot.clone() for name, slot in probe.state_by_name().items()}
    sums = {"w": torch.tensor([torch.inf if why == "not finite" else 1.0])}
    probe.part(sums, first=True)
    probe.part(sums, first=False)
    probe.whole(sums, 2, 2, ONE)
    probe.settle(ONE if why == "skipped" else NO)
    assert all(torch.equal(before[name], slot) for name, slot in probe.state_by_name().items())
    feed(probe, torch.tensor([[1.0], [2.0]]), 2)
    assert probe.state_by_name()["count"] == 2


def test_it_only_looks(tmp_path: Path) -> None:
    """The weights are those of a run without it, to the bit."""
    without, beside = (
        Rig(tmp_path / "a", accumulation=3),
        Rig(tmp_path / "b", accumulation=3, noise_every=3, cosine=True),
    )
    without.go()
    beside.go()
    assert torch.equal(without.weights(), beside.weights())
    told = {event.last_step: event.values for event in beside.watch.of(StepsEnded)}
    assert "gradient_noise" not in told[2]
    assert told[4]["batch_size"] == 6
    assert {"gradient_noise", "gradient_signal"} <= set(told[4])


@pytest.mark.parametrize("kill_at", [3, 5, 8])
def test_it_resumes_to_the_same_bits(tmp_path: Path, kill_at: int) -> None:
    class KilledError(Exception):
        pass

    settings: dict[str, Any] = {
        "accumulation": 2,
        "noise_every": 2,
        "precision": Fp16(initial_scale=256.0),
        "cosine": True,
    }
    whole, rig = Rig(tmp_path / "whole", **settings), Rig(tmp_path / "run", **settings)
    whole.go()
    loop = rig.build()
    train = loop._train_step

    def until_killed() -> None:
        if loop.progress.step == kill_at:
            loop._save("for the test")
            raise KilledError
        train()

    loop._train_step = until_killed  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        loop.run(RunStarted(0, 1, 0, None, rig.steps))
    rig.loader.close()
    rig.recorder.close()
    again = Rig(tmp_path / "run", **settings)
    again.go()

    def noise(*rigs: Rig) -> dict[int, dict[str, float]]:
        events = [event for one in rigs for event in one.watch.of(StepsEnded)]
        names = ("gradient_", "grad_cosine")
        return {e.last_step: {n: v for n, v in e.values.items() if n.startswith(names)} for e in events}

    assert noise(rig, again) == noise(whole)
    assert {"gradient_noise", "grad_cosine"} <= noise(whole)[12].keys(), "something was measured"


@pytest.mark.parametrize("accumulation", [1, 3])
def test_every_probe_fills_its_columns_in_every_row(tmp_path: Path, accumulation: int) -> None:
    """Beside the layers' probes, before the first measurement, between windows, and where no step has two parts."""
    rig = Rig(tmp_path / "run", accumulation=accumulation, noise_every=3, layers=True)
    loop = rig.build()
    step, ring = loop._step, loop._step.ring
    for probe, unread in zip(step.probes, step._unread, strict=True):
        assert unread.shape == (len(probe.columns),)
    batches = [make_batch(2, seed) for seed in range(accumulation)]
    step.set(learning_rate=1e-2, weight_decay=1.0, clip_threshold=1.0)
    for number in range(1, 5):
        step.run(batches, number, ends_window=number % 2 == 0)
    rows = dict(zip(ring.columns, ring.take().wait().T, strict=True))
    names = [name for name in rows if name.startswith("layer/")]
    assert len(names) == len(list(rig.model.parameters()))
    for name in names:  # what is read at a window's end alone stands in its last row, under its own name
        parameter = rig.model.get_parameter(name.removeprefix("layer/").removesuffix("/weight_norm"))
        assert rows[name][3] == pytest.approx(float(parameter.detach().norm()), rel=1e-6)
    measured = [rows[name][3] for name in GradientNoiseScale.columns if name != "gradient_noise_error"]
    assert np.isnan(rows["gradient_noise"][1]), "nothing was measured yet"
    if accumulation == 1:
        assert np.isnan(measured).all()
    else:
        assert rows["batch_size"][3] == accumulation * 2
        assert np.isfinite(rows["gradient_noise"][3])
    rig.loader.close()
    rig.recorder.close()
    rig.keeper.close()


def test_with_one_micro_batch_it_is_refused_and_says_why() -> None:
    with pytest.raises(ConfigError, match=r"logging\.noise_scale\.every.*\n?.*accumulation is 1"):
        load_config("gpt-1m", ["logging.noise_scale.every=5"], environment={})
    config = load_config("gpt-1m", ["logging.noise_scale.every=5", "training.accumulation=2"], environment={})
    assert config.logging.noise_scale.every == 5
    with pytest.raises(ConfigError, match="not measured, as"):
        load_config("gpt-1m", ["logging.noise_scale.memory=5"], environment={})
