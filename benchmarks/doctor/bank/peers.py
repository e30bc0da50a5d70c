"""What other doctors say of the same runs: PYTHONPATH must hold them beside the bank.

    pip install --no-deps --target PEERS runmedic losslint trainspotter finetune-doctor gradsnitch trainproof
    PYTHONPATH=benchmarks/doctor:PEERS python -m bank peers --part test --from DIR

Each is asked through its own command line, with the log as it is. Runs of trimtab, which they cannot read, are handed
to them as a CSV of the usual names, and to finetune-doctor, which reads trainer_state.json alone, every log as that.
Their checks are coarser than the bank's codes: a check counts as right for each code that it could mean (`MEANS`).
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from bank.score import Judged, Said, case_of, log_of, scores

RATE: Final = ("learning-rate-too-high", "divergence", "exploding-gradients", "bad-initialization")
SLOW: Final = (
    "plateau",
    "learning-rate-too-low",
    "underfitting",
    "decayed-too-early",
    "frozen-parameters",
    "over-regularised",
    "vanishing-gradients",
    "dead-units",
    "double-softmax",
    "random-labels",
)
SPIKE: Final = ("loss-spike", "corrupt-batch", "resume-discontinuity")
FIT: Final = ("overfitting", "overconfident", "leakage", "validation-shift", "label-noise", "random-labels")
NAN: Final = ("nan-loss", "loss-scale-collapse", "divergence")
BELOW: Final = ("leakage", "evaluated-in-training-mode", "over-regularised", "target-leak")

MEANS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "runmedic": {
        "non_finite": NAN,
        "divergence": RATE,
        "loss_spikes": SPIKE,
        "no_learning": SLOW,
        "overfitting": FIT,
        "val_below_train": BELOW,
        "grad_spikes": ("exploding-gradients", *SPIKE),
        "constant_lr_plateau": SLOW,
        "input_bound": ("input-bound",),
        "slow_steps": ("input-bound", "evaluation-bound"),
        "slowdown": ("throughput-decay", "memory-leak"),
        "memory_growth": ("memory-leak",),
    },
    "losslint": {
        "nan_inf": NAN,
        "step_backtrack": ("resume-discontinuity",),
        "loss_spike": SPIKE,
        "divergence": RATE,
        "overfit_onset": FIT,
        "stagnation": SLOW,
    },
    "trainspotter": {
        "spikes": SPIKE,
        "divergence": (*RATE, *NAN),
        "plateau": SLOW,
        "overfitting": FIT,
        "lr_schedule": ("missing-warmup", "schedule-mismatch", "decayed-too-early"),
        "grad_norm": ("exploding-gradients", "gradients-not-cleared", "accumulation-not-normalised"),
        "throughput": ("throughput-decay", "memory-leak"),
        "eval_noise": ("validation-too-small",),
        "loss_floor": ("target-leak", "leakage"),
    },
    "finetune-doctor": {
        "overfitting": FIT,
        "stopped_improving": (*FIT, *SLOW),
        "metric_disagreement": ("overconfident",),
        "loss_degenerate": NAN,
        "not_learning": (*SLOW, *RATE),
        "loss_spikes": (*SPIKE, "unshuffled-data"),
        "lr_schedule": ("decayed-too-early", "schedule-mismatch"),
        "gradients": ("exploding-gradients", "vanishing-gradients", "frozen-parameters", "loss-scale-collapse"),
        "eval_below_train": BELOW,
    },
    "gradsnitch": {
        "GS001": NAN,
        "GS002": NAN,
        "GS003": ("exploding-gradients", *SPIKE),
        "GS004": FIT,
        "GS005": SLOW,
        "GS006": RATE,
        "GS007": ("vanishing-gradients", "frozen-parameters", "dead-units"),
        "GS008": RATE,
        "GS009": (*RATE, "noisy-loss"),
        "GS010": ("decayed-too-early", "schedule-mismatch"),
    },
    "trainproof": {
        "TP-NAN": NAN,
        "TP-NAN-GRAD": NAN,
        "TP-DIVERGE": RATE,
        "TP-FLAT": SLOW,
        "TP-DEAD-RUN": SLOW,
        "TP-ZERO-LOSS": ("target-leak",),
        "TP-LR": ("decayed-too-early", "schedule-mismatch", "missing-warmup"),
        "TP-OVERFIT": FIT,
        "TP-GRAD-SPIKE": ("exploding-gradients", *SPIKE),
        "TP-ZERO-GRAD": ("vanishing-gradients", "frozen-parameters"),
        "TP-STEP-TIME": ("throughput-decay", "memory-leak"),
        "TP-LOADER-BOUND": ("input-bound",),
    },
}

COLUMNS: Final = {
    "train/loss": "train_loss",
    "learning_rate": "lr",
    "grad_norm": "grad_norm",
    "validation/loss": "val_loss",
    "validation/accuracy": "val_accuracy",
    "step_seconds": "step_time",
    "data_seconds": "data_time",
    "memory_bytes": "memory_bytes",
}

Told = list[tuple[str, str, int]]
"""Check, severity in our words, step."""


def rows_of(run: Path, logger: str) -> list[dict[str, float]]:
    """The log as rows of the usual names, a step each."""
    rows: dict[int, dict[str, float]] = {}
    history = case_of(run, logger).history
    for metric, name in COLUMNS.items():
        series = history.get(metric)
        if series is None:
            continue
        for step, value in zip(series.steps.tolist(), series.mean.tolist(), strict=True):
            rows.setdefault(int(step), {})[name] = value
    return [{"step": step, **rows[step]} for step in sorted(rows)]


def write_csv(rows: list[dict[str, float]], path: Path) -> None:
    """As a CSV file."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_state(rows: list[dict[str, float]], path: Path) -> None:
    """As a trainer_state.json, in the words of Hugging Face."""
    names = {"train_loss": "loss", "lr": "learning_rate", "grad_norm": "grad_norm"}
    history: list[dict[str, Any]] = []
    for row in rows:
        step = row["step"]
        own = {names[key]: value for key, value in row.items() if key in names}
        if own:
            history.append({"step": step, "epoch": step / rows[-1]["step"], **own})
        if "val_loss" in row:
            told = {"step": step, "epoch": step / rows[-1]["step"], "eval_loss": row["val_loss"]}
            history.append(told | ({"eval_accuracy": row["val_accuracy"]} if "val_accuracy" in row else {}))
    last = rows[-1]["step"] if rows else 0
    state = {"global_step": last, "max_steps": last, "log_history": history, "epoch": 1.0}
    path.write_text(json.dumps(state), encoding="utf-8")


def _called(module: str, *arguments: str) -> Any:
    """What a command line prints as JSON."""
    program, printed = importlib.import_module(module), io.StringIO()
    kept, sys.argv = sys.argv, [module, *arguments]
    try:
        sink = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(sink), contextlib.suppress(SystemExit):
            program.main()
    finally:
        sys.argv = kept
    return json.loads(printed.getvalue())


def _severity(word: str) -> str:
    word = word.lower()
    if word in ("critical", "error", "fail", "crit"):
        return "error"
    return "warning" if word in ("warning", "warn") else "info"


def runmedic(log: Path) -> Told:
    """`runmedic diagnose LOG --json`."""
    found = _called("runmedic.cli", "diagnose", str(log), "--json")
    return [
        (one["check"], _severity(one["severity"]), int(one.get("step") or 1))
        for run in found
        for one in run["findings"]
    ]


def losslint(log: Path) -> Told:
    """`losslint check LOG --format json`."""
    found = _called("losslint.cli", "check", str(log), "--format", "json")
    return [(one["check"], _severity(one["severity"]), int(one.get("step") or 1)) for one in found["findings"]]


def trainspotter(log: Path) -> Told:
    """`trainspotter analyze LOG --output json`."""
    found = _called("trainspotter.cli", "analyze", str(log), "--output", "json")
    return [
        (one["detector"], _severity(str(one["severity"])), int(one.get("start_step") or one.get("step") or 1))
        for one in found["findings"]
    ]


def finetune_doctor(log: Path) -> Told:
    """`finetune-doctor diagnose LOG --format json`."""
    found = _called("finetune_doctor.cli", "diagnose", str(log), "--format", "json")
    return [
        (one["check"], _severity(one["severity"]), 1)
        for one in found["findings"]
        if one["check"] not in ("no_eval", "incomplete", "rl_run")
    ]


def gradsnitch(log: Path) -> Told:
    """`gradsnitch.lint` over the rows."""
    import gradsnitch as package  # type: ignore[import-not-found]
    import pandas

    table = pandas.read_csv(log)
    return [(one.code, _severity(one.severity), 1) for one in package.lint(table)]


def trainproof(log: Path) -> Told:
    """`trainproof doctor LOG --json`."""
    found = _called("trainproof.cli", "doctor", str(log), "--json")
    return [
        (one["id"], _severity(one["level"]), 1)
        for report in found["reports"]
        for one in report["findings"]
        if one["level"] in ("FAIL", "WARN") and one["id"] not in ("TP-NO-LOSS", "TP-NO-RECORDS")
    ]


PEERS: Final[dict[str, Callable[[Path], Told]]] = {
    "runmedic": runmedic,
    "losslint": losslint,
    "trainspotter": trainspotter,
    "finetune-doctor": finetune_doctor,
    "gradsnitch": gradsnitch,
    "trainproof": trainproof,
}


def judge(folder: Path, part: str) -> dict[str, list[Judged]]:
    """What each peer says of every run."""
    found: dict[str, list[Judged]] = {name: [] for name in PEERS}
    warnings.filterwarnings("ignore")
    for path in sorted(folder.glob("*/truth.json")):
        truth: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if truth["part"] != part:
            continue
        log = log_of(path.parent)
        with tempfile.TemporaryDirectory() as temporary:
            rows = rows_of(log, truth["logger"])
            table, state = Path(temporary) / "run.csv", Path(temporary) / "trainer_state.json"
            write_csv(rows, table)
            write_state(rows, state)
            own = {"trimtab": table, "huggingface": log / "trainer_state.json", "lightning": log / "metrics.csv"}
            for name, ask in PEERS.items():
                given = own.get(truth["logger"], log)
                if name == "finetune-doctor" and truth["logger"] != "huggingface":
                    given = state
                if name == "gradsnitch":
                    given = table
                said, error = (), ""
                try:
                    said = _in_our_words(name, ask(given), truth["code"])
                except Exception as problem:  # a peer that fails has said nothing
                    error = f"{type(problem).__name__}: {problem}"
                found[name].append(
                    Judged(truth["name"], truth["logger"], truth["code"], truth["onset"], truth["steps"], said, error)
                )
    return found


def _in_our_words(peer: str, told: Told, truth: str) -> tuple[Said, ...]:
    """Gravest first; a check is taken for the planted fault where it may mean that."""
    order = ("error", "warning", "info")
    said = []
    for check, severity, step in sorted(told, key=lambda one: order.index(one[1])):
        codes = MEANS[peer].get(check, (check,))
        said.append(Said(truth if truth in codes else codes[0], severity, math.nan, step))
    return tuple(said)


def table(found: Mapping[str, list[Judged]]) -> str:
    """A row for each peer, in Markdown, and one for the best of all of them together."""
    lines = [
        "| | planted fault first | anywhere | healthy runs with a warning or worse | logs not read |",
        "|---|---|---|---|---|",
    ]
    for name, judged in found.items():
        figures = scores(judged)
        lines.append(f"| {name} | {figures.first} | {figures.found} | {figures.false_alarms} | {figures.unread} |")
    faulty = np.array([[one.is_first for one in judged if one.is_faulty] for judged in found.values()])
    if faulty.size:
        share = faulty.any(0)
        lines.append(f"| any of them | {int(share.sum())} of {share.size} | | | |")
    return "\n".join(lines)
