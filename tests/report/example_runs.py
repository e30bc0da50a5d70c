"""Runs made by arithmetic, each with what the doctor would say of it: the same to the bit wherever they are made."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trimtab.doctor import Case, Diagnosis, Evidence, Finding, Remedy, Withheld
from trimtab.doctor.diagnose import verdict_of
from trimtab.doctor.narrate import summarize
from trimtab.events import (
    ArtifactLogged,
    DecisionTaken,
    EvaluationEnded,
    Event,
    RunEnded,
    RunStarted,
    Save,
    StepsEnded,
    Stop,
)
from trimtab.runs import History, RecordWriter, RunDirectory, StatisticsWriter
from trimtab.runs.record import lines_of

CONFIG = {
    "name": "gpt-1m",
    "seed": 0,
    "data.sequence_length": 256,
    "data.tokenizer.vocabulary_size": 2048,
    "model.num_layers": 4,
    "model.hidden_size": 128,
    "model.dropout.residual": 0.0,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.003,
    "optimizer.weight_decay": 0.1,
    "schedule.name": "cosine",
    "schedule.warmup": 0.05,
    "training.steps": 2000,
    "training.micro_batch_size": 16,
    "evaluation.every": 100,
    "evaluation.samples.prompts": ["def "],
    "checkpoint.metric": "validation/loss",
}


def judged(case: Case, name: str, findings: list[Finding], withheld: list[Withheld] | None = None) -> Diagnosis:
    """A diagnosis with these findings, in this order."""
    verdict, kept = verdict_of(findings), tuple(withheld or ())
    return Diagnosis(name, verdict, tuple(findings), kept, summarize(case, verdict, findings, kept))


def noise(num: int, seed: int = 0) -> np.ndarray:
    """Normal numbers."""
    return np.random.default_rng(seed).standard_normal(num)


def rate_of(steps: np.ndarray, peak: float = 3e-3) -> np.ndarray:
    """Warm-up and half a cosine."""
    num = len(steps)
    warm = max(1, num // 20)
    decay = 0.1 + 0.45 * (1 + np.cos(np.pi * np.clip((steps - warm) / max(num - warm, 1), 0, 1)))
    return peak * np.minimum(steps / warm, decay)


def loss_of(steps: np.ndarray, floor: float = 2.6, spread: float = 0.05) -> np.ndarray:
    """A falling loss with noise."""
    return floor + (7.6 - floor) * (1 + steps / 25.0) ** -0.55 + spread * noise(len(steps))


def case_of(
    per_step: dict[str, np.ndarray],
    evaluations: dict[str, dict[int, float]] | None = None,
    *,
    config: dict[str, object] | None = None,
    planned: int | None = None,
) -> Case:
    """A case without a directory."""
    history = History()
    num = len(next(iter(per_step.values())))
    history.total_steps = planned or num
    for name, values in per_step.items():
        history.add(name, np.arange(1, num + 1), np.asarray(values, np.float64))
    for name, points in (evaluations or {}).items():
        history.add(name, np.array(list(points)), np.array(list(points.values()), np.float64))
    return Case(history, config if config is not None else CONFIG)


def overfitting() -> tuple[Case, Diagnosis]:
    """The validation loss turns at step 600."""
    steps = np.arange(1, 2001)
    loss = loss_of(steps, 1.1, 0.08)
    points = {
        int(step): float(1.5 + 6.2 * (1 + step / 25) ** -0.55 + 1.1 * max(0.0, (step - 600) / 1400) ** 1.3)
        for step in range(100, 2001, 100)
    }
    gap = {step: value - float(loss[step - 1]) for step, value in points.items()}
    case = case_of(
        {"train/loss": loss, "learning_rate": rate_of(steps), "grad_norm": 0.6 + 0.1 * noise(2000, 1) ** 2},
        {"validation/loss": points, "generalization_gap": gap},
    )
    best = min(points, key=lambda step: points[step])
    finding = Finding(
        "overfitting",
        "warning",
        0.93,
        best,
        "The model goes on learning the training text by heart: the training loss still falls while the validation "
        "loss rises.",
        (
            Evidence("validation/loss", (best, 2000), points[2000], points[best],
                     f"The validation loss rises from {points[best]:.3f} at step {best} to {points[2000]:.3f}."),
            Evidence("generalization_gap", (best, 2000), gap[2000], 0.1,
                     f"The gap between training and validation grows from {gap[best]:.2f} to {gap[2000]:.2f} nats."),
        ),
        (),
        (
            Remedy("Regularise: drop out a tenth of the residual stream", "trimtab",
                   {"model.dropout.residual": 0.1, "optimizer.weight_decay": 0.2}),
            Remedy("Train for fewer steps: the best model was there after a third of them", "trimtab",
                   {"training.steps": best + 100}),
        ),
    )  # fmt: skip
    late = Finding("noisy-loss", "info", 0.4, 1200, "Steps differ by more than the loss falls in a hundred steps.",
                   (Evidence("train/loss", (1200, 1500), 0.08, 0.02, "The loss moves by 0.08."),))  # fmt: skip
    return case, judged(case, "shakespeare", [finding, late], [Withheld("dead-units", ("layer/*/dead_fraction",))])


def diverged() -> tuple[Case, Diagnosis]:
    """The loss leaves at step 900, and the gradient before it."""
    steps = np.arange(1, 1501)
    loss = loss_of(steps)
    away = steps > 900
    loss[away] += 4.5 * (1 - np.exp(-(steps[away] - 900) / 60)) + 0.4 * np.abs(noise(int(away.sum()), 2))
    norm = 0.7 + 0.1 * noise(1500, 3) ** 2
    norm[860:] *= np.exp(np.clip((steps[860:] - 860) / 25, 0, 7))
    case = case_of(
        {"train/loss": loss, "learning_rate": rate_of(steps, 3e-2), "grad_norm": norm},
        {"validation/loss": {step: float(loss[step - 1] + 0.2) for step in range(150, 1501, 150)}},
        config=CONFIG | {"optimizer.learning_rate": 0.03},
    )
    lead = Finding(
        "learning-rate-too-high", "error", 0.88, 861,
        "The updates are too large: at the height of the rate the loss leaves and does not come back.",
        (Evidence("learning_rate", (75, 900), 0.03, 0.003, "The rate is 0.03; AdamW rarely bears more than 0.003."),
         Evidence("train/loss", (900, 1500), 7.5, 2.9, "After step 900 the loss is never again below 4."),
         Evidence("grad_norm", (861, 1000), 760.0, 1.0, "The gradient norm grows a thousandfold from step 861 on.")),
        ("divergence",),
        (Remedy("Lower the learning rate tenfold", "trimtab", {"optimizer.learning_rate": 0.003}),),
    )  # fmt: skip
    return case, judged(case, "too-fast", [lead])


def not_a_number() -> tuple[Case, Diagnosis]:
    """The loss is NaN from step 400 on, and once before."""
    steps = np.arange(1, 801)
    loss = loss_of(steps)
    loss[399:], loss[180] = np.nan, np.inf
    norm = 0.7 + 0.1 * noise(800, 3) ** 2
    norm[399:] = np.nan
    case = case_of({"train/loss": loss, "learning_rate": rate_of(steps), "grad_norm": norm})
    finding = Finding(
        "nan-loss", "error", 1.0, 400, "The loss is not a number from step 400 on.",
        (Evidence("train/loss", (400, 800), float("nan"), None, "401 of 401 losses are not a number."),),
        (), (Remedy("Train in bf16 or fp32 instead of fp16", "trimtab", {"training.precision.name": "bf16"}),),
    )  # fmt: skip
    return case, judged(case, "half-precision", [finding])


def all_bad() -> tuple[Case, Diagnosis]:
    """Nothing but NaN."""
    case = case_of({"train/loss": np.full(50, np.nan)})
    return case, judged(case, "nothing", [Finding("nan-loss", "error", 1.0, 1, "No loss is a number.")])


def healthy() -> tuple[Case, Diagnosis]:
    """A run as it should be."""
    steps = np.arange(1, 601)
    loss = loss_of(steps)
    case = case_of(
        {"train/loss": loss, "learning_rate": rate_of(steps), "grad_norm": 0.6 + 0.1 * noise(600, 1) ** 2},
        {
            "validation/loss": {
                step: float(loss_of(np.array([step]), spread=0)[0] + 0.05) for step in range(50, 601, 50)
            }
        },
    )
    return case, judged(case, "healthy", [])


def spiked() -> tuple[Case, Diagnosis]:
    """Three spikes that a scale must not follow."""
    steps = np.arange(1, 3001)
    loss = loss_of(steps)
    for at, size in ((700, 40.0), (1700, 900.0), (1702, 200.0), (2500, 12.0)):
        loss[at] += size
    case = case_of({"train/loss": loss, "grad_norm": 0.6 + 0.1 * noise(3000, 1) ** 2})
    finding = Finding(
        "loss-spike", "warning", 0.8, 701, "The loss leaves three times for a single step and comes back.",
        (Evidence("train/loss", (1690, 1710), 902.0, 2.8, "At step 1,701 the loss is 902."),),
    )  # fmt: skip
    return case, judged(case, "spikes", [finding])


def loss_alone() -> tuple[Case, Diagnosis]:
    """What a log of another trainer may be."""
    case = case_of({"train/loss": loss_of(np.arange(1, 301))}, config={})
    withheld = [Withheld("overfitting", ("validation/loss",)), Withheld("learning-rate-too-high", ("learning_rate",))]
    return Case(case.history, target="huggingface"), judged(case, "trainer_state.csv", [], withheld)


def long() -> tuple[Case, Diagnosis]:
    """A hundred thousand steps."""
    steps = np.arange(1, 100_001)
    loss = loss_of(steps, spread=0.06)
    case = case_of(
        {"train/loss": loss, "learning_rate": rate_of(steps), "grad_norm": 0.6 + 0.1 * noise(100_000, 1) ** 2,
         "step_seconds": 0.1 + 0.001 * noise(100_000, 2), "tokens": np.full(100_000, 4096.0)},
        {"validation/loss": {step: float(loss[step - 1] + 0.1) for step in range(500, 100_001, 500)}},
    )  # fmt: skip
    return case, judged(case, "long", [])


CASES: dict[str, Callable[[], tuple[Case, Diagnosis]]] = {
    "overfitting": overfitting,
    "diverged": diverged,
    "not_a_number": not_a_number,
    "all_bad": all_bad,
    "healthy": healthy,
    "spiked": spiked,
    "loss_alone": loss_alone,
    "long": long,
}


def write_run(
    path: Path, *, steps: int = 400, ends: bool = True, text: str = "def add(a, b):\n    return a + b"
) -> RunDirectory:
    """A run directory as trimtab leaves it; `text` stands wherever a run takes text from outside."""
    run = RunDirectory.create_at(path)
    run.write_json(run.facts, {"parameters": {"total": 1_049_728, "frozen": 0}, "tokens_per_epoch": 7_196_009,
                               "source": text, "yardsticks": {"bigram": 2.098, "lzma": 1.494},
                               "identity": {f"config.{key}": value for key, value in CONFIG.items()}})  # fmt: skip
    run.write_json(run.environment, {"versions": {"python": "3.11.7", "trimtab": "0.1.0"}, "host": text,
                                     "git": {"commit": "ed3f92f305979de2de9fbf5ed3585d0e5ea9b5d6", "dirty": False},
                                     "hardware": {"cpu": "a processor", "cores": 2, "memory_bytes": 25_276_063_744},
                                     "command": ["/opt/bin/trimtab", "train", "gpt-1m", f"name={text}"],
                                     "working_directory": "/home/somebody"})  # fmt: skip
    run.write_json(run.plan, {"device": "cpu", "compile": {"chosen": False, "reason": text}})
    at = np.arange(1, steps + 1)
    loss, rate, norm = loss_of(at), rate_of(at), 0.6 + 0.1 * noise(steps, 1) ** 2
    clock = itertools.count()
    writer = RecordWriter(run.record, now=lambda: 1.7e9 + next(clock))
    statistics = StatisticsWriter(run.statistics)

    def tell(event: Event) -> None:
        writer.append(*lines_of(event))

    tell(RunStarted(0, 1, 0, None, steps))
    for first in range(1, steps + 1, 10):
        rows, last = slice(first - 1, first + 9), first + 9
        per_step = {"train/loss": loss[rows], "learning_rate": rate[rows], "grad_norm": norm[rows]}
        values = {"tokens_per_second": 3700.0 + first % 70, "memory_bytes": 9.4e8}
        tell(StepsEnded(first, last, per_step | {"tokens": np.full(10, 4096.0)}, values))
        scale = norm[last - 1]
        statistics.append(
            last, {f"layer/blocks.{i}.attention.qkv.weight/grad_norm": float(scale / 4**i) for i in range(4)}
        )
        if last % 100 == 0:
            value = float(loss[last - 1]) + 0.1
            metrics = {"validation/loss": value, "validation/bits_per_byte": value / 2, "generalization_gap": 0.1}
            tell(EvaluationEnded(last, metrics, 1.0))
            tell(ArtifactLogged(last, "sample", "sample-0", text))
            tell(DecisionTaken(last, last, "save_best", Save(text)))
    if ends:
        tell(DecisionTaken(steps, steps, "request", Stop(text)))
        split = {"start": 16.0, "training": 235.8, "evaluation": 173.5, "checkpoint": 0.3}
        tell(RunEnded(steps, "stopped", text, steps, 2.9, None, 425.6, split))
    writer.close()
    statistics.close()
    return run
