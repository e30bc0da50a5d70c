"""The scorecard: what each feature of a log adds to the odds of each fault, against a sound run.

A sum, so that every part can be told: ln P(code) / P(healthy) = intercept + the points of each feature's bin + what a
rule's remark counts. What was not logged adds nothing. `benchmarks/doctor/fit_scorecard.py` makes the file.
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


@final
@dataclass(frozen=True, slots=True)
class Scorecard:
    """Points for every code."""

    codes: tuple[str, ...]
    intercepts_C: Floats
    features: Mapping[str, Bins]
    remark: tuple[float, float]
    """What a remark of a code's own rule counts, and what its confidence does."""
    threshold: float
    """The least probability that something is wrong at which that is said."""
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
            remark=(told["remark"][0] / DIGITS, told["remark"][1] / DIGITS),
            threshold=float(told["threshold"]),
            num_runs=int(told["runs"]),
            num_faulty=int(told["faulty"]),
        )

    def points(self, features: Mapping[str, float]) -> Mapping[str, Floats]:
        """What each feature adds to each code [C], by its name."""
        return {name: bins.at(features[name]) for name, bins in self.features.items() if name in features}

    def remarks(self, confidences: Mapping[str, float]) -> Floats:
        """What the remarks of rules add, by code and confidence [C]."""
        heard = [confidences.get(code) for code in self.codes]
        return np.array([0.0 if one is None else self.remark[0] + self.remark[1] * one for one in heard])

    def logits(self, features: Mapping[str, float], confidences: Mapping[str, float]) -> Floats:
        """ln P(code) / P(healthy) [C]."""
        parts = [self.intercepts_C, self.remarks(confidences), *self.points(features).values()]
        return np.asarray(np.sum(parts, axis=0), np.float64)


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
