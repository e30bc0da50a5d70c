"""Sound logs whose numbers are of another scale than a mean cross-entropy of sure answers: sums over many terms, losses
with a penalty or soft labels in them, answers that are right and not sure yet, and norms that fp16 overflows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from sound_logs.judge import Kind, Table
from sound_logs.levels import epochs, noisy, settling, steps

Generator = np.random.Generator
KINDS: Final[dict[str, Kind]] = {}


def kind(function: Callable[[Generator], Table]) -> Kind:
    """Registers a kind by its name."""
    KINDS[function.__name__] = function
    return function


@kind
def sums_over_terms(random: Generator) -> Table:
    """Pixels of a picture, frames, labels or boxes: the loss begins above that of any guess, and falls soon."""
    start, end = [(544, 109), (840, 72), (55, 1), (48, 8), (31, 0.5)][int(random.integers(5))]
    loss = settling(200, start, end, float(random.uniform(0.01, 0.03)))
    return {
        **steps(200, 100),
        "loss": loss * np.exp(random.normal(0.0, 0.03, 200)),
        "lr": np.full(200, float(random.choice([3e-4, 1e-3]))),
    }


@kind
def sum_at_a_low_rate(random: Generator) -> Table:
    """A sum over the tokens of a sentence, that comes down faster than outputs move at such a rate."""
    loss = settling(100, float(random.uniform(150.0, 400.0)), 5.0, 0.02)
    return {**steps(100, 50), "loss": noisy(random, loss, 0.3), "lr": np.full(100, 2e-5)}


@kind
def penalties_in_the_loss(random: Generator) -> Table:
    """As Keras counts them, in training and in evaluation: what is left falls about as the accuracy rises."""
    right = settling(20, 0.5, 0.83, 0.25)
    loss = random.uniform(2.6, 2.8) - 1.15 * right
    return {
        **epochs(20),
        "loss": noisy(random, loss - 0.1, 0.004),
        "val_loss": noisy(random, loss, 0.004),
        "val_accuracy": noisy(random, right, 0.004),
    }


@kind
def labels_of_several_annotators(random: Generator) -> Table:
    """Evaluated with soft labels, whose entropy stays in the loss."""
    right = settling(20, 0.5, 0.83, 0.25)
    loss = 2.25 - 1.05 * right
    return {
        **epochs(20),
        "train_loss": noisy(random, loss - 0.05, 0.003),
        "val_loss": noisy(random, loss, 0.003),
        "val_acc": noisy(random, right, 0.003),
    }


@kind
def right_and_not_sure_yet(random: Generator) -> Table:
    """A linear model of 20 classes by plain SGD at a low rate: after 12 epochs most answers are right, none is sure."""
    centers_KD = random.normal(0.0, 1.0, (20, 32))
    target = random.integers(0, 20, 2400)
    sample_SD = centers_KD[target] + random.normal(0.0, 1.0, (2400, 32))
    weight_DK, told = np.zeros((32, 20)), []
    for _ in range(12):
        losses = []
        for rows in np.split(random.permutation(2000), 40):
            answer_BK = np.exp(sample_SD[rows] @ weight_DK)
            answer_BK /= answer_BK.sum(axis=1, keepdims=True)
            losses.append(-np.log(answer_BK[np.arange(50), target[rows]]).mean())
            answer_BK[np.arange(50), target[rows]] -= 1.0
            weight_DK -= 0.0015 * sample_SD[rows].T @ answer_BK / 50
        score_SK = sample_SD[2000:] @ weight_DK
        loss = np.log(np.exp(score_SK).sum(axis=1)) - score_SK[np.arange(400), target[2000:]]
        told.append((np.mean(losses), loss.mean(), (score_SK.argmax(axis=1) == target[2000:]).mean()))
    return {**epochs(12), **dict(zip(("train_loss", "val_loss", "val_acc"), np.array(told).T, strict=True))}


@kind
def steps_that_fp16_skips(random: Generator) -> Table:
    """The norm is infinite while the scale is found, and whenever a larger one is tried; the loss goes on."""
    norms = 1.4 + 0.1 * random.normal(size=100)
    norms[[0, int(random.integers(20, 50)), int(random.integers(60, 90))]] = np.inf
    return {
        **steps(100, 10),
        "loss": noisy(random, settling(100, 2.2, 1.2, 0.15), 0.03),
        "grad_norm": norms,
        "learning_rate": np.linspace(5e-5, 5e-7, 100),
    }
