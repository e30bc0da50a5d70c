"""Runs to which nothing is done that harms them: ordinary ones, and some that only look odd."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from own_examiner.case import LANGUAGE, Case
from own_examiner.faults_of_model import interrupted, without_norm
from own_examiner.plant import Outcome, is_worse, last

ALL: Final = ("code", "prose", "packages", "digits", "numbers", "words")
VECTORS: Final = ("digits", "numbers")


@dataclass(frozen=True, slots=True)
class Sound:
    """One way to do it well."""

    name: str
    kinds: tuple[str, ...]
    change: Callable[[random.Random, Case], Case]
    own: bool | None = None


def _scheduled(**schedule: object) -> Callable[[random.Random, Case], Case]:
    return lambda rng, case: case.but(schedule=schedule)


def _small_batch(rng: random.Random, case: Case) -> Case:
    return case.but(training__micro_batch_size=6, training__steps=int(1.5 * case.steps)).at_rate(0.5)


def _fine_tuned(rng: random.Random, case: Case) -> Case:
    steps = case.steps
    return replace(case.but(training__steps=max(150, steps // 2)).at_rate(0.2), pretrained=steps)


def _backbone(rng: random.Random, case: Case) -> Case:
    assert case.module is not None
    pattern = {"layers": "*layers.*", "convolutions": "*first*"}[case.module[0]]
    case = case.but(model={"name": "encoder", "freeze": [pattern]})
    return replace(case.but(training__steps=200), pretrained=case.steps)


def _two_parts(rng: random.Random, case: Case) -> Case:
    return case.but(training__micro_batch_size=8, training__accumulation=3)


def _single_pass(rng: random.Random, case: Case) -> Case:
    return case.with_data(rows=case.settings["training.micro_batch_size"] * case.steps)


def _many_passes(rng: random.Random, case: Case) -> Case:
    optimizer = {"name": "adamw", "learning_rate": case.rate, "weight_decay": 0.3}
    return case.with_data(rows=1500).but(training__steps=500, optimizer=optimizer).with_module(dropout=0.3)


SOUND: Final = (
    Sound("cosine", ALL, _scheduled(name="cosine", warmup=0.05, floor=0.1)),
    Sound("wsd", ALL, _scheduled(name="wsd", warmup=0.05, decay=0.3)),
    Sound("one-cycle", ALL, _scheduled(name="one_cycle", warmup=0.3)),
    Sound("restarts", ALL, _scheduled(name="warm_restarts", warmup=0.05, period=0.25)),
    Sound("stairs", ALL, _scheduled(name="step", warmup=0.05, every=0.4, factor=0.3)),
    Sound("constant", ("digits", "numbers", "packages"), _scheduled(name="constant", warmup=0.05)),
    Sound("long-warm-up", ALL, _scheduled(name="linear", warmup=0.4)),
    Sound("small-batch", ("digits", "numbers", "words"), _small_batch),
    Sound("high-rate", ("digits", "numbers", "packages"), lambda rng, case: case.at_rate(2.5)),
    Sound("high-rate-text", LANGUAGE, lambda rng, case: case.at_rate(2.0)),
    Sound("dropout", VECTORS, lambda rng, case: case.with_module(dropout=0.2)),
    Sound("smoothing", ("digits", "packages"), lambda rng, case: case.but(objective__label_smoothing=0.1)),
    Sound("fine-tuned", ("digits", "numbers", "packages"), _fine_tuned, own=True),
    Sound("frozen-backbone", VECTORS, _backbone),
    Sound("resumed", ALL, interrupted),
    Sound("resumed-2", ("code", "digits", "numbers"), interrupted),
    Sound("imbalanced", ("packages", "digits"), lambda rng, case: case.with_data(imbalance=0.25)),
    Sound("converged", ("numbers",), lambda rng, case: case.but(training__steps=800)),
    Sound("tiny", ("digits", "numbers"), lambda rng, case: case.with_module(width=16)),
    Sound("single-pass", ("packages", "numbers"), _single_pass),
    Sound("many-passes", ("digits",), _many_passes),
    Sound("honest-noise", ("numbers",), lambda rng, case: case.with_data(noise=1.0)),
    Sound("noisy-pixels", ("digits",), lambda rng, case: case.with_data(pixel_noise=7)),
    Sound("accumulated", ("digits", "words", "numbers"), _two_parts),
    Sound("deep", VECTORS, without_norm),
    Sound("no-clipping", VECTORS, lambda rng, case: case.but(gradients__clip={"name": "none"})),
    Sound("in-file-order", ("digits", "numbers"), lambda rng, case: case.but(data__shuffle=False)),
    Sound("averaged", VECTORS, lambda rng, case: case.but(averaging={"name": "ema", "decay": 0.98})),
    Sound("lion", ("code", "digits"), lambda rng, case: case.but(
        optimizer={"name": "lion", "learning_rate": case.rate / 5, "weight_decay": 0.3})),
    Sound("momentum", ("digits",), lambda rng, case: case.but(
        optimizer={"name": "sgd", "learning_rate": 0.05, "momentum": 0.9})),
    Sound("own-gru", ("code", "prose"), lambda rng, case: case, own=True),
    Sound("patience", ("packages", "digits"), lambda rng, case: case.but(
        stopping={"name": "patience", "patience": 5})),
)  # fmt: skip
FLOORS: Final = {"code": 2.65, "prose": 2.6, "packages": 0.9, "digits": 0.6, "numbers": 0.4, "words": 0.5}
"""Validation losses that a run which learned is below, with the sizes and lengths that are drawn here."""


def unsound(name: str, case: Case, outcome: Outcome) -> str:
    """Why it did not learn as well as it can; empty where it did."""
    if outcome["status"] not in ("finished", "stopped"):
        return f"it ended as {outcome['status']}: {outcome.get('error', outcome.get('reason'))}"
    floor = FLOORS[case.kind]
    if name in ("honest-noise", "noisy-pixels"):
        floor += 0.6
    if name == "smoothing":
        floor += 0.5
    lowest = min(loss for _, loss in outcome["validation"])
    if lowest > floor:
        return f"validation loss {lowest:.3f}, above {floor}"
    if name != "patience" and is_worse(case.kind, last(outcome), lowest):
        return f"validation loss {last(outcome):.3f}, after {lowest:.3f}"
    return ""
