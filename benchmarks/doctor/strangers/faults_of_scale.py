"""Faults of validation data, of the scale of inputs, and of single samples that rule a loss."""

from __future__ import annotations

import numpy as np
import torch

from .data import Data
from .faults import fault, finite, simply_worse, worse
from .plan import Plan
from .train import Trace

Rng = np.random.RandomState


def _shifted(a: Trace, b: Trace, _: int) -> bool:
    return (
        finite(a)
        and abs(a.tail() - b.tail()) < 0.02 + 0.1 * b.tail()
        and a.final > 1.25 * a.tail()
        and worse(a, b, 0.2)
    )


@fault("validation-shift", _shifted, only=lambda n, t: t.inputs != "tokens")
def other_scale(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """Validation inputs are normalised otherwise, or not at all."""
    times, more = (1.4, 2.0, 4.0)[s] * rng.uniform(0.9, 1.2), (0.2, 0.6, 1.5)[s]

    def scale(data: Data, r: Rng) -> Data:
        data.vx = data.vx * times + more
        return data

    return base.copy(of_data=[scale]), 0


@fault("validation-shift", _shifted, only=lambda n, t: t.inputs == "tokens" and n != "neighbours")
def other_texts(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """Validation texts of another source: some of their tokens stand for others, as in another language."""

    def translate(data: Data, r: Rng) -> Data:
        moved = r.permutation(data.voc)[: int((0.3, 0.5, 0.9)[s] * data.voc)]
        table = np.arange(data.voc)
        table[moved] = np.roll(moved, 1)
        data.vx = torch.tensor(table)[data.vx]
        if data.kind == "lm":
            data.vy = torch.tensor(table)[data.vy]
        return data

    return base.copy(of_data=[translate]), 0


@fault("validation-shift", _shifted, kinds=("cls", "tag"))
def other_labels(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """Some classes are numbered otherwise in the validation data."""

    def renumber(data: Data, r: Rng) -> Data:
        hit = torch.tensor(r.rand(len(data.vy)) < (0.2, 0.4, 0.8)[s])
        hit = hit.reshape(-1, *[1] * (data.vy.dim() - 1))
        data.vy = torch.where(hit, (data.vy + 1) % data.num_labels, data.vy)
        return data

    return base.copy(of_data=[renumber]), 0


def _jumpy(a: Trace, b: Trace, _: int) -> bool:
    def noise(trace: Trace) -> float:
        v = trace.valid()[len(trace.evaluations) // 3 :]
        return float(np.diff(v).std() / abs(v.mean()))

    return finite(a) and noise(a) > 0.06 and noise(a) > 4 * noise(b)


@fault("validation-too-small", _jumpy)
def drawn_anew(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """Each evaluation takes a handful of samples of its own, as an estimate over a batch or two does."""
    base.evaluations = int(rng.randint(15, 45))
    return base.copy(drawn_valid=(16, 6, 2)[s]), 0


@fault("validation-too-small", _jumpy, kinds=("cls", "reg"))
def a_handful(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.evaluations, base.rate, base.schedule = int(rng.randint(20, 50)), base.rate * 1.5, "constant"
    few = (20, 10, 5)[s]

    def cut(data: Data, r: Rng) -> Data:
        data.vx, data.vy = data.vx[:few], data.vy[:few]
        return data

    return base.copy(of_data=[cut]), 0


@fault("unscaled-inputs", simply_worse, only=lambda n, t: t.inputs in ("vector", "image", "series"))
def units_of_columns(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.norm = "none"
    spread = (1.5, 2.5, 4.0)[s]

    def scale(data: Data, r: Rng) -> Data:
        units = torch.tensor(10 ** r.uniform(0 if data.inputs == "vector" else spread - 0.2, spread, data.voc)).float()
        if data.inputs != "vector":
            units = units.mean().reshape(1)
        data.x, data.vx = data.x * units, data.vx * units
        return data

    return base.copy(of_data=[scale]), 0


@fault("unscaled-inputs", simply_worse, only=lambda n, t: t.inputs in ("vector", "image", "series"))
def far_from_zero(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """Years, temperatures in kelvin, bytes of pictures: a mean far from zero."""
    base.norm, more, times = "none", (20.0, 100.0, 2000.0)[s], (1.0, 10.0, 50.0)[s]

    def move(data: Data, r: Rng) -> Data:
        data.x, data.vx = data.x * times + more, data.vx * times + more
        return data

    return base.copy(of_data=[move]), 0


def _few_make_most(a: Trace, b: Trace, _: int) -> bool:
    half = a.loss[a.steps // 4 :]
    high = half > 5 * np.median(half)
    return (
        finite(a)
        and 8 <= high.sum() < 0.45 * len(half)
        and (b.loss[b.steps // 4 :] > 5 * np.median(b.loss[b.steps // 4 :])).mean() < 0.01
    )


@fault("outlier-dominated-loss", _few_make_most, kinds=("reg",), dense=True)
def targets_in_another_unit(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.batch, times = min(base.batch, 48), (10, 30, 100)[s]
    share = 0.15 / base.batch

    def hit(data: Data, r: Rng) -> Data:
        chosen = torch.tensor(r.rand(len(data.y)) < share)
        data.y = torch.where(chosen, data.y.sign() * (data.y.abs() + 1) * times, data.y)
        return data

    return base.copy(of_data=[hit]), 0


@fault("outlier-dominated-loss", _few_make_most, kinds=("cls", "reg"), dense=True)
def weights_of_samples(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.batch, times, share = min(base.batch, 48), (80.0, 300.0, 1500.0)[s], 0.2
    weigh = lambda loop, step, x, y: torch.where(torch.tensor(loop.rng.rand(len(y)) < share / len(y)), times, 1.0)  # noqa: E731
    return base.copy(sample_weights=weigh), 0
