"""What an evaluation is compared with: the run's own best one so far, or another run's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from torch import Tensor

from trimtab.config import BaselineConfig, BestBaseline, RunBaseline, load_config
from trimtab.errors import UsageError
from trimtab.evaluation.sample_losses import paired_bootstrap
from trimtab.runs import RunDirectory
from trimtab.runs.checkpoints import list_checkpoints, ranked
from trimtab.runs.files import read_json, write_json
from trimtab.runs.metrics import selection_direction

_FOLDER: Final = "validation-losses"
_DIGITS: Final = 9
_OTHER: Final = (
    "evaluation.baseline.path: {path} was judged on other texts or targets, by another loss, or with another tokenizer "
    "or sequence length: losses of other samples cannot be compared one by one"
)
_SAME: Final = (
    "give both the same data, tokenizer, kind of objective, data.sequence_length, evaluation.max_tokens and stride; "
    "with task masked_lm the same seed and task.mask_rate, too"
)


def write_losses(run: RunDirectory, step: int, judged_on: str, sums_2M: Tensor, of_set: str = "") -> Path:
    """Keep what `SampleLosses.take` gave at `step`, of a further set where it has a name.

    `judged_on` tells apart what cannot be compared. Raises: StorageError.
    """
    folder = run.artifacts / _FOLDER / of_set
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.json"
    losses, counts = sums_2M.tolist()
    content = {
        "step": step,
        "judged_on": judged_on,
        "loss": sum(losses) / sum(counts),
        "losses": [float(f"{loss:.{_DIGITS}g}") for loss in losses],
        "counts": [int(count) for count in counts],
    }
    write_json(path, content)
    return path


def read_losses(run: RunDirectory, before: int | None = None, of_set: str = "") -> list[dict[str, Any]]:
    """What was kept, of steps below `before`, in their order."""
    found = sorted((run.artifacts / _FOLDER / of_set).glob("step-*.json"))
    steps = [(int(path.stem.removeprefix("step-")), path) for path in found]
    return [read_json(path) for step, path in steps if before is None or step < before]


def forget_losses(run: RunDirectory, after: int) -> None:
    """Remove what was kept of steps after `after`, to which the run went back: nothing of it may be compared with."""
    for path in (run.artifacts / _FOLDER).rglob("step-*.json"):
        if int(path.stem.removeprefix("step-")) > after:
            path.unlink(missing_ok=True)


@final
class Baseline:
    """Compares the losses of each evaluation of `run` with those of the baseline that `config` names.

    Of the main set, or of a further one by its name, for which the run's own best is that of this set, and another run
    that has kept nothing of it is no baseline. What the run's own evaluations were compared with is in its artifacts,
    by step, so that a run that goes on compares with what it compared with before.
    """

    def __init__(self, config: BaselineConfig, run: RunDirectory, judged_on: str, of_set: str = "") -> None:
        """Raises: UsageError where another run has no losses, or those of other texts."""
        self._config, self._run, self._judged_on, self._set = config, run, judged_on, of_set
        self._other = self._of_run(config) if isinstance(config, RunBaseline) else None

    def compare(self, step: int, sums_2M: Tensor) -> dict[str, float]:
        """`loss_over_baseline` and `loss_over_baseline_low`, the lower end of its interval, where there is a baseline.

        Raises: StorageError; UsageError where another run's losses are of other numbers of targets.
        """
        losses_M, counts_M = sums_2M.numpy()
        loss, other = float(losses_M.sum() / counts_M.sum()), self._other
        if isinstance(self._config, BestBaseline):
            earlier = [
                one
                for one in read_losses(self._run, step, self._set)
                if one["judged_on"] == self._judged_on and one["counts"] == counts_M.tolist()
            ]
            other = min(earlier, key=lambda one: float(one["loss"]), default=None)
        elif other is not None and other["counts"] != counts_M.tolist():
            raise UsageError(_OTHER.format(path=getattr(self._config, "path", "")) + self._of_set, hint=_SAME)
        if np.isfinite(loss) and (other is None or loss < other["loss"] or isinstance(self._config, RunBaseline)):
            write_losses(self._run, step, self._judged_on, sums_2M, self._set)
        if other is None or not np.isfinite(losses_M).all():
            return {}
        found = paired_bootstrap(losses_M, np.array(other["losses"]), counts_M)
        return {"loss_over_baseline": found.mean, "loss_over_baseline_low": found.low}

    @property
    def _of_set(self) -> str:
        return f" (evaluation.sets.{self._set})" if self._set else ""

    def _of_run(self, config: RunBaseline) -> dict[str, Any] | None:
        other = RunDirectory.open(Path(config.path))
        kept = {one["step"]: one for one in read_losses(other, of_set=self._set)}
        hint = f"`trimtab evaluate {config.path} --details` judges it"
        if not kept and self._set:
            return None
        if not kept:
            raise UsageError(f"evaluation.baseline.path: {config.path} has kept no losses to compare with", hint=hint)
        metric = load_config(other.config, environment={}).checkpoint.metric
        in_order = ranked(list_checkpoints(other.path), metric, selection_direction(metric))
        best = [info.step for info in in_order if info.step in kept]
        chosen = kept[best[0]] if best else min(kept.values(), key=lambda one: float(one["loss"]))
        if chosen["judged_on"] != self._judged_on:
            raise UsageError(_OTHER.format(path=config.path) + self._of_set, hint=_SAME)
        return chosen


def judged_on(
    facts: Mapping[str, Any],
    sequence_length: int,
    max_tokens: int | None,
    stride: int | None,
    measured: Sequence[Any] = (),
) -> str:
    """What tells apart sets whose losses cannot be compared sample by sample; `measured`, JSON values, says which loss
    is taken, and what is drawn."""
    asked = facts.get("targets", {})
    parts = [
        facts["validation"]["sha256"],
        facts["tokenizer"]["fingerprint"],
        [asked.get(name) for name in ("classes", "mean", "deviation")],
        sequence_length,
        max_tokens,
        stride,
        facts.get("validation_target_sha256"),
        list(measured),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
