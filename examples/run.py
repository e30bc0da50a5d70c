"""How every example runs: rows on disk, a configuration, a trainer, and what guessing would reach."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rows import Row, write_rows

from trimtab import Trainer, load_config
from trimtab.monitor.sinks.console import Console
from trimtab.signals import IGNORED


@dataclass(frozen=True)
class Outcome:
    """What an example came to."""

    metrics: Mapping[str, float]
    """Of the best checkpoint, without `validation/`."""
    guess: float
    """The accuracy of always giving the most frequent answer; 0 of numbers, where R² is 0 for their mean; of pairs the
    chance of the right one."""
    trainer: Trainer


def run(
    name: str,
    settings: Mapping[str, Any],
    *,
    rows_of: Callable[[Path], Iterable[Row]] | None = None,
    sources: Iterable[Path] = (),
    quiet: bool = False,
) -> Outcome:
    """Train `settings` over the preset encoder-1m on rows of `sources`, in runs/<name>, which is made anew.

    `quiet` keeps everything in a temporary folder and says nothing.
    """
    folder = Path(tempfile.mkdtemp(prefix=name)) if quiet else Path("runs", name)
    shutil.rmtree(folder, ignore_errors=True)
    values = dict(settings)
    if rows_of is not None:
        training, validation = write_rows(folder / "rows", rows_of, sources)
        values["data.source"] = f"{{name: jsonl, path: {training}}}"
        values["data.validation_source"] = f"{{name: jsonl, path: {validation}}}"
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
    outcome = Outcome(found, most_frequent(trainer), trainer)
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
