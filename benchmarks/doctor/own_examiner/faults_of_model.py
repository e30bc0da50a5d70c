"""Mistakes in a module, in the script around it, and in how the machine is used."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from own_examiner.case import LANGUAGE, Case
from own_examiner.plant import Plant, grows, jumps, lasts

VECTORS: Final = ("digits", "numbers")


def of_layers(rng: random.Random, case: Case) -> Case:
    """Plain layers with ReLU, in place of whatever was drawn."""
    count, outputs = (64, 10) if case.kind == "digits" else (8, 1)
    layers = {"count": count, "outputs": outputs, "width": 64, "depth": 3, "activation": "relu"}
    if case.kind == "numbers":
        layers |= {"center": 45.0, "scale": 25.0}
    return replace(case, module=("layers", layers))


def softmax(rng: random.Random, case: Case, strong: bool) -> Case:
    """A softmax at the end of the module, as one that is used for answers has it."""
    return case.with_whole(softmax=True)


def dead(rng: random.Random, case: Case, strong: bool) -> Case:
    """Biases far below zero in front of ReLU."""
    assert case.module is not None
    if case.module[0] == "convolutions":
        return case.with_module(bias=-4.0 if strong else -1.5, norm=False)
    return case.with_module(bias=-5.0 if strong else -1.5)


def large_weights(rng: random.Random, case: Case, strong: bool) -> Case:
    """Weights from a normal distribution of deviation 1, or more."""
    if case.module is None:
        return case.but(model__initialization__standard_deviation=2.0 if strong else 1.0)
    return case.with_module(deviation=2.0 if strong else 1.0)


def frozen(rng: random.Random, case: Case, strong: bool) -> Case:
    """`requires_grad` left off from a fine-tuning, on layers with random weights; or a pattern in `model.freeze`."""
    if case.module is None:
        return case.but(model__freeze=["*blocks*", "*embedding*"] if strong else ["*blocks*"])
    names = {
        "layers": ("layers",) if strong else ("layers.0", "layers.1"),
        "convolutions": ("first", "second", "norms"),
        "gru": ("gru", "embedding") if strong else ("gru",),
        "bag": ("embedding", "layer") if strong else ("embedding",),
    }
    return case.with_whole(frozen=names[case.module[0]])


def without_norm(rng: random.Random, case: Case) -> Case:
    """Many layers, which a norm and a residual path let learn."""
    return of_layers(rng, case).with_module(depth=10, activation="tanh", norm="layer", residual=True)


def vanishing(rng: random.Random, case: Case, strong: bool) -> Case:
    """Ten layers of sigmoids without either."""
    return case.with_module(activation="sigmoid", norm="none", residual=False, depth=12 if strong else 8)


def dropped(rng: random.Random, case: Case) -> Case:
    """A module with dropout."""
    return case.with_module(dropout=rng.choice((0.4, 0.5, 0.6)))


def always_dropped(rng: random.Random, case: Case, strong: bool) -> Case:
    """`functional.dropout(x, p)`, which is active in evaluation, too."""
    return case.with_module(always=True)


def unscaled(rng: random.Random, case: Case, strong: bool) -> Case:
    """Raw inputs: all of them in thousands, or each column in its own unit."""
    assert case.module is not None
    if case.module[0] == "convolutions":
        return case.with_module(scale=0.02 if strong else 0.1)
    if case.kind == "digits" or rng.random() < 0.5:
        return case.with_module(scale=0.01 if strong else 0.05, center=0.0)
    big = 3000.0 if strong else 500.0
    return case.with_module(factors=(big, 1.0, 0.01, 1.0, big / 5, 1.0, 0.1, 1.0))


def logarithm(rng: random.Random, case: Case, strong: bool) -> Case:
    """A logarithm of what becomes negative at some step."""
    return case.with_whole(nan_after=round(case.steps * rng.uniform(0.4, 0.7)))


def half(rng: random.Random, case: Case) -> Case:
    """float16, with what it needs."""
    return case.but(training__precision={"name": "fp16"}, lint__allow=["fp16-without-cuda"])


def overflows(rng: random.Random, case: Case, strong: bool) -> Case:
    """Logits that pass the largest float16 on their way."""
    return case.with_whole(half_overflows=1e7 if strong else 1e6)


def keeps(rng: random.Random, case: Case, strong: bool) -> Case:
    """Outputs that are appended to a list for a picture, step after step."""
    return case.with_whole(kept_megabytes=4.0 if strong else 1.5)


def slows(rng: random.Random, case: Case, strong: bool) -> Case:
    """A history that is gone through in every step."""
    return case.with_whole(slower_by=(0.025 if strong else 0.012) / case.steps)


def crowded(rng: random.Random, case: Case, strong: bool) -> Case:
    """Far more threads than cores, from a larger machine's configuration."""
    return case.but(training__threads=64 if strong else 24)


def interrupted(rng: random.Random, case: Case) -> Case:
    """Killed and resumed; a whole number of evaluations comes first, so that there is a checkpoint."""
    return replace(case, killed_at=int(case.settings["evaluation.every"]) * rng.choice((4, 5)) + 12)


def other_rate(rng: random.Random, case: Case, strong: bool) -> Case:
    """The learning rate was edited before it was resumed, with --accept-drift."""
    optimizer = case.settings["optimizer"] | {"learning_rate": case.rate * (40 if strong else 15)}
    return replace(case, resumed={"settings": {"optimizer": optimizer}})


def other_inputs(rng: random.Random, case: Case, strong: bool) -> Case:
    """The script scales its inputs otherwise since it was edited."""
    assert case.module is not None
    scale = float(case.module[1].get("scale", 16.0 if case.module[0] == "convolutions" else 6.0))
    return replace(case, resumed={"module": {"scale": scale * (0.25 if strong else 0.5)}})


def resumed_at(case: Case) -> int | None:
    """Where it went on."""
    every = int(case.settings["evaluation.every"])
    return None if case.killed_at is None else case.killed_at // every * every


PLANTS: Final = (
    Plant("softmax", "double-softmax", ("digits", "packages"), softmax, own=True),
    Plant("softmax-2", "double-softmax", ("digits", "packages"), softmax, own=True),
    Plant("dead-bias", "dead-units", VECTORS, dead, also=("bad-initialization",)),
    Plant("dead-layers", "dead-units", VECTORS, dead, prepare=of_layers, also=("bad-initialization",)),
    Plant("large-weights", "bad-initialization", (*LANGUAGE, "packages", "words"), large_weights, own=False),
    Plant("large-weights-own", "bad-initialization", (*VECTORS, "code"), large_weights, own=True),
    Plant("frozen", "frozen-parameters", (*LANGUAGE, "packages", *VECTORS), frozen, own=True),
    Plant("frozen-pattern", "frozen-parameters", LANGUAGE, frozen, own=False),
    Plant("sigmoids", "vanishing-gradients", VECTORS, vanishing, prepare=without_norm),
    Plant("sigmoids-2", "vanishing-gradients", VECTORS, vanishing, prepare=without_norm),
    Plant("dropout-left-on", "evaluated-in-training-mode", (*VECTORS, "packages"), always_dropped,
          prepare=dropped, own=True),
    Plant("dropout-left-on-2", "evaluated-in-training-mode", VECTORS, always_dropped, prepare=dropped, own=True),
    Plant("raw-inputs", "unscaled-inputs", VECTORS, unscaled),
    Plant("raw-columns", "unscaled-inputs", ("numbers",), unscaled),
    Plant("logarithm", "nan-loss", (*VECTORS, "packages"), logarithm, own=True,
          onset=lambda case: int(case.whole["nan_after"])),
    Plant("half-overflows", "loss-scale-collapse", ("digits", "packages"), overflows, prepare=half, own=True),
    Plant("kept-outputs", "memory-leak", (*VECTORS, "packages"), keeps, harm=grows, own=True, has_twin=False),
    Plant("kept-outputs-2", "memory-leak", VECTORS, keeps, harm=grows, own=True, has_twin=False),
    Plant("longer-history", "throughput-decay", (*VECTORS, "packages"), slows, harm=lasts("grows", 1.8), own=True,
          has_twin=False),
    Plant("longer-history-2", "throughput-decay", VECTORS, slows, harm=lasts("grows", 1.8), own=True, has_twin=False),
    Plant("crowded", "thread-oversubscription", (*LANGUAGE, "words"), crowded, harm=lasts("twin", 1.3), own=False),
    Plant("rate-after-resume", "resume-discontinuity", ("code", "digits", "words"), other_rate, harm=jumps,
          prepare=interrupted, onset=resumed_at, has_twin=False),
    Plant("inputs-after-resume", "resume-discontinuity", VECTORS, other_inputs, harm=jumps, prepare=interrupted,
          onset=resumed_at, has_twin=False),
)  # fmt: skip
