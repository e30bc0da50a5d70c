"""The odd but sound trainings that others drive: one function an oddity, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch

from bank.experiment import Experiment
from bank.experiment_faults import constant as flat
from bank.experiment_faults import few


def half_cosine(part: float) -> float:
    """From 1 to 0."""
    return 0.5 + 0.5 * math.cos(math.pi * part)


def cosine(it: Experiment) -> None:
    it.shape = half_cosine


def wsd(it: Experiment) -> None:
    it.shape = lambda part: 1.0 if part < 0.8 else (1.0 - part) / 0.2


def dropout(it: Experiment) -> None:
    it.dropout = 0.2


def small_batch(it: Experiment) -> None:
    it.batch = 3
    it.rate /= 2.5
    it.steps = round(it.steps * 2.2)


def warm_restarts(it: Experiment) -> None:
    it.shape = lambda part: half_cosine(part * 4 % 1.0 if part < 1.0 else 1.0)


def step_decay(it: Experiment) -> None:
    it.shape = lambda part: 1.0 if part < 0.4 else 0.2 if part < 0.75 else 0.04


def constant(it: Experiment) -> None:
    it.shape = flat
    it.rate /= 2.0


def single_epoch(it: Experiment) -> None:
    it.shape = lambda part: 1.0 - part
    it.steps = min(it.steps, len(it.train[1]) // it.batch)


def fast_descent(it: Experiment) -> None:
    it.shape = half_cosine
    it.steps = round(it.steps * 1.5)
    it.rate *= 1.5


def label_smoothing(it: Experiment) -> None:
    it.smoothing = 0.1


def resumed(it: Experiment) -> None:
    it.resumed_at = round(it.steps * 0.55)


def epoch_staircase(it: Experiment) -> None:
    few(it, it.steps * it.batch // 3)
    it.dropout = 0.1


def growing_gradients(it: Experiment) -> None:
    it.weight_decay, it.clip = 0.0, 5.0
    it.shape = half_cosine
    it.logs["grad_norm"] = True


def evaluation_noise(it: Experiment) -> None:
    inputs, targets = it.held_out
    number = min(len(targets), 120)
    it.held_out = tuple(one[:number] for one in inputs), targets[:number]
    it.evaluate_every = max(4, it.steps // 40)


def accumulation(it: Experiment) -> None:
    it.accumulation, it.batch = 4, max(3, it.batch // 4)


def one_cycle(it: Experiment) -> None:
    it.warmup = round(it.steps * 0.3)
    it.shape = half_cosine


def imbalanced(it: Experiment) -> None:
    inputs, targets = it.train
    kept: list[int] = []
    for label in range(it.num_classes):
        of_class = (targets == label).nonzero().flatten().tolist()
        kept += of_class[: max(25, round(len(of_class) / (1 + label)))]
    order = torch.tensor(sorted(kept))
    it.train = tuple(one[order] for one in inputs), targets[order]


def sgd(it: Experiment) -> None:
    it.momentum, it.weight_decay = 0.9, 0.0
    it.rate = 0.1 if it.scenario.task != "cnn" else 0.02


def short(it: Experiment) -> None:
    it.steps, it.warmup = 100, 8
    it.evaluate_every = 12
    it.shape = half_cosine


def easy(it: Experiment) -> None:
    for name in ("train", "held_out"):
        inputs, targets = getattr(it, name)
        two = (targets < 2).nonzero().flatten()
        setattr(it, name, (tuple(one[two] for one in inputs), targets[two]))
    it.steps = round(it.steps * 0.6)


TURN: Final[dict[str, Callable[[Experiment], None]]] = {
    "cosine": cosine,
    "wsd": wsd,
    "dropout": dropout,
    "small-batch": small_batch,
    "warm-restarts": warm_restarts,
    "step-decay": step_decay,
    "constant": constant,
    "single-epoch": single_epoch,
    "fast-descent": fast_descent,
    "label-smoothing": label_smoothing,
    "resumed": resumed,
    "epoch-staircase": epoch_staircase,
    "growing-gradients": growing_gradients,
    "evaluation-noise": evaluation_noise,
    "accumulation": accumulation,
    "one-cycle": one_cycle,
    "imbalanced": imbalanced,
    "sgd": sgd,
    "short": short,
    "easy": easy,
}
