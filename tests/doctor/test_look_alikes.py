"""What rules of runs of our own must leave alone: sound runs, and other faults, that look as theirs do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from cases import case_of, noise_of
from test_other_code import EVALUATED, NUMBERS, STEPS, found, regression

from trimtab.doctor import Case, Finding
from trimtab.doctor.diagnose import in_causal_order
from trimtab.doctor.finding import Evidence
from trimtab.doctor.remedies import lower_rate

STEP = np.arange(STEPS)
MANY = {"targets": {"classes": [], "mean": 0.0, "deviation": 1.0, "total": 2_000_000}}


@pytest.mark.parametrize(
    ("explained", "facts"),
    [
        (0.45, {"validation": {"documents": 40}}),
        (0.015, {"validation": {"documents": 100_000}, **MANY}),
        (0.03, {**MANY}),
    ],
    ids=["few rows that are judged", "a weak relation on many", "a weak relation of many"],
)
def test_what_a_regression_explains_is_beside_chance(explained: float, facts: Mapping[str, Any]) -> None:
    """A fifth of the variance of 100 texts is no chance, nor are two hundredths of 100,000."""
    assert found(regression(1.0, 0.98, explained, {**NUMBERS, **facts}), "random-labels") is None
