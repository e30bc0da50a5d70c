"""All that a rule may look at: what was measured, what was configured, and what was known before step 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trimtab.doctor.finding import Target
from trimtab.doctor.reading.once import once
from trimtab.runs.counted import counted_in, counts_every_token
from trimtab.runs.history import History, Series


@dataclass(frozen=True, slots=True)
class Case:
    """One run, or the part of it up to now, as it is: another one is made of a history that has grown. Rules are pure
    functions of it."""

    history: History
    config: Mapping[str, Any] = field(default_factory=dict)
    """Dotted setting to value, as `flatten` gives it; empty for a run of another trainer."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What facts.json holds; empty where nothing is known."""
    target: Target = "trimtab"
    """Whose words remedies are put in."""
    derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `once` has read off it."""

    def loss(self) -> Series | None:
        """The training loss."""
        return self.history.get("train/loss")

    def validation_loss(self) -> Series | None:
        """The loss on the main validation set, as `evaluated` gives it."""
        return self.evaluated("validation/loss")

    @once
    def evaluated(self, metric: str) -> Series | None:
        """What evaluations measured: of the plain weights, or of their average where only that is judged.

        Until such an average begins the plain weights stand in for it, and theirs is then the first part.
        """
        plain, averaged = self.history.get(metric), self.history.get(f"{metric}@{self.setting('averaging.name')}")
        if averaged is None or (plain is not None and self.setting("averaging.evaluate") != "average"):
            return plain
        if plain is None:
            return averaged
        joined, before = Series(), plain.steps < averaged.first_steps[0]
        joined.append(plain.steps[before], plain.mean[before])
        joined.append(averaged.steps, averaged.mean)
        return joined

    @property
    def selected(self) -> str:
        """The kind of the weights that checkpoints are chosen by, '' for plain ones, where they were judged."""
        kind = str(self.setting("checkpoint.metric") or "").partition("@")[2]
        return kind if self.history.has(f"validation/loss@{kind}") else ""

    def setting(self, name: str) -> Any:
        """The value of a setting, or None where it is not known."""
        return self.config.get(name)

    def fact(self, *path: str) -> Any:
        """A fact by its path, or None where it is not known."""
        value: Any = self.facts
        for key in path:
            if value is None:
                return None
            value = value.get(key) if type(value) is dict or isinstance(value, Mapping) else None
        return value

    def number(self, *path: str) -> float | None:
        """A fact that is a number, or None."""
        value = self.fact(*path)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    @once
    def epochs(self) -> float:
        """How often the data was seen; 0 where that is not known."""
        tokens = self.history.get("tokens")
        key = {"texts": "sequences_per_epoch"}.get(counted_in(self.facts))
        if key is None and counts_every_token(self.facts):
            key = "tokens_per_epoch"
        if tokens is not None and key is not None:
            per_epoch = self.number(key)
            return float(tokens.columns.total.sum()) / per_epoch if per_epoch else 0.0
        planned = self.number("epochs") or 0.0
        return planned * self.history.last_step / self.planned_steps if self.planned_steps else 0.0

    @property
    def counts_epochs(self) -> bool:
        """Whether a step of the record is an epoch, as in logs that have a row for each: then the first loss is a mean
        over all samples while they were learned, and no evaluation comes before they were seen."""
        epochs = self.number("epochs")
        return self.target != "trimtab" and epochs is not None and epochs >= 0.9 * self.history.last_step > 0

    @property
    def planned_steps(self) -> int:
        """Steps of the whole run where that is known, else those that were seen."""
        return self.history.total_steps or self.history.last_step
