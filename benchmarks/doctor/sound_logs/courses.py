"""Sound logs whose course changes by plan: resumed, in cycles, in phases, with longer samples, with another aim.

Each kind draws its lengths, levels and noise from the generator that it is given, so that no two seeds agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sound_logs.judge import Kind, Table

Floats = NDArray[np.float64]
Generator = np.random.Generator
KINDS: Final[dict[str, Kind]] = {}


def kind(function: Callable[[Generator], Table]) -> Kind:
    """Registers a kind by its name."""
    KINDS[function.__name__] = function
    return function


def settling(number: int, start: float, end: float, within: float) -> Floats:
    """From a level to another, in that part of the run by a factor of e."""
    return end + (start - end) * np.exp(-np.arange(number) / (within * number))


def falling(random: Generator, number: int, noise: float = 0.03) -> Floats:
    """A usual training loss."""
    curve = settling(number, random.uniform(1.5, 6.0), random.uniform(0.3, 0.9), random.uniform(0.1, 0.25))
    return curve + random.normal(0.0, noise, number)


def now_and_then(curve: Floats, every: int) -> Floats:
    """Every so many rows, as evaluations are logged."""
    told = np.full(len(curve), np.nan)
    told[every - 1 :: every] = curve[every - 1 :: every]
    return told


def steps(number: int, every: int) -> NDArray[np.int64]:
    """A row for so many steps."""
    return every * np.arange(1, number + 1)


@kind
def resumed_while_the_clock_begins_anew(random: Generator) -> Table:
    """The loss goes on where it was; a curve that falls less and less lies above any line through its past."""
    number, at = int(random.integers(70, 110)), int(random.integers(22, 34))
    clock = 30.0 * (np.arange(number) + 1.0)
    clock[at:] -= clock[at] - 30.0
    loss = random.uniform(0.05, 0.4) + 2.0 * np.exp(-np.arange(number) / random.uniform(7.0, 11.0))
    return {"step": steps(number, 10), "elapsed": clock, "loss": loss + random.normal(0.0, 0.02, number)}


@kind
def resumed_from_some_steps_before(random: Generator) -> Table:
    """Some rows are done again behind a kill, to the same losses."""
    number, again = int(random.integers(60, 120)), int(random.integers(2, 5))
    at = int(number * random.uniform(0.3, 0.7))
    row = np.r_[np.arange(at), np.arange(at - again, number)]
    loss = 2.0 + 3.0 * np.exp(-row / random.uniform(8.0, 20.0))
    return {"step": 100 * (row + 1), "loss": loss + random.normal(0.0, 0.03, len(row))}


@kind
def resumed_behind_a_stair(random: Generator) -> Table:
    """Each epoch is a stair; a line through the last values sees the stair and not the level."""
    loss = np.repeat([1.6, 1.2, 0.8], 30)
    at = int(random.integers(40, 48))
    clock = 12.0 * (np.arange(90) + 1.0)
    clock[at:] -= clock[at] - 12.0
    return {"step": steps(90, 50), "elapsed": clock, "loss": loss + random.normal(0.0, 0.04, 90)}


@kind
def seconds_of_a_step_called_time(random: Generator) -> Table:
    """What falls now and then is no clock that a later process began."""
    number = 60
    seconds = np.full(number, 0.3)
    seconds[random.choice(number, 3, replace=False)] = 0.4
    return {"step": steps(number, 10), "time": seconds, "loss": falling(random, number, 0.02)}


@kind
def evaluations_with_a_date(random: Generator) -> Table:
    """`eval_time` says when, not how long."""
    loss = falling(random, 60)
    when = now_and_then(1.7e9 + 10.0 * np.arange(60), 6)
    every = {"step": steps(60, 100), "loss": loss, "val_loss": now_and_then(loss, 6)}
    return {**every, "eval_time": when, "step_time": 0.3 * np.exp(random.normal(0.0, 0.03, 60))}


@kind
def evaluations_with_the_time_so_far(random: Generator) -> Table:
    """What each evaluation tells holds those before it."""
    loss = falling(random, 60)
    so_far = now_and_then(random.uniform(5.0, 12.0) * (np.arange(60) + 1.0), 6)
    every = {"step": steps(60, 100), "loss": loss, "val_loss": now_and_then(loss, 6)}
    return {**every, "val_elapsed": so_far, "step_seconds": 0.1 * np.exp(random.normal(0.0, 0.03, 60))}


@kind
def evaluations_repeated_in_each_row(random: Generator) -> Table:
    """Six evaluations of six seconds in two minutes; each is written again until the next."""
    row = np.arange(60)
    loss = falling(random, 60)
    seconds = 6.0 + np.round(random.normal(0.0, 0.1, 6), 3)[row // 10]
    every = {"step": steps(60, 10), "loss": loss, "val_loss": loss[row // 10 * 10] + 0.05}
    return {**every, "val_time": seconds, "step_seconds": 0.2 * np.exp(random.normal(0.0, 0.03, 60))}


@kind
def pace_that_falls_as_batches_grow(random: Generator) -> Table:
    """The attention of longer sequences takes longer for each token, and the log has no time of a step."""
    pace = np.linspace(5.2e4, random.uniform(2.5e4, 4.0e4), 120) * (1 + random.normal(0.0, 0.01, 120))
    return {
        "step": steps(120, 10),
        "loss": falling(random, 120),
        "tokens_per_second": pace,
        "batch_tokens": np.repeat([512, 1024, 2048], 40),
    }


@kind
def dead_entries_of_a_codebook(random: Generator) -> Table:
    """No units of a network."""
    dead = np.clip(random.uniform(0.6, 0.8) - 0.002 * np.arange(100), 0.0, 1.0)
    return {"step": steps(100, 100), "loss": falling(random, 100, 0.01), "dead_fraction": dead}


@kind
def players_that_are_dead(random: Generator) -> Table:
    """What happens in a game."""
    dead = np.clip(0.9 - 0.001 * np.arange(100) + random.normal(0.0, 0.01, 100), 0.0, 1.0)
    return {"step": steps(100, 100), "loss": falling(random, 100, 0.05), "env/dead_ratio": dead}


@kind
def rate_in_cosine_waves(random: Generator) -> Table:
    """Cycles that are planned may end anywhere, on their way up as well."""
    number = int(random.integers(14, 200))
    wave = 0.55 + 0.45 * np.cos(2.0 * np.pi * np.arange(number) * random.uniform(1.7, 4.0) / number)
    return {"step": steps(number, 100), "loss": falling(random, number), "lr": 1e-3 * wave}


@kind
def warmup_by_epochs_of_a_short_run(random: Generator) -> Table:
    """Five of eight to twelve epochs, a step of the schedule for each, as recipes of long runs have it."""
    epochs = int(random.integers(8, 13))
    epoch = np.repeat(np.arange(epochs), 20)
    rate = 1e-3 * np.minimum(1.0, (epoch + 1.0) / 6.0)
    loss = falling(random, len(epoch), 0.06)
    return {
        "step": steps(len(epoch), 50),
        "epoch": epoch,
        "loss": loss,
        "lr": rate,
        "val_loss": now_and_then(loss, 20),
    }


@kind
def rate_of_four_decimals(random: Generator) -> Table:
    """A smooth warm-up goes up in stairs of the last digit that is printed."""
    rate = np.round(5e-4 * np.minimum(1.0, np.arange(1, 101) / random.integers(52, 75)), 4)
    loss = 5.0 + falling(random, 100, 0.05)
    return {"step": steps(100, 100), "loss": loss, "lr": rate, "val_loss": now_and_then(loss, 10)}


@kind
def rate_that_falls_to_a_part(random: Generator) -> Table:
    """A line to a third, or a log of a run that goes on."""
    loss = falling(random, 60, 0.05)
    rate = 3e-4 * (1.0 - random.uniform(0.3, 0.7) * np.arange(60) / 60)
    return {"step": steps(60, 100), "loss": loss, "lr": rate, "val_loss": now_and_then(loss + 0.05, 6)}


@kind
def head_first_then_all_by_epoch(random: Generator) -> Table:
    """Transfer learning in two phases, each with a rate that is set by hand."""
    number, first = int(random.integers(8, 15)), int(random.integers(2, 4))
    row = np.arange(number)
    rate = np.where(row < first, random.choice([1e-2, 1e-3]), random.choice([1e-5, 1e-6]))
    loss = np.where(row < first, 0.9 * 0.65**row, 0.9 * 0.65**first - 0.006 * (row - first))
    loss = loss + random.normal(0.0, 0.004, number)
    return {"epoch": row, "train_loss": loss, "val_loss": loss + 0.04, "lr": rate}


@kind
def samples_that_become_longer_in_few_rows(random: Generator) -> Table:
    """A curriculum by length, or the sorted first epoch of a recognizer of speech; nothing logged says so."""
    number = int(random.integers(10, 17))
    seconds = random.uniform(0.2, 0.4) + random.uniform(0.015, 0.03) * np.arange(number)
    seconds += random.normal(0.0, 0.002, number)
    return {"step": steps(number, 100), "loss": falling(random, number), "step_time": seconds}


def _longer(random: Generator, name: str, size: Floats, part: float = 0.5) -> Table:
    number = len(size)
    seconds = (1.0 - part + part * size / size[0]) * random.uniform(0.1, 2.0) * np.exp(random.normal(0, 0.02, number))
    return {"step": steps(number, 100), "loss": falling(random, number), name: size, "step_time": seconds}


@kind
def sequences_that_become_longer(random: Generator) -> Table:
    """A longer context by and by, which a column tells."""
    return _longer(random, "seq_len", 256.0 + 64.0 * (np.arange(80) // 10))


@kind
def pictures_that_become_larger(random: Generator) -> Table:
    """Progressive resizing."""
    return _longer(random, "image_size", 128.0 + 32.0 * (np.arange(int(random.integers(50, 90))) // 12))


@kind
def episodes_that_become_longer(random: Generator) -> Table:
    """Whoever learns to balance lives longer."""
    return _longer(random, "episode_length", 200.0 + 800.0 * (1.0 - np.exp(-np.arange(60) / 25)))


@kind
def answers_that_become_longer(random: Generator) -> Table:
    """Reinforcement learning of a language model that learns to reason."""
    return _longer(random, "completion_length", 400.0 + 6.0 * np.arange(60) + random.normal(0.0, 15.0, 60), 0.9)


@kind
def backbone_that_is_frozen(random: Generator) -> Table:
    """A new head on a published model."""
    zero = np.zeros(60)
    still = {f"grad_norm/encoder.layer.{layer}.output.dense.weight": zero for layer in range(random.integers(2, 6))}
    head = {"grad_norm/classifier.weight": np.exp(random.normal(0.0, 0.2, 60))}
    return {"step": steps(60, 10), "loss": falling(random, 60), **still, **head}


@kind
def hard_batches_between(random: Generator) -> Table:
    """Single losses that stand out and are made good in the next row, in whatever rhythm rows are written."""
    loss = falling(random, 300, 0.03)
    loss[random.choice(np.arange(60, 300, 8), 8, replace=False)] += 3.0
    return {"step": steps(300, int(random.integers(1, 4))), "loss": loss}


@kind
def cycles_of_a_rate_that_is_not_logged(random: Generator) -> Table:
    """Training and validation loss rise together with each cycle; means of epochs tell of no order within them."""
    number, cycle = int(random.integers(90, 150)), int(random.integers(16, 24))
    phase = np.arange(number) % cycle / cycle
    wave = 1.0 - abs(2.0 * phase - 1.0) if random.integers(2) else 0.5 + 0.5 * np.cos(np.pi * phase)
    loss = settling(number, 2.0, 0.4, 0.2) + 0.28 * wave + random.normal(0.0, 0.01, number)
    return {"epoch": np.arange(number), "train_loss": loss, "val_loss": loss + 0.3 + random.normal(0.0, 0.01, number)}


@kind
def one_of_two_that_play(random: Generator) -> Table:
    """The loss of a generator alone rises as its opponent learns."""
    number = int(random.integers(60, 200))
    rise = random.uniform(0.1, 1.6) * (1.0 - np.exp(-4.0 * np.arange(number) / number))
    return {"step": steps(number, 50), "loss": 1.0 + rise + random.normal(0.0, 0.15, number)}


@kind
def term_that_is_let_in(random: Generator) -> Table:
    """An adversarial term from half of the run on: another sum, in training and in evaluations."""
    row = np.arange(120)
    loss = settling(120, 1.1, 0.35, 0.06) + random.uniform(0.2, 0.35) * (row >= 60) * (
        1 - 0.3 * np.exp((60 - row) / 20)
    )
    return {
        "step": steps(120, 500),
        "loss": loss + random.normal(0.0, 0.02, 120),
        "val_loss": now_and_then(loss + 0.01, 12),
    }


@kind
def term_whose_weight_grows(random: Generator) -> Table:
    """The divergence of a variational autoencoder is weighted in over the first epochs."""
    row = np.arange(80)
    loss = settling(80, 150.0, 80.0, 0.06) + random.uniform(15.0, 28.0) * np.minimum(1.0, row / 40)
    val_loss = loss + 1.0 + random.normal(0.0, 0.5, 80)
    return {"epoch": row, "train_loss": loss + random.normal(0.0, 0.3, 80), "val_loss": val_loss}


@kind
def triplets_that_are_mined(random: Generator) -> Table:
    """Harder ones are found as it learns: the loss creeps back to its margin, and falls once these are learned."""
    row = np.arange(60)
    easy = random.uniform(0.2, 0.35) * (1.0 - np.exp(-row / 3.0)) * np.exp(-row / 8.0)
    loss = 1.0 - easy - 0.35 * np.maximum(0.0, (row - random.integers(18, 24)) / 40.0)
    return {"epoch": row, "loss": loss + random.normal(0.0, 0.01, 60)}


@kind
def targets_that_are_set_anew(random: Generator) -> Table:
    """A copy of the network gives the targets, and is renewed at even distances."""
    every = int(random.integers(30, 50))
    loss = 0.1 + 0.5 * np.exp(-(np.arange(240) % every) / random.uniform(5.0, 10.0))
    return {"step": steps(240, 100), "loss": loss * np.exp(random.normal(0.0, 0.1, 240))}


@kind
def tasks_one_after_another(random: Generator) -> Table:
    """Each task begins high and is learned; what is judged gets better all along."""
    every, row = int(random.integers(70, 90)), np.arange(240)
    loss = 0.2 + 1.6 * np.exp(-(row % every) / 15.0) + random.normal(0.0, 0.03, 240)
    return {"step": steps(240, 100), "loss": loss, "val_loss": now_and_then(0.6 + 1.2 * np.exp(-row / 60.0), 20)}


@kind
def warm_restarts_of_a_rate(random: Generator) -> Table:
    """Each restart lifts the losses for some epochs."""
    every, lifts, row = int(random.choice([5, 10, 12])), random.uniform(0.12, 0.3), np.arange(60)
    part = row % every / every
    level = 0.4 + 1.2 * np.exp(-row / 25.0) + lifts * np.exp(-6.0 * part) * (row >= every)
    val_loss = level + 0.12 + random.normal(0.0, 0.015, 60)
    rate = 0.05 * (1.0 + np.cos(np.pi * part))
    return {"epoch": row, "train_loss": level + random.normal(0.0, 0.01, 60), "val_loss": val_loss, "lr": rate}


@kind
def gradients_that_grow_as_a_rate_falls(random: Generator) -> Table:
    """And fall back where it restarts."""
    part = np.arange(200) % 40 / 40
    norm = (1.0 + random.uniform(1.2, 2.0) * part**2) * np.exp(random.normal(0.0, 0.06, 200))
    loss = 2.0 + 1.5 * np.exp(-np.arange(200) / 60.0) + random.normal(0.0, 0.03, 200)
    return {"step": steps(200, 25), "loss": loss, "lr": 5e-4 * (1.0 + np.cos(np.pi * part)), "grad_norm": norm}


@kind
def batches_from_short_to_long_in_each_epoch(random: Generator) -> Table:
    """Longer samples have larger gradients, and no larger loss for each token."""
    norm = (1.0 + random.uniform(1.4, 2.0) * (np.arange(200) % 40) / 40) * np.exp(random.normal(0.0, 0.06, 200))
    loss = 2.0 + 1.5 * np.exp(-np.arange(200) / 60.0) + random.normal(0.0, 0.03, 200)
    return {"step": steps(200, 25), "loss": loss, "lr": np.full(200, 3e-4), "grad_norm": norm}


@kind
def speed_of_batches_that_grow(random: Generator) -> Table:
    """More tokens in a batch, fewer in a second."""
    speed = np.linspace(5.2e4, random.uniform(3.6e4, 4.1e4), 120) * (1.0 + random.normal(0.0, 0.01, 120))
    size = np.repeat([512, 1024, 2048], 40)
    loss = falling(random, 120)
    return {"step": steps(120, 10), "loss": loss, "tokens_per_second": speed, "batch_tokens": size}
