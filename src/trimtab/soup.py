"""The mean of several checkpoints' weights, as a run of its own.

Source: Wortsman et al. 2022, arXiv 2203.05482, "Model soups": the equal mean, and the greedy one (recipe 1).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from trimtab.config import Config, ControlConfig, NoAveraging, PatienceStopping, dump_config, effective, flatten
from trimtab.data import prepare_data
from trimtab.errors import CheckpointError, UsageError
from trimtab.evaluation import Evaluation, batch_norm_buffers
from trimtab.events import CheckpointSaved, EvaluationEnded, RunEnded, RunStarted
from trimtab.runs import Recorder, RunDirectory
from trimtab.runs.checkpoints import best_ones, step_folder
from trimtab.runs.drift import drift, refuse_drift
from trimtab.runs.environment import environment
from trimtab.runs.files import write_json
from trimtab.runs.files import write_text as write_file
from trimtab.runs.metrics import selection_direction
from trimtab.runs.start import outermost_missing, undone_on_failure
from trimtab.training.checkpoint import Snapshot, load_model, write_snapshot
from trimtab.training.checkpoint.model_state import model_tensors
from trimtab.training.judging import build_evaluation
from trimtab.training.trained import Chosen, choose, choose_at, is_checkpoint

Report = Callable[[str, float], None]
"""Told what is being done, and how much of it is (0 to 1)."""

BATCH_NORM_BATCHES: Final = 100
"""Of training data, for the statistics of BatchNorm under a mean of weights."""
_SHAPES: Final = ("model.", "task.", "training.quantize.")
_APART: Final = ("model.dropout.", "model.initialization.", "training.quantize.start")
"""Of a model, what leaves no trace in its shape and in how it is judged."""


@dataclass(frozen=True, slots=True)
class Ingredient:
    """One checkpoint, as it was judged here."""

    name: str
    step: int
    weights: str
    value: float
    """Of the metric that checkpoints of the first run are chosen by."""
    is_in: bool
    """Whether the soup has it."""

    def __str__(self) -> str:
        return f"{self.name}, step {self.step}, {self.weights} weights"


@dataclass(frozen=True, slots=True)
class Soup:
    """What came of it."""

    run: Path
    metric: str
    value: float
    metrics: Mapping[str, float]
    ingredients: tuple[Ingredient, ...]
    """In the order in which they were given."""

    @property
    def num_in(self) -> int:
        """How many are in it."""
        return sum(one.is_in for one in self.ingredients)

    @property
    def gain(self) -> float:
        """By how much it is better than its best ingredient; below 0 it is worse."""
        sign = -1.0 if selection_direction(self.metric) == "higher" else 1.0
        return min(sign * one.value for one in self.ingredients) - sign * self.value

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        ingredients = [
            {"run": one.name, "step": one.step, "weights": one.weights, "value": one.value, "is_in": one.is_in}
            for one in self.ingredients
        ]
        told = {"run": str(self.run), "metric": self.metric, "value": self.value, "gain": self.gain}
        return told | {"metrics": dict(self.metrics), "ingredients": ingredients}


def cook(
    paths: Sequence[Path],
    out: Path,
    *,
    greedy: bool = False,
    weights: str | None = None,
    top: int | None = None,
    report: Report | None = None,
) -> Soup:
    """Average the weights at `paths`, judge them, and write the mean to `out`, as a run that is finished.

    A path is a checkpoint, or a run, of which the best one is taken, or the `top` best ones; `weights` as in
    `open_trained`. The mean is equal, or greedy: the best checkpoint, and of the others, the better first, each that
    does not make it worse on the validation set. All are judged on the data of the first.

    Raises: UsageError for what cannot be averaged, and for an `out` that is not empty; CheckpointError.
    """
    chosen = [one for path in paths for one in _chosen(path, weights, top)]
    refuse_unlike(chosen)
    first, made = chosen[0], outermost_missing(out)
    run = RunDirectory.create_at(out)
    with undone_on_failure(run, made or run.path):
        told = report or (lambda what, fraction: None)
        data = prepare_data(first.config.data, first.config.task, seed=first.config.seed, progress=told)
        refuse_drift(drift({"data.fingerprint": first.fingerprint}, {"data.fingerprint": data.fingerprint}))
        config = plainly(first.config)
        model = first.build()
        judge = _Judge(model, build_evaluation(config, model, data), config.checkpoint.metric, told)
        judged = [judge.metrics(one.tensors(), renews=False) for one in chosen]
        values = [metrics[judge.metric] for metrics in judged]
        if greedy:
            names, mean, metrics = _greedy(chosen, values, judged, judge)
        else:
            names, mean = set(range(len(chosen))), _Sum()
            for one in chosen:
                mean.add(one.tensors())
            metrics = judge.metrics(mean.mean(), renews=True)
        ingredients = tuple(
            Ingredient(str(one.run.path), one.checkpoint.step, one.weights, value, index in names)
            for index, (one, value) in enumerate(zip(chosen, values, strict=True))
        )
        soup = Soup(run.path, judge.metric, metrics[judge.metric], metrics, ingredients)
        _write(run, config, first, model, soup)
    return soup


def refuse_unlike(chosen: Sequence[Chosen]) -> None:
    """Raises: UsageError unless all are different weights of one architecture, tokenizer and data."""
    if len(chosen) < 2:
        raise UsageError("a soup needs two checkpoints at least", hint="name several, or several runs")
    first, places = chosen[0], [(one.checkpoint.path.resolve(), one.weights) for one in chosen]
    for index, (path, weights) in enumerate(places):
        if (path, weights) in places[:index]:
            raise UsageError(f"{path}: its {weights} weights are named twice", hint="each counts once")
    for other in chosen[1:]:
        if differences := list(_differences(first, other)):
            raise UsageError(
                f"{first.checkpoint.path} and {other.checkpoint.path} cannot be averaged:"
                + "".join(f"\n  {difference}" for difference in differences),
                hint="a mean has a meaning only for the same model on the same data",
            )


def _differences(first: Chosen, other: Chosen) -> Iterable[str]:
    one, two = (flatten(chosen.config) for chosen in (first, other))
    for key in dict.fromkeys([*one, *two]):
        counts = (key.startswith(_SHAPES) and not key.startswith(_APART)) or key == "data.sequence_length"
        if counts and one.get(key) != two.get(key):
            yield f"{key}: {one.get(key)!r} and {two.get(key)!r}"
    if first.tokenizer.fingerprint != other.tokenizer.fingerprint:
        sizes = [chosen.tokenizer.vocabulary_size for chosen in (first, other)]
        yield f"the tokenizers are others, of {sizes[0]:,} and {sizes[1]:,} tokens"
    elif one["data.sequence_length"] == two["data.sequence_length"] and first.fingerprint != other.fingerprint:
        yield "the data is other data: what one was trained on, the other may be judged on"


class _Sum:
    """Weights added up in fp64, and how many; what is no floating-point number must be the same in all."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, Tensor] = {}
        self._first: dict[str, Tensor] = {}

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises: CheckpointError for other names or shapes, and for state that cannot be averaged."""
        if not self.count:
            self._first = dict(tensors)
        unlike = sorted(self._first.keys() ^ tensors.keys())
        unlike += [
            name for name, first in self._first.items() if name in tensors and first.shape != tensors[name].shape
        ]
        if unlike:
            raise CheckpointError(f"the checkpoints hold other tensors, or of other shapes: {', '.join(unlike[:5])}")
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                self._sums[name] = self._sums[name] + tensor if name in self._sums else tensor.double()
            elif not name.endswith(".num_batches_tracked") and not torch.equal(tensor, self._first[name]):
                raise CheckpointError(f"{name} is no weight, differs between the checkpoints, and has no mean")
        self.count += 1

    def copy(self) -> _Sum:
        """Another, which has the same in it."""
        other = _Sum()
        other.count, other._sums, other._first = self.count, dict(self._sums), self._first
        return other

    def mean(self) -> dict[str, Tensor]:
        """In the precision of the first."""
        means = {name: (total / self.count).to(self._first[name].dtype) for name, total in self._sums.items()}
        return self._first | means


class _Judge:
    """Judges tensors in one model."""

    def __init__(self, model: nn.Module, evaluation: Evaluation, metric: str, report: Report) -> None:
        self._model, self._evaluation, self.metric, self._report = model, evaluation, metric, report

    def hold(self, tensors: Mapping[str, Tensor], *, renews: bool) -> None:
        """Put `tensors` into the model; with `renews` make the statistics of BatchNorm anew for them."""
        load_model(self._model, tensors)
        if renews and batch_norm_buffers(self._model):
            self._evaluation.renew_batch_norm(BATCH_NORM_BATCHES)

    def metrics(self, tensors: Mapping[str, Tensor], *, renews: bool) -> dict[str, float]:
        """Those of `tensors`, which the model then holds."""
        self.hold(tensors, renews=renews)
        return self._evaluation.metrics(self._report)


def _greedy(
    chosen: Sequence[Chosen], values: Sequence[float], judged: Sequence[Mapping[str, float]], judge: _Judge
) -> tuple[set[int], _Sum, dict[str, float]]:
    """Which are in it, their sum, and its metrics; the model then holds their mean."""
    sign = -1.0 if selection_direction(judge.metric) == "higher" else 1.0
    order = sorted(range(len(chosen)), key=lambda index: (math.isnan(values[index]), sign * values[index], index))
    best, taken = order[0], _Sum()
    taken.add(chosen[best].tensors())
    names, metrics = {best}, dict(judged[best])
    for index in order[1:]:
        candidate = taken.copy()
        candidate.add(chosen[index].tensors())
        found = judge.metrics(candidate.mean(), renews=True)
        if sign * found[judge.metric] <= sign * metrics[judge.metric]:
            names, taken, metrics = names | {index}, candidate, found
    judge.hold(taken.mean(), renews=taken.count > 1)
    return names, taken, metrics


def plainly(config: Config) -> Config:
    """`config` for weights that are no longer trained: no averages, nothing that steers, chosen by the plain metric."""
    plain = config.checkpoint.metric.partition("@")[0]
    changes: dict[str, Any] = {
        "averaging": NoAveraging(),
        "control": ControlConfig(),
        "optimizer_switch": None,
        "checkpoint": config.checkpoint.model_copy(update={"metric": plain}),
    }
    if isinstance(config.stopping, PatienceStopping):
        metric = config.stopping.metric.partition("@")[0]
        changes["stopping"] = config.stopping.model_copy(update={"metric": metric})
    return config.model_copy(update=changes)


def _write(run: RunDirectory, config: Config, first: Chosen, model: nn.Module, soup: Soup) -> None:
    """A run directory with one checkpoint: what `evaluate`, `generate`, `show` and `verify` ask for."""
    step = max(one.step for one in soup.ingredients)
    kept = [str(one) for one in soup.ingredients if one.is_in]
    reason = f"soup of {len(kept)}: {'; '.join(kept)}"
    identity = first.facts["identity"] | {f"config.{name}": value for name, value in effective(config).items()}
    facts = dict(first.facts) | {"identity": identity, "soup": soup.to_json()}
    write_file(run.config, dump_config(config))
    write_json(run.environment, environment(seed=config.seed, source="config"))
    write_json(run.facts, facts)
    run.artifacts.mkdir()
    first.tokenizer.save(run.artifacts / "tokenizer.json")
    begun = time.perf_counter()
    tensors = {f"model/{name}": tensor.detach().cpu().contiguous() for name, tensor in model_tensors(model).items()}
    folder = run.checkpoints / step_folder(step)
    description = {"step": step, "branch": 0, "reason": reason, "metrics": dict(soup.metrics)}
    size = write_snapshot(
        Snapshot(tensors, {"soup": soup.to_json()}),
        folder.with_name(f".tmp-{folder.name}"),
        folder,
        description | {"seed": config.seed},
    )
    seconds = time.perf_counter() - begun
    recorder = Recorder.open(run)
    try:
        recorder.record(RunStarted(step, 1, 0, None, step, {}))
        recorder.record(EvaluationEnded(step, soup.metrics, 0.0))
        recorder.record(CheckpointSaved(step, str(folder.relative_to(run.path)), size, seconds, "soup"))
        recorder.record(RunEnded(step, "finished", reason, step, soup.value, None, 0.0, {}))
        recorder.sync()
    finally:
        recorder.close()


def _chosen(path: Path, weights: str | None, top: int | None) -> list[Chosen]:
    """Of a checkpoint, or of the best ones of a run."""
    if top is None or is_checkpoint(path):
        return [choose_at(path, "best", weights)]
    best = choose(path, "best", weights)  # says what is wrong with a run that has none
    metric = best.config.checkpoint.metric
    found = best_ones(path, metric, selection_direction(metric), top)
    if len(found) < top:
        raise UsageError(
            f"--top: {path} keeps {len(found)} checkpoints with {metric}. Received: {top}",
            hint="checkpoint.keep_best is how many of the best are saved and kept",
        )
    return [choose(path, str(info.step), weights) for info in found]
