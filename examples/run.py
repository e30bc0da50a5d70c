"""How every example runs: rows on disk, a configuration, a trainer, and what guessing would reach."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from baselines import Kind, tf_idf
from rows import Row, Source, write_rows

from trimtab import Trainer, load_config
from trimtab.monitor.sinks.console import Console
from trimtab.signals import IGNORED


class SkippedError(Exception):
    """An example cannot run here; the message says what it needs."""


@dataclass(frozen=True)
class Outcome:
    """What an example came to."""

    name: str
    figure: str
    """The metric that its table shows."""
    metrics: Mapping[str, float]
    """Of the best checkpoint, without `validation/`."""
    guess: float
    """The accuracy of always giving the most frequent answer; 0 of numbers, where R² is 0 for their mean; of pairs the
    chance of the right one."""
    trainer: Trainer
    rows: tuple[Path, Path] | None = None
    """For training and validation."""
    baseline: Kind | None = None
    """How a linear model over words judges the same rows."""
    more: dict[str, float] = field(default_factory=dict)
    """What was measured after training."""

    @property
    def value(self) -> float:
        """The figure."""
        return self.more[self.figure] if self.figure in self.more else self.metrics[self.figure]


def run(
    name: str,
    settings: Mapping[str, Any],
    *,
    figure: str = "accuracy",
    baseline: Kind | None = None,
    rows_of: Callable[[Source], Iterable[Row]] | None = None,
    sources: Iterable[Source] = (),
    quiet: bool = False,
) -> Outcome:
    """Train `settings` over the preset encoder-1m on rows of `sources`, in runs/<name>, which is made anew.

    `quiet` keeps everything in a temporary folder and says nothing.
    """
    folder = Path(tempfile.mkdtemp(prefix=name)) if quiet else Path("runs", name)
    shutil.rmtree(folder, ignore_errors=True)
    values, rows = dict(settings), None
    if rows_of is not None:
        rows = write_rows(folder / "rows", rows_of, sources)
        values["data.source"] = f"{{name: jsonl, path: {rows[0]}}}"
        values["data.validation_source"] = f"{{name: jsonl, path: {rows[1]}}}"
    config = load_config("encoder-1m", [f"name={name}", *(f"{key}={value}" for key, value in values.items())])
    console = None if quiet else Console(sys.stdout, config.training.steps)
    trainer = Trainer(
        config,
        run=folder / "run",
        monitors=[] if console is None else [console],
        report=None if console is None else console.preparing,
    )
    try:
        metrics = trainer.fit().metrics
    finally:
        if console is not None:
            console.close()
    found = {key.removeprefix("validation/"): value for key, value in metrics.items()}
    outcome = Outcome(name, figure, found, most_frequent(trainer), trainer, rows, baseline)
    if not quiet:
        told = ", ".join(f"{key} {value:.3f}" for key, value in found.items() if "/" not in key)
        print(f"{name}: {told}; the most frequent answer has accuracy {outcome.guess:.3f}")
    return outcome


def most_frequent(trainer: Trainer) -> float:
    """The part of the validation targets that the most frequent answer gets right; of labels, label by label; of pairs,
    any one of those that are judged together."""
    if trainer.config.task.name == "contrastive":
        return 1.0 / (trainer.config.evaluation.batch_size or trainer.config.evaluation_batch_size)
    validation = trainer.trained()[1].validation
    targets = validation.batch(np.arange(len(validation))).targets.numpy()
    if targets.dtype == np.float32:
        return float(np.maximum(targets.mean(0), 1 - targets.mean(0)).mean()) if targets.ndim == 2 else 0.0
    counts = np.bincount(targets[targets != IGNORED])
    return float(counts.max() / counts.sum())


def command(main: Callable[..., Outcome], arguments: list[str] | None = None) -> None:
    """Run an example from the command line: `[--short] [--json]`.

    With --json the last line on standard output is its result as one object, and all else goes to standard error.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if unknown := set(given) - {"--short", "--json"}:
        sys.exit(f"an example takes --short and --json. Received: {' '.join(sorted(unknown))}")
    as_json, begun = "--json" in given, time.perf_counter()
    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            outcome = main(short="--short" in given)
    except SkippedError as reason:
        print(json.dumps({"skipped": str(reason)}) if as_json else f"skipped: {reason}")
        return
    if as_json:
        print(json.dumps(told(outcome, "short" if "--short" in given else "long", time.perf_counter() - begun)))


def told(outcome: Outcome, form: Literal["short", "long"], seconds: float) -> dict[str, Any]:
    """An outcome for a table, with what a linear model over words reaches on the same rows, where there is one."""
    device = next(outcome.trainer.trained()[0].parameters()).device
    baseline, note = None, ""
    if outcome.baseline is not None and outcome.rows is not None:
        try:
            baseline = tf_idf(outcome.baseline, *outcome.rows)
        except ImportError:
            note = "needs scikit-learn"
    return {
        "name": outcome.name,
        "form": form,
        "figure": outcome.figure,
        "value": outcome.value,
        "guess": outcome.guess,
        "tf_idf": baseline,
        "tf_idf_note": note,
        "seconds": seconds,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "metrics": {**outcome.metrics, **outcome.more},
    }
