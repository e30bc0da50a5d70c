"""Faults of what the model learns: too much, too little, too sure, and what stands still."""

from __future__ import annotations

import numpy as np
import torch

from .faults import fault, finite, flat, settled, window, worse
from .plan import Plan
from .train import Trace

Rng = np.random.RandomState


def _over(a: Trace, b: Trace, onset: int) -> bool:
    v, k = a.valid(), int(a.valid().argmin())
    right = [one.accuracy for one in a.evaluations]
    rise = v[-2:].mean() / v[k]
    falls = a.tail() < 0.9 * window(a.loss, k / len(v) * 0.9, k / len(v) * 1.1 + 0.02)
    return (
        finite(a)
        and rise > 1.08
        and falls
        and k < 0.8 * len(v)
        and (a.plan.kind == "reg" or right[-1] < right[k] + 0.004)
    )


def small_data(base: Plan, s: int, rng: Rng) -> Plan:
    base.evaluations, base.drop, base.smoothing, base.decay = max(base.evaluations, 12), 0.0, 0.0, 0.0
    return base.copy(
        n=max(4 * base.batch, int((700, 300, 110)[s] * rng.uniform(0.7, 1.4))),
        schedule=str(rng.choice(["constant", "cosine", "linear", "wsd"])),
    )


@fault("overfitting", _over)
def few_samples(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.batch = min(base.batch, 32)
    return small_data(base, s, rng), -1


@fault("overfitting", _over, only=lambda n, t: t.inputs != "tokens")
def wide_net(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.batch, base.steps = min(base.batch, 48), int(base.steps * 1.3)
    base.family, base.width, base.norm = "mlp", 192, str(rng.choice(["none", "batch"]))
    return small_data(base, s, rng), -1


def _sure(a: Trace, b: Trace, onset: int) -> bool:
    v, k = a.valid(), int(a.valid().argmin())
    right = np.array([one.accuracy for one in a.evaluations])
    return (
        finite(a)
        and v[-2:].mean() > 1.06 * v[k]
        and k < 0.75 * len(v)
        and right[-3:].mean() > right[max(0, k - 1) : k + 2].mean() + 0.006
    )


@fault("overconfident", _sure, kinds=("cls", "tag"), needs="accuracy")
def too_sure(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.batch = min(base.batch, 32)
    faulty = small_data(base, s, rng)
    return faulty.copy(
        n=int((2200, 1200, 600)[s] * rng.uniform(0.6, 1.3)), steps=int(base.steps * 1.2), rate=base.rate * 1.3
    ), -1


@fault("underfitting", flat, kinds=("lm",))
def narrow(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.family, base.schedule = str(rng.choice(["gru", "lstm", "cnn"])), str(rng.choice(["wsd", "cosine", "linear"]))
    base.optimizer, base.rate = "adam", 6e-3
    return base.copy(width=(6, 4, 2)[s], depth=1, rate=0.02), 0


@fault("underfitting", flat, kinds=("lm",))
def blind(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """It sees no more than the last token, or nothing: attention is off, or the inputs are masked."""
    base.family, base.optimizer, base.rate = "gru", "adam", 6e-3

    def mask(loop, step, x, y):
        hidden = torch.rand(x.shape, generator=loop.drawn) < (0.7, 0.9, 1.0)[s]
        return x.masked_fill(hidden, 0), y

    def masked(data, r):
        hidden = torch.tensor(r.rand(*data.vx.shape) < (0.7, 0.9, 1.0)[s])
        data.vx = data.vx.masked_fill(hidden, 0)
        return data

    return base.copy(of_batch=[mask], of_data=[masked]), 0


def _regular(a: Trace, b: Trace, _: int) -> bool:
    return (
        finite(a)
        and worse(a, b, 0.1)
        and abs(window(a.loss, 0.6, 0.75) - window(a.loss, 0.85, 1)) < 0.06 * abs(window(a.loss, 0.6, 1))
    )


@fault("over-regularised", _regular)
def drops_nearly_all(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.drop, base.width = 0.0, max(base.width, 32)
    return base.copy(drop=(0.7, 0.85, 0.95)[s]), 0


@fault("over-regularised", _regular)
def decays_nearly_all(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.optimizer, base.rate = "adamw", 4e-3
    return base.copy(decay=(6.0, 15.0, 50.0)[s]), 0


@fault("over-regularised", _regular, kinds=("cls", "tag", "lm"))
def smooths_nearly_all(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.smoothing = 0.0
    return base.copy(smoothing=(0.6, 0.8, 0.95)[s]), 0


@fault("over-regularised", _regular)
def penalty_in_the_loss(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.optimizer, base.decay = "sgd", 0.0
    base.rate = 0.2 if base.inputs == "tokens" else 0.03
    return base.copy(decay=(0.02, 0.05, 0.2)[s]), 0


def _stands(a: Trace, b: Trace, _: int) -> bool:
    early = window(a.loss, 0.3, 0.4)
    return (
        finite(a)
        and abs(early - a.tail()) < 0.03 * early
        and a.tail() < 0.97 * a.loss[0]
        and settled(a)
        and worse(a, b, 0.2)
    )


@fault("plateau", _stands, kinds=("tag", "s2s"), needs="accuracy")
def knows_no_place(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """A model that cannot see the order, or beyond its own place."""
    base.family, base.optimizer, base.rate = "trf", "adam", 3e-3
    return base.copy(family="cnn" if s == 2 else "trf", no_positions=True, depth=(2, 1, 0)[s]), 0


@fault("plateau", _stands, kinds=("tag", "s2s", "cls", "reg"))
def cannot_hold_it(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.optimizer, base.rate, base.schedule = "adam", 5e-3, "constant"
    return base.copy(
        width=(4, 3, 2)[s],
        depth=1 if base.inputs != "image" else 2,
        family="mlp" if base.inputs != "tokens" else "cnn",
        norm="none",
        rate=0.015,
    ), 0


def _short(a: Trace, b: Trace, _: int) -> bool:
    third = a.steps // 3
    return (
        finite(a)
        and a.loss[-third:].mean() < 0.985 * a.loss[third : 2 * third].mean()
        and worse(a, b, 0.1)
        and a.final > 1.25 * b.final
    )


@fault("stopped-too-early", _short, kinds=("lm",))
def few_steps(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.every, steps = int(rng.choice([1, 2])), int((60, 35, 20)[s] * rng.uniform(0.8, 1.3))
    return base.copy(steps=steps, warmup=min(base.warmup, steps // 10), evaluations=int(rng.randint(4, 10))), 0
