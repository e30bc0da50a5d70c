"""Mistakes in the configuration: rates, schedules, batches, regularization, budgets."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from own_examiner.case import LANGUAGE, Case
from own_examiner.plant import Plant, spikes

ALL: Final = ("code", "prose", "packages", "digits", "numbers", "words")


def rate_too_high(rng: random.Random, case: Case, strong: bool) -> Case:
    """Ten to forty times what fits, as copied from another model or optimizer."""
    return case.at_rate(rng.uniform(30, 60) if strong else rng.uniform(10, 20))


def sgd(rng: random.Random, case: Case) -> Case:
    """The base with SGD, clipped."""
    rate = {"numbers": 0.02, "digits": 0.05}[case.kind]
    return case.but(optimizer={"name": "sgd", "learning_rate": rate, "momentum": 0.9})


def sgd_leaves(rng: random.Random, case: Case, strong: bool) -> Case:
    """A high rate of SGD, with clipping off."""
    return case.at_rate(100 if strong else 40).but(gradients__clip={"name": "none"})


def rate_too_low(rng: random.Random, case: Case, strong: bool) -> Case:
    """1e-5, as for fine-tuning a large model."""
    return case.at_rate(1 / (rng.uniform(150, 300) if strong else rng.uniform(40, 80)))


def post_norm(rng: random.Random, case: Case) -> Case:
    """Post-norm, deep, at a rate that needs its warm-up."""
    return case.but(
        model__norm={"name": "layer_norm", "placement": "post"},
        model__num_layers=4,
        model__hidden_size=48,
        data__sequence_length=32,
        training__steps=min(400, case.steps),
        optimizer={"name": "adamw", "learning_rate": 8e-3, "weight_decay": 0.01, "beta2": 0.999},
        schedule={"name": "cosine", "warmup": 0.3, "floor": 0.1},
    )


def no_warmup(rng: random.Random, case: Case, strong: bool) -> Case:
    """The same without warm-up."""
    return case.but(schedule={"name": "cosine", "warmup": 0, "floor": 0.1})


def decayed(rng: random.Random, case: Case, strong: bool) -> Case:
    """A schedule of another, shorter run."""
    part = 0.08 if strong else 0.14
    ways = (
        {"name": "step", "warmup": 0.02, "every": part, "factor": 0.1},
        {"name": "piecewise", "warmup": 0.02, "levels": [1.0, 0.002], "lengths": [part], "join": 0.05},
        {"name": "polynomial", "warmup": 0.02, "power": 24.0 if strong else 14.0},
    )
    return case.but(schedule=rng.choice(ways))


def long_run(rng: random.Random, case: Case) -> Case:
    """A language model with steps enough."""
    return case.but(training__steps=600, optimizer={"name": "adamw", "learning_rate": 2e-3})


def too_few_steps(rng: random.Random, case: Case, strong: bool) -> Case:
    """A quarter of the steps or fewer, of small batches: the trial run that was taken for the run."""
    return case.but(training__steps=150, training__micro_batch_size=2 if strong else 4, evaluation__every=15)


def noisy(rng: random.Random, case: Case, strong: bool) -> Case:
    """One short sequence a step, because memory was short once."""
    if case.kind == "words":
        return case.but(training__micro_batch_size=1)
    return case.but(training__micro_batch_size=1, data__sequence_length=8 if strong else 16)


def too_much_decay(rng: random.Random, case: Case, strong: bool) -> Case:
    """Weight decay that was meant for another rate."""
    strength = (0.2 if strong else 0.08) / case.rate
    return case.but(optimizer={"name": "adamw", "learning_rate": case.rate, "weight_decay": round(strength, 2)})


def too_much_dropout(rng: random.Random, case: Case, strong: bool) -> Case:
    """Dropout everywhere."""
    p = 0.9 if strong else 0.75
    if case.settings.get("model", {}).get("name") in ("cnn", "mlp"):
        site = next(iter(case.settings["model"]["dropout"]))
        return case.but(model={**case.settings["model"], "dropout": {"embedding": p, site: p}})
    sites = ("embedding", "residual", "feed_forward", "attention")
    return case.but(**{f"model__dropout__{site}": p for site in sites})


def burst(rng: random.Random, case: Case, strong: bool) -> Case:
    """A schedule with a jump to a far higher rate for some steps: a level was mistyped."""
    at = round(rng.uniform(0.45, 0.6), 2)
    schedule = {"name": "piecewise", "warmup": 0.02, "levels": [0.05, 1.0, 0.05], "lengths": [at, 0.015], "join": 0}
    return case.at_rate(30 if strong else 20).but(schedule=schedule)


def burst_step(case: Case) -> int:
    """Where it jumps."""
    return round(case.steps * (0.02 + case.settings["schedule"]["lengths"][0]))


def too_small(rng: random.Random, case: Case, strong: bool) -> Case:
    """A model of a width that was a typing error."""
    size = 4 if strong else 8
    return replace(case, settings=case.settings | {"model.hidden_size": size, "model.num_heads": 1})


def small_base(rng: random.Random, case: Case) -> Case:
    """One layer, and steps enough."""
    return case.but(model__num_layers=1, training__steps=600).at_rate(2.0)


PLANTS: Final = (
    Plant("rate-too-high", "learning-rate-too-high", ALL, rate_too_high),
    Plant("rate-too-high-text", "learning-rate-too-high", ("code", "packages", "words"), rate_too_high, own=False),
    Plant("sgd-leaves", "divergence", ("numbers", "digits"), sgd_leaves, prepare=sgd, also=("learning-rate-too-high",)),
    Plant("rate-too-low", "learning-rate-too-low", ALL, rate_too_low),
    Plant("rate-too-low-rows", "learning-rate-too-low", ("packages", "numbers", "digits"), rate_too_low),
    Plant("no-warmup", "missing-warmup", ("code", "prose"), no_warmup, prepare=post_norm, own=False),
    Plant("decayed", "decayed-too-early", ("packages", "digits", "words"), decayed),
    Plant("decayed-text", "decayed-too-early", LANGUAGE, decayed),
    Plant("too-few-steps", "stopped-too-early", LANGUAGE, too_few_steps, prepare=long_run),
    Plant("tiny-batch", "noisy-loss", ("code", "prose", "words"), noisy),
    Plant("weight-decay", "over-regularised", ("code", "packages", "digits", "words"), too_much_decay),
    Plant("dropout", "over-regularised", ("code", "packages", "words"), too_much_dropout, own=False),
    Plant("rate-burst", "loss-spike", ALL, burst, harm=spikes, also=("learning-rate-too-high",), onset=burst_step),
    Plant("too-small", "underfitting", LANGUAGE, too_small, prepare=small_base, own=False),
)
