"""Scales end at round numbers, each in the fewest digits that tell it from its neighbours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.report.axes import Axis, step_ticks, value_axis


@pytest.mark.parametrize(
    ("axis", "wanted", "labels"),
    [
        (Axis(1.9, 8.1), 6, "2 3 4 5 6 7 8"),
        (Axis(2.38, 3.74), 7, "2.4 2.6 2.8 3.0 3.2 3.4 3.6"),
        (Axis(0.0, 0.00106), 4, "0 2.5e-4 5e-4 7.5e-4 1e-3"),
        (Axis(0.0, 0.7), 3, "0 0.25 0.50"),
        (Axis(0.5, 2000.0, True), 5, "1 10 100 1,000"),
        (Axis(1e-5, 1.0, True), 6, "1e-5 1e-4 1e-3 1e-2 1e-1 1e0"),
        (Axis(0.0, 1.1e9, False, "bytes"), 4, "0 250_MB 500_MB 750_MB 1_GB"),
        (Axis(0.04, 0.31, False, "fraction"), 5, "5_% 10_% 15_% 20_% 25_% 30_%"),
        (Axis(0.0, 41_000.0), 4, "0 10k 20k 30k 40k"),
    ],
)
def test_labels(axis: Axis, wanted: int, labels: str) -> None:
    assert [label.replace(" ", "_") for _, label in axis.ticks(wanted)] == labels.split()


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 9))
def test_ticks_lie_on_the_axis_and_are_told_apart(low: float, span: float, wanted: int) -> None:
    axis = value_axis(low, low + span, positive=False)
    ticks = axis.ticks(wanted)
    assert all(-1e-6 <= place <= 1 + 1e-6 for place, _ in ticks)
    assert 1 <= len(ticks) <= 2 * wanted + 4
    if span > 1e-3 * abs(low):
        assert len({label for _, label in ticks}) == len(ticks)


def test_an_axis_is_logarithmic_when_values_span_decades_and_are_positive() -> None:
    assert value_axis(0.5, 900.0, positive=True).logarithmic
    assert not value_axis(0.5, 2.0, positive=True).logarithmic
    assert not value_axis(-1.0, 900.0, positive=True).logarithmic
    flat = value_axis(2.0, 2.0, positive=True)
    assert flat.low < 2.0 < flat.high


def test_steps() -> None:
    assert [label for _, label in step_ticks(0, 2000)][-3:] == ["1,500", "1,750", "2,000"]
    assert [label for _, label in step_ticks(0, 100_000)][:3] == ["0", "20k", "40k"]
    assert step_ticks(7, 7) == [(0.5, "7")]
    assert [label for _, label in step_ticks(0, 3)] == ["0", "1", "2", "3"]
