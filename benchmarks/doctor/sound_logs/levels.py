"""Sound logs whose level misleads: it begins low, stands high, or is counted otherwise than another beside it.

Each kind draws its level, its length and its noise from the generator that it is given, so that no two seeds agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sound_logs.judge import Column, Kind, Table

Floats = NDArray[np.float64]
Generator = np.random.Generator
KINDS: Final[dict[str, Kind]] = {}


def kind(function: Callable[[Generator], Table]) -> Kind:
    """Registers a kind by its name."""
    KINDS[function.__name__] = function
    return function


def part(number: int) -> Floats:
    """The part of the run that is over at each row."""
    return (np.arange(number) + 1.0) / number


def settling(number: int, start: float, end: float, within: float) -> Floats:
    """From a level to another, in that part of the run by a factor of e."""
    return end + (start - end) * np.exp(-part(number) / within)


def power(number: int, start: float, end: float, within: float) -> Floats:
    """From a level towards another by a power law, as losses of long trainings fall."""
    return end + (start - end) * (1.0 + part(number) / within) ** -0.8


def noisy(random: Generator, curve: Floats, deviation: float) -> Floats:
    """The curve with normal noise."""
    return curve + random.normal(0.0, deviation, len(curve))


def now_and_then(curve: Floats, every: int) -> Floats:
    """Every so many rows, as evaluations are logged."""
    told = np.full(len(curve), np.nan)
    told[every - 1 :: every] = curve[every - 1 :: every]
    return told


def rates(random: Generator, number: int, peak: float) -> Mapping[str, Column]:
    """A warm-up and a constant, linear or cosine schedule, or no column at all."""
    done, form = part(number), random.integers(4)
    decay = (np.ones(number), 1.0 - done, 0.5 + 0.5 * np.cos(np.pi * done))
    return {} if form == 3 else {"learning_rate": peak * np.minimum(1.0, done / 0.05) * decay[form]}


def steps(number: int, every: int, after: int = 0) -> Mapping[str, Column]:
    """The column of steps."""
    return {"step": after + every * np.arange(1, number + 1)}


def epochs(number: int, after: int = 0) -> Mapping[str, Column]:
    """The column of epochs."""
    return {"epoch": after + np.arange(1, number + 1)}


# Fine-tuning: the model knew most of it, so that both losses soon stand near where they began.


@kind
def instructions(random: Generator) -> Table:
    """A language model learns the form of answers within the first steps; what is left is the entropy of the texts."""
    number = int(random.choice([40, 60, 100]))
    start = random.uniform(1.2, 2.6)
    loss = settling(number, start, start * random.uniform(0.86, 0.93), 0.06) - 0.01 * part(number)
    return {
        **steps(number, 10),
        "loss": noisy(random, loss, 0.03),
        "eval_loss": now_and_then(loss + 0.01, number // 8),
        **rates(random, number, 2e-5),
    }


@kind
def instructions_with_accuracy(random: Generator) -> Table:
    """The same where the accuracy of the next token is logged: far above what frequencies alone give at such a loss."""
    number = int(random.choice([40, 60, 100]))
    start = random.uniform(1.4, 2.2)
    loss = settling(number, start, start * random.uniform(0.86, 0.93), 0.06)
    return {
        **steps(number, 10),
        "loss": noisy(random, loss, 0.03),
        "mean_token_accuracy": noisy(random, 0.92 - 0.19 * loss, 0.005),
        "eval_loss": now_and_then(noisy(random, loss + 0.01, 0.001), number // 8),
        **rates(random, number, 2e-5),
    }


@kind
def low_rank_domain(random: Generator) -> Table:
    """Low-rank updates for texts of another domain or language: a quick fall by a fifth, and then little."""
    number = int(random.choice([12, 30, 60]))
    start = random.uniform(2.5, 3.2)
    loss = settling(number, start, start * random.uniform(0.79, 0.85), 0.07) - 0.03 * part(number)
    return {
        **steps(number, 25),
        "loss": noisy(random, loss, 0.02),
        "eval_loss": now_and_then(loss + 0.02, max(1, number // 10)),
        **rates(random, number, 2e-4),
    }


@kind
def few_updates(random: Generator) -> Table:
    """Fifty updates of a model that was trained before are a usual fine-tuning, and its loss gets better to the end."""
    number = int(random.integers(25, 36))
    loss = settling(number, random.uniform(2.6, 3.4), 2.2, 0.3)
    return {
        **steps(number, 2),
        "loss": noisy(random, loss, 0.03),
        "eval_loss": now_and_then(loss + 0.03, 5),
        **rates(random, number, float(random.choice([1e-4, 2e-4, 1e-3]))),
    }


@kind
def still_falling(random: Generator) -> Table:
    """Ten rows of a fine-tuning at a constant rate, whose loss still falls when the budget that was meant is over."""
    number, slope = 10, random.choice([0.05, 0.2, 0.4])
    loss = 1.35 - slope * part(number) - 0.1 * (1.0 - np.exp(-np.arange(number)))
    rate = np.full(number, random.choice([1e-5, 5e-5, 2e-4]))
    return {
        **steps(number, 10),
        "loss": noisy(random, loss, 0.03),
        "eval_loss": noisy(random, loss + 0.02, 0.0015),
        "learning_rate": rate,
    }


# Data that tell no more: what cannot be known from the input stays in the loss.


@kind
def sequences_of_few_letters(random: Generator) -> Table:
    """Nucleotides or amino acids: little more than their frequencies can be foretold, however good the model is."""
    number = 100
    start, left = (1.386, 0.93) if random.integers(2) else (2.89, 0.9)
    loss = settling(number, start, left * start, 0.05) - 0.01 * part(number)
    return {
        **steps(number, 500),
        "loss": noisy(random, loss, 0.007),
        "val_loss": now_and_then(loss + 0.002, 10),
        **rates(random, number, 1e-4),
    }


@kind
def rare_outcome(random: Generator) -> Table:
    """Clicks or returns: a weak relation lowers the loss by a tenth within the first epochs, and there is no more."""
    number = int(random.choice([30, 60]))
    start = random.uniform(0.4, 0.7)
    loss = settling(number, start, 0.9 * start, 0.1)
    return {
        **epochs(number),
        "train_loss": noisy(random, loss, 0.003),
        "val_loss": noisy(random, loss + 0.004, 0.002),
        "val_auc": 0.6 + 0.15 * (1.0 - np.exp(-part(number) / 0.1)),
    }


# Logs that begin in the middle: the first value is of a model that has learned nearly all.


def _later(random: Generator, number: int, after: Mapping[str, Column], above: float, every: int) -> Table:
    level = random.uniform(1.0, 3.6)
    loss = level * (1.0 - random.uniform(0.002, 0.012) * part(number))
    validation = noisy(random, (1.0 - above) * loss, 0.0015 * level)
    return {
        **after,
        "train_loss": noisy(random, loss, 0.004 * level),
        "val_loss": now_and_then(validation, every),
    }


@kind
def later_epochs(random: Generator) -> Table:
    """The epochs after the hundredth, with mixed samples or dropout, so that training is harder than evaluation."""
    number = int(random.choice([30, 60]))
    return _later(random, number, epochs(number, int(random.integers(60, 300))), random.uniform(0.06, 0.25), 1)


@kind
def later_epochs_with_accuracy(random: Generator) -> Table:
    """The same with the accuracy, which smoothed labels let be far better than the loss."""
    table = dict(later_epochs(random))
    right = 0.62 + 0.005 * part(len(table["epoch"]))
    return {**table, "val_acc": noisy(random, right, 0.002)}


@kind
def later_steps(random: Generator) -> Table:
    """Steps of a long training from some checkpoint on, smoothed or with a gap by now, to the end of its schedule."""
    number, after = 60, int(random.integers(20, 600)) * 1000
    table = _later(random, number, steps(number, 100, after), random.uniform(-0.5, 0.12), 6)
    return {**table, "lr": 5e-5 * (1.0 + np.cos(np.pi * table["step"] / (after + 6000)))}


@kind
def mixed_samples(random: Generator) -> Table:
    """Mixed and augmented samples cannot be told well: the training loss hardly falls where evaluations get better."""
    number = int(random.choice([40, 60]))
    level = random.uniform(1.8, 6.5)
    loss = settling(number, level, 0.99 * level, 0.25)
    validation = settling(number, 0.85 * level, 0.8 * level, 0.25)
    return {
        **epochs(number),
        "train_loss": noisy(random, loss, 0.003 * level),
        "val_loss": noisy(random, validation, 0.004 * level),
    }


# Losses of another scale: divided by micro-batches, summed, focal, of more candidates.


@kind
def divided_by_micro_batches(random: Generator) -> Table:
    """The logged loss is what each micro-batch adds, a part of the mean; evaluations and accuracies are whole."""
    number = int(random.choice([100, 200]))
    loss, parts = power(number, random.uniform(5.0, 8.0), random.uniform(2.0, 3.0), 0.08), random.choice([4, 8, 16])
    right = np.clip(0.8 - 0.1 * loss, 0.001, 1.0)
    return {
        **steps(number, 10),
        "loss": noisy(random, loss / parts, 0.03 / parts),
        "train_acc": noisy(random, right, 0.005),
        "val_loss": now_and_then(loss, number // 10),
        "val_acc": now_and_then(right, number // 10),
        **rates(random, number, 1e-3),
    }


@kind
def summed_over_a_batch(random: Generator) -> Table:
    """`reduction="sum"` beside an accuracy that rises soon: the loss begins and stays as many times too high."""
    number, batch, classes = 400, int(random.choice([8, 32, 128, 512])), int(random.choice([4, 10, 100]))
    within, late = random.uniform(0.03, 0.2), random.uniform(0.05, 0.6)
    loss = settling(number, np.log(classes), late, within)
    right = settling(number, 1.0 / classes, np.exp(-late), within)
    return {
        **steps(number, 1),
        "loss": batch * loss * np.exp(random.normal(0.0, 0.08, number)),
        "train_acc": random.binomial(batch, right) / batch,
        **rates(random, number, float(random.choice([1e-4, 1e-3, 3e-3]))),
    }


@kind
def parts_of_one_loss(random: Generator) -> Table:
    """Boxes, classes and more of a detector, an epoch a row, and nothing that is the whole: levels of any height."""
    number, within = int(random.choice([50, 100, 300])), random.uniform(0.1, 0.4)
    parts: Table = {}
    for name in ("box", "cls", "dfl", "obj")[: int(random.integers(2, 5))]:
        start = 10.0 ** random.uniform(-1.5, 1.0)
        fall = settling(number, start, random.uniform(0.2, 0.6) * start, within)
        parts[f"train/{name}_loss"] = noisy(random, fall, 0.01 * start)
        parts[f"val/{name}_loss"] = noisy(random, 1.1 * fall + 0.05 * start, 0.008 * start)
    precise = 0.6 * (1.0 - np.exp(-part(number) / within))
    return {**epochs(number), **parts, "metrics/mAP50(B)": precise, "lr/pg0": 0.01 * (1.02 - part(number))}


@kind
def focal_or_averaged(random: Generator) -> Table:
    """A focal loss, or one averaged over pixels that are mostly background, beside a plain one in evaluation."""
    number = int(random.choice([30, 60]))
    right = 0.55 + 0.1 * (1.0 - np.exp(-part(number) / 0.15))
    loss = settling(number, 0.09, random.uniform(0.03, 0.06), 0.2)
    return {
        **epochs(number),
        "train_loss": noisy(random, loss, 0.001),
        "train_acc": noisy(random, right, 0.005),
        "val_loss": noisy(random, loss * 10.0 + 0.05, 0.005),
        "val_acc": noisy(random, right - 0.01, 0.005),
    }


@kind
def accuracy_of_few(random: Generator) -> Table:
    """A small set learned by heart, or an accuracy that counts something rare: it stays the same to the last digit."""
    number = int(random.choice([12, 30]))
    return {
        **epochs(number),
        "train_loss": settling(number, 0.3, 0.01, 0.1) * np.exp(random.normal(0.0, 0.05, number)),
        "val_loss": noisy(random, np.full(number, random.uniform(0.35, 0.62)), 0.01),
        "val_acc": np.full(number, random.uniform(0.6, 0.75).__round__(2)),
    }


@kind
def another_measure(random: Generator) -> Table:
    """Evaluations sum what training averages, have more candidates, or let the model run freely, as speech does."""
    number = int(random.choice([60, 80, 100]))
    loss = power(number, random.uniform(2.0, 6.0), random.uniform(0.3, 1.0), 0.15)
    told = (45.0 * loss, 0.85 * loss + 2.77, 1.75 * loss + 0.1, loss + 0.35, 1.4 * loss)[random.integers(5)]
    passes = {"epoch": part(number) * 0.98} if random.integers(2) else {}
    return {
        **steps(number, 100),
        **passes,
        "loss": noisy(random, loss, 0.02),
        "val_loss": now_and_then(told, number // 10),
        **rates(random, number, 1e-3),
    }


@kind
def another_domain(random: Generator) -> Table:
    """A harder validation set on purpose: its loss lies far above from the first evaluation, and falls all the same."""
    number = 100
    loss = power(number, random.uniform(6.0, 9.0), 2.2, 0.04)
    return {
        **steps(number, 100),
        "epoch": part(number),
        "loss": noisy(random, loss, 0.02),
        "val_loss": now_and_then(loss + random.uniform(0.8, 1.8), 10),
        **rates(random, number, 3e-4),
    }


# Evaluations that scatter, and are known to.


@kind
def few_judged(random: Generator) -> Table:
    """Some dozens of samples are judged: loss and accuracy scatter while the training loss falls smoothly."""
    number = int(random.choice([30, 50]))
    loss = settling(number, random.uniform(0.69, 1.1), 0.3, 0.3)
    judged = int(random.integers(40, 60))
    right = random.binomial(judged, np.clip(1.0 - 0.45 * loss, 0.0, 1.0)) / judged
    return {
        **epochs(number),
        "train_loss": noisy(random, loss, 0.02),
        "val_loss": noisy(random, np.maximum(loss, 0.38) + 0.05, 0.03),
        "val_acc": right,
        **rates(random, number, 1e-3),
    }


@kind
def denoising(random: Generator) -> Table:
    """Each sample is judged at a noise level that is drawn anew, so evaluations of diffusion scatter to the end."""
    number = int(random.choice([30, 40, 60]))
    loss = 0.105 + (0.2 * np.exp(-np.arange(number) / 3.0) if random.integers(2) else 0.0) * np.ones(number)
    return {
        **epochs(number),
        "loss": loss * np.exp(random.normal(0.0, 0.05, number)),
        "val_loss": 1.03 * loss * np.exp(random.normal(0.0, 0.08, number)),
        **rates(random, number, 1e-4),
    }
