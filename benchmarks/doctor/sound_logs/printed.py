"""Sound logs as lines: what is said of checkpoints between rows, and bars that begin anew with each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sound_logs.judge import Kind

Generator = np.random.Generator
Floats = NDArray[np.float64]
Lines = Callable[[Generator], Iterator[str]]
KINDS: Final[dict[str, Kind]] = {}


def kind(function: Lines) -> Lines:
    """Registers a kind by its name; its lines are a text."""
    KINDS[function.__name__] = lambda random: "\n".join(function(random)) + "\n"
    return function


def rows(random: Generator, number: int = 60) -> Iterator[tuple[int, str]]:
    """The number of each row and its line, of a loss that falls."""
    within = random.uniform(8.0, 20.0)
    for row in range(number):
        loss = 2.0 + 3.0 * np.exp(-row / within) + random.normal(0.0, 0.03)
        yield row, f"step {100 * (row + 1)} | loss {loss:.4f} | lr 3.0e-04"


@kind
def resumed_at_a_step_with_commas(random: Generator) -> Iterator[str]:
    """A resume that lost nothing."""
    at = int(random.integers(25, 40))
    for row, line in rows(random):
        yield line
        if row == at:
            yield f"Resuming from checkpoint at step {100 * (row + 1):,}"


@kind
def rows_that_say_they_are_resumed(random: Generator) -> Iterator[str]:
    """Each row of a later process has a mark, before or behind."""
    at, before = int(random.integers(25, 40)), bool(random.integers(2))
    for row, line in rows(random, 80):
        yield line if row < at else f"[resumed] {line}" if before else f"{line} | resumed=1"


@kind
def not_resumed(random: Generator) -> Iterator[str]:
    """A line that says so."""
    for row, line in rows(random):
        yield line
        if row == 30:
            yield "not resuming: auto_resume is off"


@kind
def teacher_that_is_loaded(random: Generator) -> Iterator[str]:
    """A checkpoint of another model, again and again."""
    every = int(random.integers(4, 12))
    for row, line in rows(random):
        yield line
        if row % every == every - 1:
            yield "loaded checkpoint teacher.pt"


@kind
def best_that_is_loaded_for_a_test(random: Generator) -> Iterator[str]:
    """The last line is no row of training."""
    for _, line in rows(random):
        yield line
    yield f"loaded checkpoint best.pt (step {100 * int(random.integers(10, 50))}) for testing"


@kind
def training_that_goes_on_after_each_evaluation(random: Generator) -> Iterator[str]:
    """What is resumed is the training, not the run."""
    for row, line in rows(random):
        yield line
        if row % 10 == 9:
            yield f"step {100 * (row + 1)} | val_loss {2.05 + 3.0 * np.exp(-row / 14):.4f} | resuming training"


@kind
def bars_of_epochs(random: Generator) -> Iterator[str]:
    """A bar of batches for each epoch, which nothing else counts."""
    total = int(random.integers(400, 1000))
    for epoch in range(3):
        for done in range(0, total, total // 20):
            loss = 0.3 + 2.0 * np.exp(-(20 * epoch + 20 * done / total) / 15) + random.normal(0.0, 0.03)
            yield f"{100 * done // total:3d}%|###   | {done}/{total} [00:10<00:20, 90.1it/s, loss={loss:.4f}]"


def rated(random: Generator, rates: Floats) -> Iterator[str]:
    """Rows of a loss that falls, each with its rate."""
    for row, rate in enumerate(rates):
        loss = 2.0 + 3.0 * np.exp(-row / 15.0) + random.normal(0.0, 0.03)
        yield f"step {10 * (row + 1)}: loss {loss:.4f}, lr {3e-4 * rate:.3e}"


@kind
def schedules_of_other_things(random: Generator) -> Iterator[str]:
    """Of noise, masks or momentum, beside a rate that stays."""
    name = random.choice(["noise schedule", "beta_schedule", "mask schedule", "kl scheduler", "momentum scheduler"])
    yield f"{name}: {random.choice(['cosine', 'linear'])}"
    yield "max_steps: 1000"
    yield from rated(random, np.ones(100))


@kind
def schedules_that_are_told_to_end_high(random: Generator) -> Iterator[str]:
    """A minimum, a length of its own, or cycles."""
    part = np.linspace(0.01, 1.0, 100)
    head, rates = [
        ("min_lr_ratio: 0.5", 0.75 + 0.25 * np.cos(np.pi * part)),
        ("lr_decay_iters: 2,000", 0.5 + 0.5 * np.cos(np.pi * part / 2)),
        ("num_cycles: 1", 0.5 + 0.5 * np.cos(2 * np.pi * part)),
        ("scheduler: {'type': 'WarmupLR'}", np.minimum(10 * part, 1.0)),
    ][int(random.integers(4))]
    yield from ("lr_scheduler_type: cosine", "train_iters: 1,000", head)
    yield from rated(random, rates)


@kind
def batches_of_evaluations(random: Generator) -> Iterator[str]:
    """An epoch's evaluation counts batches of its own, in the place of those of training."""
    for epoch in range(1, 11):
        for done in range(50, 601, 50):
            loss = 0.5 + 1.6 * np.exp(-(epoch - 1 + done / 600) / 1.5) + random.normal(0.0, 0.03)
            yield f"Epoch(train)  [{epoch}][{done:>3}/600]  lr: 2.0000e-02  time: 0.35  loss: {loss:.4f}"
        accuracy = 70.0 - 40.0 * np.exp(-epoch / 3)
        yield f"Epoch(val) [{epoch}][100/100]    accuracy/top1: {accuracy:.4f}  data_time: 0.0010  time: 0.0500"


@kind
def bars_of_evaluations(random: Generator) -> Iterator[str]:
    """As many batches as an epoch has, or fewer, in bars that look like those of training."""
    judged = int(random.choice([25, 100]))
    for epoch in range(5):
        for side, total in (("Train", 100), ("Val", judged)):
            for done in range(1, total + 1):
                at = 100 * epoch + (done if side == "Train" else 100)
                loss = 0.4 + 2.0 * np.exp(-at / 150) + random.normal(0.3 * (side == "Val"), 0.05)
                yield f"{side}: {100 * done // total:3d}%|###  | {done}/{total} [00:10<00:20, 9.8it/s, loss={loss:.3f}]"
