"""Faults of what a run learns from and is judged by."""

from __future__ import annotations

import numpy as np
import torch

from .data import Data
from .faults import fault, finite, simply_worse, window, worse
from .plan import Plan
from .train import Trace

Rng = np.random.RandomState
LABELS = ("cls", "tag")


def _flip(y: torch.Tensor, share: float, labels: int, rng: Rng, near: bool = False) -> torch.Tensor:
    other = (y + 1) % labels if near else torch.tensor(rng.randint(0, labels, y.shape))
    return torch.where(torch.tensor(rng.rand(*y.shape) < share), other, y)


def _both(share: float, near: bool, valid: bool):  # noqa: ANN202
    def change(data: Data, rng: Rng) -> Data:
        data.y = _flip(data.y, share, data.num_labels, rng, near)
        if valid:
            data.vy = _flip(data.vy, share, data.num_labels, rng, near)
        return data

    return change


def _noise(a: Trace, b: Trace, _: int) -> bool:
    learned = np.array([one.accuracy for one in a.evaluations]).max()
    chance = np.bincount(np.zeros(1, int)).size / max(2, np.exp(a.uniform))
    return finite(a) and a.tail() > 1.2 * b.tail() and a.tail() > b.tail() + 0.15 and learned > 1.25 * chance and worse(a, b)


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
    return finite(a) and a.valid().min() > 0.93 * min(a.uniform, a.valid()[0]) and worse(a, b, 0.15)


@fault("random-labels", _random, kinds=(*LABELS, "reg"))
def labels_shuffled(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """Inputs were sorted or shuffled without their labels."""

    def shuffle(data: Data, r: Rng) -> Data:
        data.y = data.y[torch.tensor(r.permutation(len(data.y)))]
        data.vy = data.vy[torch.tensor(r.permutation(len(data.vy)))]
        return data

    base.steps, base.smoothing = int(base.steps * (1, 1.1, 1.3)[s]), 0.0
    return base.copy(of_data=[shuffle], n=(base.n, base.n, max(600, base.n // 6))[s]), 0


@fault("random-labels", _random, kinds=("s2s", "tag", "cls"))
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

    def weigh(loop, step, x, y):  # noqa: ANN001, ANN202
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


def _sorted_by(key, near: float):  # noqa: ANN001, ANN202
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
    return base.copy(order="as is", of_data=[_sorted_by(lambda d: (d.y * (d.y > 0)).double().mean(1), (0.6, 0.2, 0.0)[s])]), 0


def _one_batch(a: Trace, b: Trace, onset: int) -> bool:
    before, after = a.loss[max(0, onset - 20) : onset], a.loss[onset + 1 : onset + 8]
    high = a.loss[onset] - before.mean()
    return finite(a) and len(after) > 4 and high > 7 * before.std() and high > 0.3 * before.mean() and np.median(after) < before.mean() + 0.25 * high


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
            told = y.float() * (3 if data.kind == "cls" else 1) + (0.1, 0.03, 0.0)[s] * torch.tensor(r.randn(len(y))).float()
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


def _memorised(a: Trace, b: Trace, _: int) -> bool:
    v = b.valid()
    return finite(a) and a.final < 0.5 * v.min() and a.tail() < 0.6 * window(a.loss, 0.2, 0.4) and v[-1] > 1.05 * v.min()


@fault("leakage", _memorised, kinds=("cls", "tag", "reg"), twin_sound=False)
def validated_on_training_rows(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """Few samples, seen many times: learned by heart, and so the validation samples that are among them."""
    base.n, base.drop, base.smoothing, base.decay, base.batch = 450, 0.0, 0.0, 0.0, min(base.batch, 16)
    base.width, base.steps, base.valid = max(48, base.width), int(1.3 * base.steps), 150

    def share(data: Data, r: Rng) -> Data:
        count = min(len(data.vx), int((0.85, 0.95, 1.0)[s] * len(data.vx)), len(data.x))
        data.x[:count], data.y[:count] = data.vx[:count].clone(), data.vy[:count].clone()
        return data

    return base.copy(of_data=[share]), 0


def _shifted(a: Trace, b: Trace, _: int) -> bool:
    return finite(a) and abs(a.tail() - b.tail()) < 0.02 + 0.1 * b.tail() and a.final > 1.25 * a.tail() and worse(a, b, 0.2)


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
    return finite(a) and 8 <= high.sum() < 0.45 * len(half) and (b.loss[b.steps // 4 :] > 5 * np.median(b.loss[b.steps // 4 :])).mean() < 0.01


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
