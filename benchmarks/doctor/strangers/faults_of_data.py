"""Faults of what a run learns from and is judged by."""

from __future__ import annotations

import numpy as np
import torch

from .data import Data
from .faults import fault, finite, worse
from .plan import Plan
from .train import Trace

Rng = np.random.RandomState
LABELS = ("cls", "tag")


def _flip(y: torch.Tensor, share: float, labels: int, rng: Rng, near: bool = False) -> torch.Tensor:
    other = (y + 1) % labels if near else torch.tensor(rng.randint(0, labels, y.shape))
    return torch.where(torch.tensor(rng.rand(*y.shape) < share), other, y)


def _both(share: float, near: bool, valid: bool):
    def change(data: Data, rng: Rng) -> Data:
        data.y = _flip(data.y, share, data.num_labels, rng, near)
        if valid:
            data.vy = _flip(data.vy, share, data.num_labels, rng, near)
        return data

    return change


def _noise(a: Trace, b: Trace, _: int) -> bool:
    learned = np.array([one.accuracy for one in a.evaluations]).max()
    chance = 1 / np.exp(a.uniform)
    return (
        finite(a)
        and a.tail() > 1.2 * b.tail()
        and a.tail() > b.tail() + 0.15
        and learned > 1.25 * chance
        and worse(a, b)
    )


@fault("label-noise", _noise, kinds=LABELS, needs="accuracy")
def noise_everywhere(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.smoothing = 0.0
    return base.copy(of_data=[_both((0.2, 0.35, 0.5)[s], False, True)]), 0


@fault("label-noise", _noise, kinds=LABELS, needs="accuracy")
def noise_in_training(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.smoothing = 0.0
    return base.copy(of_data=[_both((0.2, 0.35, 0.5)[s], False, False)]), 0


@fault("label-noise", _noise, kinds=LABELS, needs="accuracy")
def neighbours_confused(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.smoothing = 0.0
    return base.copy(of_data=[_both((0.15, 0.25, 0.35)[s], True, True)]), 0


def _random(a: Trace, b: Trace, _: int) -> bool:
    right = np.array([one.accuracy for one in a.evaluations])
    one_class = right[len(right) // 3 :].std() < 0.004  # then nobody could tell it from a class-collapse
    return finite(a) and not one_class and a.valid().min() > 0.9 * a.uniform and worse(a, b, 0.15)


@fault("random-labels", _random, kinds=LABELS, needs="accuracy")
def labels_shuffled(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """Inputs were sorted or shuffled without their labels."""

    def shuffle(data: Data, r: Rng) -> Data:
        data.y = data.y[torch.tensor(r.permutation(len(data.y)))]
        data.vy = data.vy[torch.tensor(r.permutation(len(data.vy)))]
        return data

    base.steps, base.smoothing = int(base.steps * (1, 1.1, 1.3)[s]), 0.0
    return base.copy(of_data=[shuffle], n=(base.n, base.n, max(600, base.n // 6))[s]), 0


@fault("random-labels", _random, kinds=LABELS, needs="accuracy")
def labels_off_by_one_row(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    def roll(data: Data, r: Rng) -> Data:
        data.y, data.vy = data.y.roll((1, 3, 17)[s], 0), data.vy.roll((1, 3, 17)[s], 0)
        return data

    base.smoothing = 0.0
    return base.copy(of_data=[roll]), 0


def _one_class(a: Trace, b: Trace, _: int) -> bool:
    right = np.array([one.accuracy for one in a.evaluations])[len(a.evaluations) // 3 :]
    return finite(a) and right.std() < 0.004 and right.mean() < b.evaluations[-1].accuracy - 0.1 and worse(a, b)


@fault("class-collapse", _one_class, kinds=("cls",), needs="accuracy")
def weights_of_classes(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """One class weighs a hundred or more times what others do: a count and its inverse were confused."""
    faulty = base.copy(smoothing=0.0)
    times, pick = (200.0, 1000.0, 10_000.0)[s], int(rng.randint(2))

    def weigh(loop, step, x, y):
        return torch.where(y == pick, times, 1.0) / (1 + (times - 1) / loop.data.num_labels)

    faulty.sample_weights = weigh
    return faulty, 0


@fault("class-collapse", _one_class, kinds=("cls",), needs="accuracy", only=lambda n, t: t.inputs != "tokens")
def inputs_all_alike(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """A preprocessing that leaves nearly nothing of the inputs, and classes that are not equally common."""
    keep = (1e-3, 1e-4, 0.0)[s]

    def rarer(data: Data, r: Rng) -> Data:
        for x, y in (("x", "y"), ("vx", "vy")):
            kept = (getattr(data, y) == 0) | torch.tensor(r.rand(len(getattr(data, y))) < 0.35)
            setattr(data, x, getattr(data, x)[kept])
            setattr(data, y, getattr(data, y)[kept])
        return data

    def fade(data: Data, r: Rng) -> Data:
        data.x, data.vx = data.x * keep, data.vx * keep
        return data

    base.norm, base.of_data, base.optimizer, base.rate = "none", [rarer], "sgd", 0.03
    return base.copy(of_data=[rarer, fade]), 0


def _follows(a: Trace, b: Trace, _: int) -> bool:
    def slow(values: np.ndarray) -> float:
        size = max(3, int(a.per_epoch // 12))
        parts = values[: len(values) // size * size].reshape(-1, size)
        means = parts.mean(1)
        return float(np.abs(np.diff(means)).mean() / (parts.std(1).mean() / size**0.5 + 1e-9))

    return finite(a) and slow(a.loss) > 1.5 * slow(b.loss) and worse(a, b)


def _sorted_by(key, near: float):
    def change(data: Data, rng: Rng) -> Data:
        value = key(data).double()
        spread = float(value.std()) + 1e-9
        at = torch.argsort(value + near * spread * torch.tensor(rng.randn(len(value))))
        data.x, data.y = data.x[at], data.y[at]
        return data

    return change


@fault("unshuffled-data", _follows, kinds=("cls", "reg"), dense=True)
def sorted_by_target(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.batch = min(base.batch, 64)
    epochs = rng.uniform(2, 7)
    base.n = int(max(8 * base.batch, base.steps * base.batch / epochs))
    return base.copy(order="as is", of_data=[_sorted_by(lambda d: d.y, (0.6, 0.2, 0.0)[s])]), 0


@fault("unshuffled-data", _follows, kinds=("lm", "s2s", "tag"), dense=True)
def sorted_by_kind(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """Files one after the other, by what they are made of."""
    epochs = rng.uniform(2, 6)
    base.n = int(max(8 * base.batch, base.steps * base.batch / epochs))
    return base.copy(
        order="as is", of_data=[_sorted_by(lambda d: (d.y * (d.y > 0)).double().mean(1), (0.6, 0.2, 0.0)[s])]
    ), 0


def _one_batch(a: Trace, b: Trace, onset: int) -> bool:
    before, after = a.loss[max(0, onset - 20) : onset], a.loss[onset + 1 : onset + 8]
    high = a.loss[onset] - before.mean()
    return (
        finite(a)
        and len(after) > 4
        and high > 7 * before.std()
        and high > 0.3 * before.mean()
        and np.median(after) < before.mean() + 0.25 * high
    )


def _bad(x: torch.Tensor, y: torch.Tensor, data: Data, s: int, rng: Rng) -> tuple[torch.Tensor, torch.Tensor]:
    if data.kind == "reg":
        y = y * (10, 30, 100)[s] + 3
    else:
        y = torch.where(y == -100, y, torch.tensor(rng.randint(0, data.num_labels, y.shape)))
    if x.is_floating_point():
        return x * (2, 5, 20)[s], y
    return torch.tensor(rng.randint(0, data.voc, x.shape)), y


@fault("corrupt-batch", _one_batch, dense=True)
def garbage_once(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    at = int(rng.uniform(0.35, 0.85) * base.steps)
    base.clip, base.batch, base.warmup = 1.0, min(64, base.batch), max(base.warmup, 5)
    change = lambda loop, t, x, y: _bad(x, y, loop.data, s, loop.rng) if t == at else (x, y)  # noqa: E731
    return base.copy(of_batch=[change]), at


@fault("corrupt-batch", _one_batch, dense=True)
def garbage_in_each_epoch(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    at = int(rng.uniform(0.35, 0.5) * base.steps)
    every = base.steps // (3, 4, 6)[s]
    base.clip, base.batch = 1.0, min(64, base.batch)
    change = lambda loop, t, x, y: _bad(x, y, loop.data, s, loop.rng) if t >= at and (t - at) % every == 0 else (x, y)  # noqa: E731
    return base.copy(of_batch=[change]), at


def _leaks(a: Trace, b: Trace, _: int) -> bool:
    return finite(a) and a.final < 0.6 * b.final and a.final < 1.3 * a.tail() and a.final < 0.4 * a.uniform


@fault("target-leak", _leaks, kinds=("cls", "reg"), only=lambda n, t: t.inputs in ("vector", "image", "series"))
def answer_in_a_column(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    def leak(data: Data, r: Rng) -> Data:
        for x, y in ((data.x, data.y), (data.vx, data.vy)):
            told = (
                y.float() * (3 if data.kind == "cls" else 1)
                + (0.1, 0.03, 0.0)[s] * torch.tensor(r.randn(len(y))).float()
            )
            x.reshape(len(x), -1)[:, -3:] = told[:, None]
        return data

    base.smoothing = 0.0
    return base.copy(of_data=[leak]), 0


@fault("target-leak", _leaks, kinds=("lm",))
def sees_what_comes(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """No causal mask, or targets that are not shifted."""
    base.smoothing, base.family = 0.0, str(rng.choice(["trf", "cnn"]))
    if s == 0:
        return base.copy(peek=True, family="cnn"), 0

    def same(data: Data, r: Rng) -> Data:
        data.y, data.vy = data.x, data.vx
        return data

    return base.copy(of_data=[same]), 0


@fault("target-leak", _leaks, kinds=("cls",), only=lambda n, t: t.inputs == "tokens" and n != "neighbours")
def label_in_the_text(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    def leak(data: Data, r: Rng) -> Data:
        for x, y in ((data.x, data.y), (data.vx, data.vy)):
            told = torch.tensor(r.rand(len(y)) < (0.93, 0.97, 1.0)[s])
            x[:, 0] = torch.where(told, 10 + y, x[:, 0])
            x[:, 1] = torch.where(told, 10 + y, x[:, 1])
        return data

    base.smoothing = 0.0
    return base.copy(of_data=[leak]), 0
