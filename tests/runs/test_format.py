"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.runs import format


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (format.decimal, 2.34147, "2.3415"),
        (format.decimal, 0.0, "0.0000"),
        (format.decimal, -12.3456, "-12.346"),
        (format.decimal, 123.456, "123.46"),
        (format.decimal, 12345.6, "12,346"),
        (format.decimal, 1.2345e9, "1.23e+9"),
        (format.decimal, 3.4e-5, "3.40e-5"),
        (format.decimal, math.nan, "nan"),
        (format.signed, 0.0123, "+0.0123"),
        (format.signed, -0.5, "-0.5000"),
        (format.scientific, 3e-4, "3.0e-4"),
        (format.scientific, 0.0, "0"),
        (format.scientific, 1.26e-11, "1.3e-11"),
        (format.count, 1200, "1,200"),
        (format.short, 950, "950"),
        (format.short, 3121, "3.12k"),
        (format.short, 12_345_678, "12.3M"),
        (format.short, 1.5e9, "1.50B"),
        (format.short, 999.7, "1.00k"),
        (format.short, 0.25, "0.25"),
        (format.tokens_per_second, 3121.0, "3.12k tok/s"),
        (format.bits_per_byte, 1.4567, "1.46 bits/byte"),
        (format.percent, 0.4199, "41 %"),
        (format.percent, 0.9999, "99 %"),
        (format.percent, 1.0, "100 %"),
        (format.percent, 0.001, "<1 %"),
        (format.percent, 0.0, "0 %"),
        (format.share, 0.4199, "42 %"),
        (format.share, 0.006, "1 %"),
        (format.share, 0.001, "<1 %"),
        (format.share, 0.0, "0 %"),
        (format.duration, 0.84, "0.8s"),
        (format.duration, 23.4, "23s"),
        (format.duration, 59.7, "1m 00s"),
        (format.duration, 83, "1m 23s"),
        (format.duration, 7512, "2h 05m"),
        (format.duration, 273_600, "3d 04h"),
        (format.duration, -1.0, "0.0s"),
        (format.size, 512, "512 B"),
        (format.size, 4_123_456, "4.1 MB"),
        (format.size, 999_960, "1.0 MB"),
        (format.size, 2.5e12, "2.5 TB"),
    ],
)
def test_examples(function: object, value: float, text: str) -> None:
    assert function(value) == text  # type: ignore[operator]


@given(st.floats())
def test_every_number_has_a_short_text(value: float) -> None:
    for function in (
        format.decimal,
        format.signed,
        format.scientific,
        format.short,
        format.percent,
        format.share,
        format.duration,
    ):
        text = function(min(max(value, -1e15), 1e15) if math.isfinite(value) else value)
        assert 0 < len(text) <= 24
        assert text.isprintable()
