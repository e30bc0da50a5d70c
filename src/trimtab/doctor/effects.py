"""What settings did to the outcome over the runs of a project, with intervals, and what was not kept apart.

An effect is *controlled* when it comes from runs that are equal in every other setting that acts on the weights, but
for the seed: within each group of such runs the outcome is held against the setting (least squares with a level for
each group), so that no other setting that was written down can be the reason. Where there are no such runs it comes
from all of them, and says which settings changed along with it. Runs are not drawn at random: what nobody wrote down
may still be the reason.
Source: own; within-group least squares as in Wooldridge 2010, Econometric Analysis, section 10.5.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.acts_on import DEFINES_LOSS, acts_on, loss_of
from trimtab.doctor.load import settings_of
from trimtab.errors import TrimtabError
from trimtab.runs.directory import RunDirectory
from trimtab.runs.leaked import MANY, leaked_share
from trimtab.runs.metrics import selection_direction
from trimtab.runs.summary import list_summaries

TOGETHER: Final = 0.3
"""Correlation from which a setting counts as changed along with another."""
FEWEST: Final = 3
"""Runs below which nothing is said."""
DOUBLES: Final = 1.5
"""Positive numbers whose largest is so many times their least are taken by doublings."""
_T: Final = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""97.5 % quantiles of Student's t with 1 to 30 degrees of freedom."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """One run as a row: its settings, and what it came to."""

    name: str
    settings: Mapping[str, Any]
    metric: str
    value: float
    judged_on: tuple[Any, ...]
    """Task, tokens and validation data, whether that was trained on: outcomes are compared where these are one."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change of one setting goes along with."""

    settings: tuple[str, ...]
    """More than one where they only ever changed together, so that no run tells them apart."""
    contrast: str
    """"each doubling", "adamw to lion", "0 to 0.1" …"""
    change: float
    """Of the outcome, in its own units."""
    low: float | None
    """95 % interval; None where too few runs tell of chance."""
    high: float | None
    num_runs: int
    controlled: bool
    beside: tuple[str, ...]
    """What changed along with it, the most first; () where it is controlled."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class Spread:
    """How runs differ that are equal but for the seed."""

    deviation: float
    """Standard deviation of one run."""
    num_runs: int
    freedom: int
    """Degrees of freedom of `deviation`."""


@dataclass(frozen=True, slots=True)
class Effects:
    """Those of all settings that differ, the clearest first."""

    metric: str
    better: str
    num_runs: int
    left_out: tuple[str, ...]
    """Runs that are judged otherwise, or not at all."""
    effects: tuple[Effect, ...]
    seeds: Spread | None
    """What chance does; None where no runs differ in their seed alone."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "schema": 1,
            "metric": self.metric,
            "better": self.better,
            "runs": self.num_runs,
            "left_out": list(self.left_out),
            "seed_deviation": None if self.seeds is None else self.seeds.deviation,
            "seed_runs": 0 if self.seeds is None else self.seeds.num_runs,
            "effects": [
                {
                    "settings": list(one.settings),
                    "contrast": one.contrast,
                    "change": one.change,
                    "interval": None if one.low is None else [one.low, one.high],
                    "runs": one.num_runs,
                    "controlled": one.controlled,
                    "beside": list(one.beside),
                }
                for one in self.effects
            ],
        }


def outcomes_in(folder: Path) -> tuple[list[RunOutcome], list[str]]:
    """A row for each run in `folder` that came to its end, and the names of the others."""
    rows, others = [], []
    for summary in list_summaries(folder):
        best, name = summary["best"], str(summary["name"])
        facts: Mapping[str, Any] = {}
        with contextlib.suppress(TrimtabError):
            run = RunDirectory(Path(summary["run"]))
            facts = run.read_json(run.facts)
        settings = settings_of(facts)
        if best is None or not settings or summary["status"] not in ("finished", "stopped"):
            others.append(name)
            continue
        tokens, judged = facts.get("tokenizer"), facts.get("validation")
        made = facts.get("identity", {}).get("controllers"), facts.get("given")
        settings |= {f"facts.{key}": value for key, value in zip(("controllers", "given"), made, strict=True) if value}
        judged_on = (
            facts.get("task"),
            tokens.get("fingerprint") if isinstance(tokens, Mapping) else None,
            judged.get("sha256") if isinstance(judged, Mapping) else None,
            settings.get("evaluation.max_tokens"),
            leaked_share(facts, settings, least=MANY) is not None,
            *(_key(loss_of(key, settings.get(key))) for key in DEFINES_LOSS if "loss" in str(best["metric"])),
        )
        rows.append(RunOutcome(name, settings, str(best["metric"]), float(best["value"]), judged_on))
    return rows, others


def effects_of(rows: Sequence[RunOutcome], left_out: Sequence[str] = ()) -> Effects | None:
    """The effects over the largest group of rows that are judged alike; None when it has fewer than 3."""
    groups = Counter((row.metric, row.judged_on) for row in rows)
    if not groups or groups.most_common(1)[0][1] < FEWEST:
        return None
    kind = groups.most_common(1)[0][0]
    kept = [row for row in rows if (row.metric, row.judged_on) == kind]
    others = [*left_out, *(row.name for row in rows if (row.metric, row.judged_on) != kind)]
    varying = list(_varying(kept).values())
    found = [effect for keys in varying for effect in _effects(kept, keys, varying)]
    found.sort(key=lambda one: (not one.is_clear, not one.controlled, -abs(one.change)))
    better = selection_direction(kind[0])
    return Effects(kind[0], better, len(kept), tuple(others), tuple(found), seed_spread(kept))


def seed_spread(rows: Sequence[RunOutcome]) -> Spread | None:
    """Over all groups of runs that differ in nothing but the seed; None where there are none."""
    groups: dict[tuple[Any, ...], dict[Any, float]] = {}
    for row in rows:  # of runs with the same seed one, as they are the same
        groups.setdefault((row.metric, row.judged_on, _rest(row, ())), {})[row.settings.get("seed")] = row.value
    several = [np.array(list(values.values())) for values in groups.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return None
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in several)
    return Spread(math.sqrt(squares / freedom), sum(len(values) for values in several), freedom)


def quantile_of_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t; beyond 30 degrees of freedom by its expansion, to 0.001."""
    return _T[freedom - 1] if freedom <= len(_T) else 1.95996 + 2.3723 / freedom + 2.8225 / freedom**2


def effect_of(rows: Sequence[RunOutcome], setting: str, was: Any, now: Any) -> Effect | None:
    """The controlled effect of one setting between two values over `rows`; None where no runs tell of it."""
    kept = [row for row in rows if _key(row.settings.get(setting)) in (_key(was), _key(now))]
    return _controlled(kept, (setting,), was, now)


def _varying(rows: Sequence[RunOutcome]) -> dict[tuple[Any, ...], tuple[str, ...]]:
    """Settings that differ and act on the run; those that split the runs in the same way together."""
    found: dict[tuple[Any, ...], tuple[str, ...]] = {}
    for key in sorted({key for row in rows for key in row.settings if _counts(key)}):
        values = [_key(row.settings.get(key)) for row in rows]
        if len(set(values)) > 1:
            split = tuple(values.index(value) for value in values)
            found[split] = (*found.get(split, ()), key)
    return found


def _effects(
    rows: Sequence[RunOutcome], keys: tuple[str, ...], all_keys: Sequence[tuple[str, ...]]
) -> Iterator[Effect]:
    """By doublings or steps of a number; of other values each against the most frequent one."""
    values = [row.settings.get(keys[0]) for row in rows]
    if len({_key(value) for value in values}) > 2 and not all(map(_is_number, values)):
        usual = Counter(map(_key, values)).most_common(1)[0][0]
        was = next(value for value in values if _key(value) == usual)
        for now in dict.fromkeys(_key(value) for value in values if _key(value) != usual):
            some = [row for row in rows if _key(row.settings.get(keys[0])) in (usual, now)]
            value = next(value for value in values if _key(value) == now)
            if (effect := _controlled(some, keys, was, value) or _of_all(some, keys, all_keys, was, value)) is not None:
                yield effect
        return
    first, last = _ends(values)
    if (effect := _controlled(rows, keys, first, last) or _of_all(rows, keys, all_keys, first, last)) is not None:
        yield effect


def _controlled(rows: Sequence[RunOutcome], keys: tuple[str, ...], was: Any, now: Any) -> Effect | None:
    """From runs that are equal in all other settings."""
    if len(rows) < 2:
        return None
    x, contrast = _scale([row.settings.get(keys[0]) for row in rows], was, now)
    y = np.array([row.value for row in rows])
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault((row.metric, row.judged_on, _rest(row, keys)), []).append(index)
    used = [np.array(group) for group in groups.values() if len({float(x[index]) for index in group}) > 1]
    if not used:
        return None
    within_x = np.concatenate([x[group] - x[group].mean() for group in used])
    within_y = np.concatenate([y[group] - y[group].mean() for group in used])
    change, low, high = _slope(within_x, within_y, len(within_x) - len(used) - 1)
    return Effect(keys, contrast, change, low, high, len(within_x), True, ())


def _of_all(
    rows: Sequence[RunOutcome], keys: tuple[str, ...], all_keys: Sequence[tuple[str, ...]], was: Any, now: Any
) -> Effect | None:
    """From all runs, with what changed along."""
    if len(rows) < FEWEST:
        return None
    x, contrast = _scale([row.settings.get(keys[0]) for row in rows], was, now)
    y = np.array([row.value for row in rows])
    if float(np.ptp(x)) == 0:
        return None
    change, low, high = _slope(x - x.mean(), y - y.mean(), len(rows) - 2)
    beside = []
    for others in all_keys:
        if others == keys:
            continue
        values = [row.settings.get(others[0]) for row in rows]
        if len({_key(value) for value in values}) > 1:
            other, _ = _scale(values, *_ends(values))
            strength = abs(float(np.corrcoef(x, other)[0, 1])) if float(np.ptp(other)) > 0 else 0.0
            beside.append((strength, others[0]))
    told = tuple(name for strength, name in sorted(beside, reverse=True) if strength >= TOGETHER)
    return Effect(keys, contrast, change, low, high, len(rows), False, told)


def _slope(x: Floats, y: Floats, freedom: int) -> tuple[float, float | None, float | None]:
    """Of centred values, with its 95 % interval where some degrees of freedom are left."""
    squares = float((x * x).sum())
    slope = float((x * y).sum()) / squares
    if freedom < 1:
        return slope, None, None
    residual = float(((y - slope * x) ** 2).sum()) / freedom
    half = quantile_of_t(freedom) * math.sqrt(residual / squares)
    return slope, slope - half, slope + half


def _scale(values: Sequence[Any], was: Any, now: Any) -> tuple[Floats, str]:
    """Values as numbers, and what a step of 1 is: a doubling, or from `was` to `now`."""
    if all(map(_is_number, values)):
        numbers = np.array([float(value) for value in values])
        if (numbers > 0).all() and numbers.max() >= DOUBLES * numbers.min():
            return np.log2(numbers), "each doubling"
        low, high = float(numbers.min()), float(numbers.max())
        return (numbers - low) / ((high - low) or 1.0), f"{low:g} to {high:g}"
    order = {_key(was): 0.0, _key(now): 1.0}
    return np.array([order.get(_key(value), 1.0) for value in values]), f"{_told(was)} to {_told(now)}"


def _ends(values: Sequence[Any]) -> tuple[Any, Any]:
    """The least and the largest number; of other values the most frequent and another."""
    if all(map(_is_number, values)):
        return min(values), max(values)
    counted = Counter(map(_key, values)).most_common()
    first = next(value for value in values if _key(value) == counted[0][0])
    return first, next((value for value in values if _key(value) != counted[0][0]), first)


def _rest(row: RunOutcome, keys: tuple[str, ...]) -> tuple[Any, ...]:
    """All other settings that act on the run."""
    return tuple(sorted((key, _key(value)) for key, value in row.settings.items() if _counts(key) and key not in keys))


def _counts(key: str) -> bool:
    return acts_on(key) in ("weights", "data", "length", "numerics")


def _key(value: Any) -> str:
    return repr(value)


def _told(value: Any) -> str:
    return "none" if value is None else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
