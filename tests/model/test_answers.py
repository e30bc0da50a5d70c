"""What is measured of answers."""

from __future__ import annotations

import pytest
import torch

from trimtab.model.answers import difference


@pytest.mark.parametrize(
    ("spread", "moved", "found"),
    [(1.0, 0.1, 0.1), (0.05, 0.1, 2.0), (1e-7, 4e-8, 4e-5), (0.0, 0.0, 0.0)],
    ids=["a tenth", "more than they differ by", "rounding of answers that are alike", "equal"],
)
def test_a_difference_is_held_against_what_answers_differ_by(spread: float, moved: float, found: float) -> None:
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(8)
    one = 1.0 + spread * sign
    told = difference(one, one + moved * sign.roll(1))
    assert told is not None
    assert told == pytest.approx(found, rel=0.05, abs=1e-12)


def test_answers_of_another_shape_or_no_size_have_no_difference() -> None:
    assert difference(torch.ones(2, 3), torch.ones(3, 2)) is None
    assert difference(torch.zeros(4), torch.zeros(4)) is None
