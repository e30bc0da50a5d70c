"""The scorecard: what each feature of a log adds to the odds of each fault, against a sound run.

A sum, so that every part can be told: ln P(code) / P(healthy) = intercept + the points of each feature's bin + what a
the rules said of it. What was not logged adds nothing. `benchmarks/doctor/fit_scorecard.py` makes the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple, Self, final

import numpy as np

from trimtab.doctor.reading.curves import Floats

FILE: Final = "scorecard.json"
DIGITS: Final = 100.0
"""Points are whole hundredths in the file."""


class Bins(NamedTuple):
    """Points by the size of one feature."""

    edges: Floats
    """Rising; a value that equals one is below it [E]."""
    points_BC: Floats
    """[E + 1, codes]."""
    usual: float
    """The median of sound runs."""

    def at(self, value: float) -> Floats:
        """The points of a value [C]."""
        row: Floats = self.points_BC[int(self.edges.searchsorted(value, side="left"))]
        return row


class Heard(NamedTuple):
    """What the rules said of a code: how sure they were, None where they did not."""

    remarked: float | None = None
    warned: float | None = None
    leads: bool = False
    """Whether they put it before all else, as a warning or worse."""

    def told(self) -> tuple[float, ...]:
        """As numbers [MARKS]: whether it was said, and how surely."""
        parts = (value for sure in (self.remarked, self.warned) for value in (float(sure is not None), sure or 0.0))
        return (*parts, float(self.leads))


SILENT: Final = Heard()
MARKS: Final = len(SILENT.told())


@final
@dataclass(frozen=True, slots=True)
class Scorecard:
    """Points for every code."""

    codes: tuple[str, ...]
    intercepts_C: Floats
    features: Mapping[str, Bins]
    heard_M: Floats
    """What each number of `Heard.told` of a code counts for it [MARKS]."""
    num_runs: int
    num_faulty: int

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """From the values of its file."""
        return cls(
            codes=tuple(told["codes"]),
            intercepts_C=np.array(told["intercepts"]) / DIGITS,
            features={
                name: Bins(np.array(one["edges"]), np.array(one["points"]) / DIGITS, float(one["usual"]))
                for name, one in told["features"].items()
            },
            heard_M=np.array(told["heard"]) / DIGITS,
            num_runs=int(told["runs"]),
            num_faulty=int(told["faulty"]),
        )

    def points(self, features: Mapping[str, float]) -> Mapping[str, Floats]:
        """What each feature adds to each code [C], by its name."""
        return {name: bins.at(features[name]) for name, bins in self.features.items() if name in features}

    def logits(self, features: Mapping[str, float], heard: Mapping[str, Heard]) -> Floats:
        """ln P(code) / P(healthy) [C]."""
        said_C = np.array([float(np.dot(heard.get(code, SILENT).told(), self.heard_M)) for code in self.codes])
        return np.asarray(np.sum([self.intercepts_C, said_C, *self.points(features).values()], axis=0), np.float64)


def probabilities(logits_C: Floats) -> tuple[float, Floats]:
    """P(healthy), and P(code) [C]: together 1."""
    highest = max(0.0, float(logits_C.max()))
    odds, sound = np.exp(logits_C - highest), math.exp(-highest)
    whole = sound + float(odds.sum())
    return sound / whole, odds / whole


@cache
def the_scorecard() -> Scorecard:
    """The one that is shipped."""
    return Scorecard.of(json.loads((files("trimtab.doctor.differential") / FILE).read_text(encoding="utf-8")))
