"""What an Adjust of each name does in a run, and which have nothing to act on there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, final

from torch import nn

from trimtab.config import ADJUSTABLE, Budget, Config, CrossEntropyConfig
from trimtab.events import Adjust
from trimtab.model import count_dropout_sites, set_dropout_factor
from trimtab.objective import BinaryCrossEntropy, CrossEntropy, Objective
from trimtab.schedules import Schedule, Stairs, build_schedule, build_stairs
from trimtab.training.progress import Progress

ALWAYS_ONE: Final = Stairs((1,), ())


@final
class Adjustments:
    """Carries out adjustments, and keeps their factors in `progress`.

    `actions` are what else is to be done with a new factor or value, by name: what the loop reads in every step
    needs nothing. `without_target` says of a name why it changes nothing in this run. `dropout` is the schedule of
    every rate of dropout, `multiples` that of the accumulation. A batch is rounded up to whole micro-batches, but not
    beyond `largest_batch` sequences.
    """

    def __init__(
        self,
        progress: Progress,
        actions: Mapping[str, Callable[[float], object]],
        without_target: Mapping[str, str],
        *,
        dropout: Schedule | None = None,
        multiples: Stairs = ALWAYS_ONE,
        largest_batch: int | None = None,
    ) -> None:
        self._progress, self._actions, self._without_target = progress, dict(actions), dict(without_target)
        self._dropout, self._multiples, self._largest_batch = dropout, multiples, largest_batch
        self._scheduled: dict[str, float] = {}

    def why_not(self, name: str) -> str:
        """Why adjusting `name` would change nothing here; "" when it would."""
        if name == "optimizer" and self._progress.optimizer:
            return "it has taken over already"
        if name == "batch_size" and self._largest_batch is not None:
            more = (self._progress.accumulation + 1) * self._progress.micro_batch_size
            if more > self._largest_batch:
                return f"one more micro-batch would be {more} sequences, above batch_control.most {self._largest_batch}"
        return self._without_target.get(name, "")

    def take(self, controller: str, decision: Adjust) -> None:
        """Do what `controller` decided."""
        if ADJUSTABLE[decision.name].kind == "structure":
            self._act(decision.name, decision.value)
        else:
            self._progress.factors.setdefault(decision.name, {})[controller] = decision.value
            self._act(decision.name, self._value(decision.name))

    def begin(self, step: int) -> int:
        """Set what the schedules say of the next step, after `step` are done; gives its micro-batches."""
        if self._dropout is not None and self._scheduled.get("dropout") != (factor := self._dropout.factor(step)):
            self._scheduled["dropout"] = factor
            self._act("dropout", self._value("dropout"))
        return self._progress.accumulation * self._multiples.value(step)

    @property
    def most_micro_batches(self) -> int:
        """The most of a step, as planned."""
        return self._progress.accumulation * max(self._multiples.values)

    def restore(self) -> None:
        """Do again what the factors in `progress` say, after a resume."""
        for name in self._progress.factors:
            self._act(name, self._value(name))

    def _value(self, name: str) -> float:
        return self._scheduled.get(name, 1.0) * self._progress.factor(name)

    def _act(self, name: str, value: float) -> None:
        if name == "accumulation":
            self._progress.accumulation = round(value)
        elif name == "batch_size":
            parts = math.ceil(value / self._progress.micro_batch_size)
            if self._largest_batch is not None:
                within = self._largest_batch // self._progress.micro_batch_size
                parts = max(self._progress.accumulation, min(parts, within))
            self._progress.accumulation = parts
        elif name in ("optimizer", "unfreeze"):
            self._progress.optimizer = max(self._progress.optimizer, round(value))
            self._actions["optimizer"](self._progress.optimizer)
        elif name in self._actions:
            self._actions[name](value)


def build_adjustments(
    config: Config,
    model: nn.Module,
    objective: Objective,
    progress: Progress,
    budget: Budget | int,
    use_optimizer: Callable[[int], None],
) -> Adjustments:
    """What may be adjusted in the run that `config` describes; other settings the loop reads in every step."""
    dropout = config.dropout_schedule
    has_z_loss = isinstance(config.objective, CrossEntropyConfig) and config.objective.z_loss > 0.0
    actions: dict[str, Callable[[float], object]] = {
        "dropout": lambda factor: set_dropout_factor(model, factor),
        "optimizer": lambda value: use_optimizer(round(value)),
    }
    if isinstance(objective, CrossEntropy):
        actions["z_loss"] = objective.z_factor.fill_
    if has_smoothing := isinstance(objective, CrossEntropy | BinaryCrossEntropy) and objective.label_smoothing > 0.0:
        actions["label_smoothing"] = objective.set_smoothing_factor
    absent = {
        "dropout": (count_dropout_sites(model) == 0, "the model has no dropout"),
        "label_smoothing": (not has_smoothing, "no label is smoothed"),
        "z_loss": (not has_z_loss, "objective.z_loss is 0"),
        "weight_decay": (not any(one.weight_decay for one in config.optimizers), "optimizer.weight_decay is 0"),
        "optimizer": (config.optimizer_switch is None, "there is no optimizer_switch"),
        "unfreeze": (not config.model.unfreeze, "model.unfreeze is empty"),
        "clip_threshold": (config.gradients.clip.name == "none", "gradients are not clipped"),
    }
    return Adjustments(
        progress,
        actions,
        {name: f"without effect in this run: {why}" for name, (is_absent, why) in absent.items() if is_absent},
        dropout=None if dropout is None else build_schedule(dropout, budget),
        multiples=build_stairs(config.training.accumulation_schedule, budget),
        largest_batch=config.largest_batch,
    )
