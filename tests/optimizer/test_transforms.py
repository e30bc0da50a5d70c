"""Each gradient transform by hand, in order, under a loss scale, and with its state given back."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trimtab.config import Fp16, load_config
from trimtab.errors import ConfigError
from trimtab.monitor.probes import ClippedNorms
from trimtab.optimizer import (
    ClipByGroup,
    ClipByQuantile,
    ClipByZScore,
    Noise,
    SkipOutliers,
    build_transforms,
    centralize,
    clip_by_norm,
    clip_by_parameter,
    clip_by_unit,
    clip_by_value,
    clip_threshold,
    skip_non_finite,
)
from trimtab.signals import Gradients, GradientTransform, StepSignals

sys.path.append(str(Path(__file__).parents[1] / "numerics"))
from tiny_step import make_batch, make_step

A = [[3.0, 1.0], [0.0, -4.0]]
B = [6.0, 8.0]


def gradients(scale: float = 1.0) -> Gradients:
    """A and B as the optimizer would see them, though stored `1 / scale` times as large."""
    by_name = {"a": torch.tensor(A) / scale, "b": torch.tensor(B) / scale}
    norms = torch.stack([tensor.norm() * scale for tensor in by_name.values()])
    weights = {"a": torch.tensor([[3.0, 4.0], [0.0, 0.0]]), "b": torch.tensor([0.0, 2.0])}
    return Gradients(by_name, norms, norms.norm(), torch.tensor(scale), torch.tensor(0.0), weights)


def settings(threshold: float = 1.0) -> dict[str, Tensor]:
    return {"clip_threshold": torch.tensor(threshold), "loss": torch.tensor(1.0)}


def seen(given: Gradients) -> list[list[float]]:
    """What the optimizer sees of a and b."""
    return [(tensor * given.scale).flatten().tolist() for tensor in given.by_name.values()]


def approx(*parts: list[float]) -> Any:
    return [pytest.approx(part, rel=1e-6, abs=1e-6) for part in parts]


SCALES = pytest.mark.parametrize("scale", [1.0, 1 / 1024])


@SCALES
def test_centralize(scale: float) -> None:
    given = gradients(scale)
    centralize().apply(given, settings())
    assert seen(given) == approx([1.0, -1.0, 2.0, -2.0], B)
    assert given.norms_P.tolist() == pytest.approx([math.sqrt(10), 10.0])
    assert float(given.total_norm) == pytest.approx(math.sqrt(110))


@SCALES
def test_clip_by_value(scale: float) -> None:
    given = gradients(scale)
    clip_by_value().apply(given, settings(2.5))
    assert seen(given) == approx([2.5, 1.0, 0.0, -2.5], [2.5, 2.5])


@SCALES
def test_clip_by_parameter(scale: float) -> None:
    given = gradients(scale)
    clip_by_parameter().apply(given, settings(5.5))
    factor = 5.5 / math.sqrt(26)  # above 1: left as it is
    assert factor > 1
    assert seen(given) == approx([3.0, 1.0, 0.0, -4.0], [3.3, 4.4])


@SCALES
def test_clip_by_group(scale: float) -> None:
    given = gradients(scale)
    ClipByGroup(["a", "b"], 1.0, {"a": 2.0}).apply(given, settings(1.0))
    assert seen(given) == approx([v * 2 / math.sqrt(26) for v in (3.0, 1.0, 0.0, -4.0)], [0.6, 0.8])
    given = gradients(scale)
    ClipByGroup(["a", "b"], 4.0, {"b": 100.0}).apply(given, settings(4.0))
    assert seen(given) == approx([v * 4 / math.sqrt(26) for v in (3.0, 1.0, 0.0, -4.0)], B)
    given = gradients(scale)  # both in one group, and the setting at half of what is configured
    ClipByGroup(["a", "b"], 4.0, {"?": 3.0}).apply(given, settings(2.0))
    assert seen(given) == approx(*([v * 1.5 / math.sqrt(126) for v in part] for part in ([3.0, 1.0, 0.0, -4.0], B)))


def test_a_group_that_is_not_finite_leaves_the_others_as_they_are() -> None:
    given = gradients()
    given.norms_P[0] = math.inf
    ClipByGroup(["a", "b"], 5.0, {"a": 1.0}).apply(given, settings(5.0))
    assert seen(given)[1] == pytest.approx([3.0, 4.0])


@pytest.mark.parametrize("groups", [{"c*": 1.0}, {"a": 1.0, "?": 2.0}])
def test_groups_of_clipping_without_effect_are_refused(groups: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"gradients\.clip\.groups"):
        ClipByGroup(["a", "b"], 1.0, groups)


@SCALES
def test_clip_by_unit(scale: float) -> None:
    """Row 1 of a: ||w|| = 5, ||g|| = sqrt(10). Row 2: w is 0, so 0.5 stands in; ||g|| = 4. b: ||w|| = 2, ||g|| = 10."""
    given = gradients(scale)
    clip_by_unit(0.5).apply(given, settings(0.4))
    first = 0.4 * 5 / math.sqrt(10)
    assert seen(given) == approx([3 * first, first, 0.0, -0.2], [0.48, 0.64])


@SCALES
def test_clip_by_norm(scale: float) -> None:
    given = gradients(scale)
    clip_by_norm().apply(given, settings(3.0))
    factor = 3.0 / math.sqrt(126)
    assert seen(given) == approx([factor * x for row in A for x in row], [factor * x for x in B])


@pytest.mark.parametrize("scale", [1.0, 1 / 1024])
@pytest.mark.parametrize("threshold", [0.5, 5.0, 1e6])
@pytest.mark.parametrize(
    "transform",
    [clip_by_norm(), clip_by_value(), clip_by_parameter(), clip_by_unit(), ClipByGroup(["a", "b"], 1.0, {"b": 2.0})],
    ids=lambda transform: transform.name,
)
def test_the_norm_after_clipping_is_of_what_the_optimizer_sees(
    transform: GradientTransform, threshold: float, scale: float
) -> None:
    given = gradients(scale)
    given.unscale = torch.tensor(scale)
    transform.apply(given, settings(threshold))
    apart = given.clipped_P is not None
    assert apart == (transform.name != "clip_by_norm")
    probe = ClippedNorms(["a", "b"], apart=apart)
    read = probe.read(StepSignals(given, given.weights, {})).tolist()
    norms = [math.hypot(*values) for values in seen(given)]
    layers = {f"layer/{name}/grad_norm_clipped": norm for name, norm in zip("ab", norms, strict=True)}
    expected = {"grad_norm_clipped": math.hypot(*norms), **(layers if apart else {})}
    assert dict(zip(probe.columns, read, strict=True)) == pytest.approx(expected, rel=1e-5)


def test_a_gradient_of_zeros_stays() -> None:
    for transform in (centralize(), clip_by_parameter(), clip_by_unit(), clip_by_value(), clip_by_norm()):
        zeros = {"a": torch.zeros(2, 2), "b": torch.zeros(2)}
        given = Gradients(zeros, torch.zeros(2), torch.zeros(()), torch.ones(()), torch.zeros(()), zeros)
        transform.apply(given, settings())
        assert seen(given) == [[0.0] * 4, [0.0] * 2], transform.name


@SCALES
def test_noise_has_the_variance_that_fades(scale: float) -> None:
    noise, torch_state = Noise(0.04, 0.55), torch.get_rng_state()
    torch.manual_seed(0)
    for step in range(3):
        zeros = {"a": torch.zeros(400, 400)}
        given = Gradients(zeros, torch.zeros(1), torch.zeros(()), torch.tensor(scale), torch.zeros(()))
        noise.apply(given, settings())
        drawn = given.by_name["a"] * scale
        assert float(drawn.var()) == pytest.approx(0.04 / (1 + step) ** 0.55, rel=0.02)
        assert abs(float(drawn.mean())) < 2e-3
    torch.set_rng_state(torch_state)


def norms_of(
    values: list[float], transform: GradientTransform, threshold: float = 1.0
) -> tuple[list[float], list[float]]:
    """What is left of gradients of these norms, and which were skipped."""
    left, skipped = [], []
    for value in values:
        gradient = {"a": torch.tensor([value])}
        norm = torch.tensor(value).abs()
        given = Gradients(gradient, norm.unsqueeze(0), norm, torch.ones(()), torch.zeros(()))
        transform.apply(given, settings(threshold))
        left.append(float(norm * given.scale))
        skipped.append(float(given.skip))
    return left, skipped


def test_quantile_follows_the_last_norms() -> None:
    chance = np.random.default_rng(0)
    values = chance.lognormal(size=60).astype(np.float32).tolist()
    values[30] = 1000.0
    left, _ = norms_of(values, ClipByQuantile(0.8, 10), 1.5)
    for step, (value, kept) in enumerate(zip(values, left, strict=True)):
        level = 1.5 * np.quantile(values[step - 10 : step], 0.8) if step >= 10 else math.inf
        assert kept == pytest.approx(min(value, level), rel=1e-5), step


def recomputed(values: list[float], deviations: float, memory: int) -> list[float]:
    """The thresholds, by their definition."""
    thresholds, mean, variance = [], 0.0, 0.0
    for step, value in enumerate(values):
        level = mean + deviations * math.sqrt(variance) if step >= memory else math.inf
        thresholds.append(level)
        new, taken = 1 / min(step + 1, memory), min(value, level)
        variance = (1 - new) * (variance + new * (taken - mean) ** 2)
        mean += new * (taken - mean)
    return thresholds


def test_z_score_clips_to_its_threshold() -> None:
    values = np.random.default_rng(1).lognormal(0.0, 0.3, size=80).tolist()
    values[40] = 500.0
    left, skipped = norms_of(values, ClipByZScore(2.0, 20))
    expected = [min(value, level) for value, level in zip(values, recomputed(values, 2.0, 20), strict=True)]
    assert left == pytest.approx(expected, rel=1e-4)
    assert sum(a < b for a, b in zip(left, values, strict=True)) >= 2
    assert not any(skipped)


def test_outliers_are_skipped_and_a_lasting_change_only_for_a_while() -> None:
    values = np.random.default_rng(1).lognormal(0.0, 0.2, size=60).tolist()
    values[40] = 500.0
    values += [20.0] * 60
    left, skipped = norms_of(values, SkipOutliers(6.0, 20))
    expected = [float(value > level) for value, level in zip(values, recomputed(values, 6.0, 20), strict=True)]
    assert skipped == expected
    assert skipped[40] == 1.0
    assert sum(skipped[:60]) == 1.0
    assert skipped[60] == 1.0
    assert not any(skipped[-30:])
    assert left == pytest.approx(values)


def test_the_first_mean_and_variance_are_those_of_all_norms() -> None:
    values = np.random.default_rng(2).lognormal(size=15).tolist()
    transform = SkipOutliers(3.0, 20)
    norms_of(values, transform)
    state = transform.state_by_name()
    assert float(state["mean"]) == pytest.approx(np.mean(values), rel=1e-5)
    assert float(state["variance"]) == pytest.approx(np.var(values), rel=1e-4)


@pytest.mark.parametrize(
    "make", [lambda: ClipByQuantile(0.5, 10), lambda: ClipByZScore(1.0, 10), lambda: SkipOutliers(1.0, 10)]
)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_not_remembered(make: Any, bad: float) -> None:
    clean, spoiled = make(), make()
    values = np.random.default_rng(3).lognormal(size=30).tolist()
    norms_of(values, clean)
    norms_of([bad, *values[:15], bad, bad, *values[15:]], spoiled)
    for slot, tensor in clean.state_by_name().items():
        assert torch.equal(tensor, spoiled.state_by_name()[slot]), slot


@pytest.mark.parametrize(
    "make",
    [lambda: ClipByQuantile(0.5, 10), lambda: ClipByZScore(1.0, 10), lambda: SkipOutliers(1.0, 10)],
)
def test_with_its_state_given_back_it_goes_on(make: Any) -> None:
    values = np.random.default_rng(4).lognormal(size=50).tolist()
    whole = norms_of(values, make())
    first, second = make(), make()
    norms_of(values[:23], first)
    norms_of(values[:7], second)
    second.load_state_by_name({slot: tensor.clone() for slot, tensor in first.state_by_name().items()})
    left, skipped = norms_of(values[23:], second)
    assert (left, skipped) == (whole[0][23:], whole[1][23:])


def test_order_and_thresholds_are_those_of_the_configuration() -> None:
    def built(*overrides: str) -> tuple[list[str], float]:
        config = load_config(None, list(overrides), environment={})
        transforms = build_transforms(config.gradients, spikes=config.recovery.spikes)
        return [transform.name for transform in transforms], clip_threshold(config.gradients.clip)

    assert built() == (["clip_by_norm", "skip_non_finite"], 1.0)
    rest = ["gradients.centralize=true", "gradients.noise.scale=0.01", "recovery.spikes.name=skip"]
    for name, transform, threshold in (
        ("value", "clip_by_value", 1.0),
        ("parameter", "clip_by_parameter", 1.0),
        ("agc", "clip_by_unit", 0.01),
        ("quantile", "clip_by_quantile", 1.0),
        ("z_score", "clip_by_z_score", 1.0),
    ):
        order = ["centralize", transform, "noise", "skip_outliers", "skip_non_finite"]
        assert built(f"gradients.clip.name={name}", *rest) == (order, threshold)
    section = load_config(None, ["gradients.clip.groups={'h*': 0.1}"], environment={}).gradients
    first = build_transforms(section, None, ["head", "body"])[0]
    assert isinstance(first, ClipByGroup)
    assert built("gradients.clip.name=none", "gradients.skip_non_finite=false") == ([], math.inf)


@pytest.mark.parametrize("name", ["value", "parameter", "agc"])
def test_a_loss_scale_changes_nothing(name: str) -> None:
    """One step in fp16 under a scale moves the weights as one without."""
    moved = []
    for scale in (1.0, 256.0):
        step = make_step(precision=Fp16(initial_scale=scale))
        section = load_config(None, [f"gradients.clip.name={name}"], environment={}).gradients
        step.transforms = (*build_transforms(section), skip_non_finite())
        step.set(clip_threshold=1e-3)
        step.optimizer.epsilon = 1e-3  # so that the size of a gradient matters
        before = {key: weight.clone() for key, weight in step.optimizer.storage.weights.items()}
        step.run([make_batch(4, 0)], 1)
        moved.append({key: weight - before[key] for key, weight in step.optimizer.storage.weights.items()})
    for key, change in moved[0].items():
        assert float((change - moved[1][key]).norm() / change.norm()) < 0.05, key


def test_an_outlying_step_is_no_overflow() -> None:
    step = make_step(precision=Fp16(initial_scale=256.0))
    scaler = step.precision.scaler
    assert scaler is not None
    outliers = SkipOutliers(0.0, 10)
    outliers.load_state_by_name(
        {"count": torch.tensor(10.0), "mean": torch.tensor(1e-6), "variance": torch.tensor(0.0)}
    )
    step.transforms = (outliers, skip_non_finite())
    step.run([make_batch(2, 0)], 1)
    assert dict(zip(step.ring.columns, step.ring.take().wait()[-1], strict=True))["skipped"] == 1.0
    assert float(scaler.scale) == 256.0


def test_noise_is_a_pure_function_of_seed_and_step() -> None:
    def run(disturb: bool) -> list[Tensor]:
        step = make_step(dropout=0.1)
        noise = Noise(0.1, 0.55)
        step = type(step)(
            model=step.model,
            task=step.task,
            optimizer=step.optimizer,
            transforms=[noise],
            probes=[],
            precision=step.precision,
            ring=step.ring,
            device=step.device,
            seed=0,
        )
        step.set(learning_rate=1e-2, weight_decay=1.0, clip_threshold=1.0)
        for number in (1, 2):
            if disturb:
                torch.rand(5)
            step.run([make_batch(2, number)], number)
        return list(step.optimizer.storage.weights.values())

    assert all(torch.equal(a, b) for a, b in zip(run(False), run(True), strict=True))
