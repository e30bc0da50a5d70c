"""Runs of the second set to which nothing is done that harms them, ordinary or odd."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Final

from own_examiner.case import Case
from own_examiner.plant import Outcome, is_worse, last
from own_examiner.second.faults_of_model import killed, module, recurrent
from own_examiner.second.faults_of_settings import as_bert, of
from own_examiner.second.tasks import TASKS
from own_examiner.sound import Sound

Random = random.Random
ALL: Final = tuple(TASKS)
CLASS: Final = ("class-majority", "class-docstrings", "class-table", "class-images")
NUMBER: Final = ("number-friedman", "number-series", "number-vowels")


def but(**settings: Any) -> Any:
    """With other settings."""
    return lambda rng, case: case.but(**settings)


def by(name: str, factor: float, **more: Any) -> Any:
    """By another optimizer, at a rate that many times AdamW's."""
    return lambda rng, case: of(case, name, case.rate * factor, **more)


def fine_tuned(rng: Random, case: Case) -> Case:
    """From the weights of another run."""
    return replace(case.but(training__steps=200).at_rate(0.3), pretrained=case.steps)


def gradual(rng: Random, case: Case) -> Case:
    """Layers thawed one after the other."""
    return case.but(**{"model.freeze": ["*embedding*"], "model.unfreeze": {"*embedding*": 0.1}})


def few_but_stopped(rng: Random, case: Case) -> Case:
    """Few rows, stopped in time, the best weights kept."""
    case = case.with_data(cut=1200).but(stopping={"name": "patience", "patience": 4, "restore_best": True})
    return case.but(evaluation__every=20)


def log_probabilities(rng: Random, case: Case) -> Case:
    """Log-probabilities in place of logits, which is the same to cross-entropy."""
    return recurrent()(rng, case).with_whole(squash="log_softmax")


def in_parts(rng: Random, case: Case) -> Case:
    """A batch in four parts."""
    return case.but(training__micro_batch_size=6, training__accumulation=4)


def heavy_but_robust(rng: Random, case: Case) -> Case:
    """Some far values, and a loss that they do not rule."""
    return case.but(objective={"name": "mae"}).with_data(heavy=3.0)


def few_words(rng: Random, case: Case) -> Case:
    """Classes of which some are rare, weighted."""
    return case.with_data(rare=0.3).but(task=case.settings["task"] | {"class_weights": "balanced"})


def thick(rng: Random, case: Case) -> Case:
    """Dropout where a module is wide enough."""
    return module("perceptron", width=160, dropout=0.3)(rng, case)


S = Sound
SOUND: Final = (
    S("as-drawn", ALL, lambda rng, case: case),
    S("as-drawn-text", ("text-topics", "text-sums", "masked-topics"), lambda rng, case: case),
    S("as-drawn-classes", (*CLASS, "labels-subjects", "tags-roles"), lambda rng, case: case),
    S("as-drawn-numbers", NUMBER, lambda rng, case: case),
    S("muon", ("text-topics", "text-sums", "class-images", "tags-roles"), by("muon", 1.0)),
    S("adafactor", ("text-sums", "class-majority", "number-vowels"), by("adafactor", 8.0)),
    S("soap", ("class-table", "number-friedman"), by("soap", 1.0, weight_decay=0.01)),
    S("schedule-free", ("text-sums", "class-table", "number-series"), lambda rng, case: of(
        case, "schedule_free_adamw", case.rate * 1.5, weight_decay=0.01).but(
        schedule={"name": "constant", "warmup": 0.05})),
    S("lamb", ("class-table", "class-images"), by("lamb", 3.0)),
    S("nesterov", ("class-table", "class-images"), lambda rng, case: of(case, "sgd", 0.05, nesterov=True)),
    S("bf16", ("text-topics", "class-majority", "tags-roles"), but(training__precision={"name": "bf16"})),
    S("swa", ("number-friedman", "class-images"), lambda rng, case: module("mixer")(rng, case).but(
        averaging={"name": "swa", "start": 0.7}, schedule={"name": "constant", "warmup": 0.05})),
    S("triangles", (*CLASS, *NUMBER), but(schedule={"name": "triangular", "rise": 0.1, "halved": True})),
    S("focal", CLASS, but(objective={"name": "focal", "gamma": 1.5})),
    S("quantile", ("number-friedman", "number-series"), but(objective={"name": "quantile", "quantile": 0.5})),
    S("sharpness-aware", ("class-table", "number-friedman"), but(sharpness={"name": "sam", "radius": 0.03})),
    S("mixup", ("class-majority",), lambda rng, case: case.but(embedding__noise__alpha=2.0)),
    S("log-probabilities", ("class-table", "tags-roles", "text-topics"), log_probabilities),
    S("parts", (*CLASS, *NUMBER, "pairs-sorting"), in_parts),
    S("robust", ("number-friedman", "number-vowels"), heavy_but_robust),
    S("weighted", ("class-majority", "class-table"), few_words),
    S("stopped-in-time", ("class-table", "number-friedman", "class-docstrings"), few_but_stopped),
    S("fine-tuned", ("class-table", "class-images", "number-friedman"), fine_tuned),
    S("killed", ALL, killed),
    S("thawed", ("text-sums", "masked-topics"), gradual, own=False),
    S("thick", ("class-table", "number-friedman"), thick),
    S("bert", ("class-majority",), as_bert),
    S("token-dropout", ("class-majority", "class-docstrings"), but(data__augmentation__token_dropout=0.08)),
    S("plateau", (*CLASS, *NUMBER), but(control__learning_rate={"name": "plateau", "patience": 3, "factor": 0.5},
                                        schedule={"name": "constant", "warmup": 0.05})),
    S("quantile-clip", (*CLASS, "text-sums"), but(gradients__clip={"name": "quantile"})),
    S("residual", ("class-images", "number-series"), lambda rng, case: module("residual", blocks=3)(rng, case)),
)  # fmt: skip
FLOORS: Final = {"text-topics": 2.75, "text-sums": 1.75, "masked-topics": 3.1, "pairs-sorting": 0.6,
                 "class-majority": 0.6, "class-docstrings": 1.1, "class-table": 0.6, "class-images": 0.8,
                 "labels-subjects": 0.4, "tags-roles": 0.7, "number-friedman": 0.15, "number-series": 0.25,
                 "number-vowels": 0.15}  # fmt: skip
"""Validation losses that a run which learned is below, with the sizes that are drawn here."""


def unsound(name: str, case: Case, outcome: Outcome) -> str:
    """Why it did not learn as well as it can; empty where it did."""
    if outcome["status"] not in ("finished", "stopped"):
        return f"it ended as {outcome['status']}: {outcome.get('error', outcome.get('reason'))}"
    floor = FLOORS[case.kind] + (0.25 if name in ("robust", "token-dropout", "quantile") else 0.0)
    lowest = min(loss for _, loss in outcome["validation"])
    if lowest > floor:
        return f"validation loss {lowest:.3f}, above {floor}"
    if name != "stopped-in-time" and is_worse(case.kind, last(outcome), lowest):
        return f"validation loss {last(outcome):.3f}, after {lowest:.3f}"
    return ""
