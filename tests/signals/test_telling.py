"""Samples by importance: against a plain calculation, and what always holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.signals import most_telling

LOSSES = st.lists(st.one_of(st.floats(0, 10), st.just(math.nan), st.just(math.inf)), max_size=20)


def test_by_hand() -> None:
    losses = np.array([1.0, 5.0, 2.0, 4.0, 3.0])
    before = np.array([1.0, 5.1, 9.0, 3.0, math.nan])
    assert most_telling(losses, None, 3) == [1, 3, 4]
    # In turns: highest 5 (1), changed by 7 (2), then 4 (3), whose change comes next, too, then 3 (4), 5.1 - 5, 1 - 1.
    assert most_telling(losses, before, 9) == [1, 2, 3, 4, 0]
    assert most_telling(losses, before, 2) == [1, 2]
    losses[4] = math.nan
    assert most_telling(losses, before, 2) == [4, 1]
    assert most_telling(losses, before, 0) == []
    assert most_telling(np.empty(0), None, 3) == []
    with pytest.raises(ValueError, match="3 and 2"):
        most_telling(np.zeros(3), np.zeros(2), 1)


@given(losses=LOSSES, k=st.integers(0, 25), data=st.data())
def test_none_twice_the_worst_always_and_all_when_there_is_room(
    losses: list[float], k: int, data: st.DataObject
) -> None:
    previous = data.draw(st.one_of(st.none(), st.lists(st.floats(0, 10), min_size=len(losses), max_size=len(losses))))
    before = None if previous is None else np.array(previous, np.float64)
    found = most_telling(np.array(losses, np.float64), before, k)
    assert len(found) == len(set(found)) == min(k, len(losses))
    bad = [place for place, loss in enumerate(losses) if not math.isfinite(loss)]
    assert found[: len(bad)] == bad[:k]
    if len(bad) < k and len(bad) < len(losses):
        assert losses[found[len(bad)]] == max(loss for loss in losses if math.isfinite(loss))
    if before is not None and len(losses) - len(bad) >= 2 and k >= len(bad) + 2:
        changes = {place: abs(loss - before[place]) for place, loss in enumerate(losses) if math.isfinite(loss)}
        assert max(changes[place] for place in found[len(bad) : len(bad) + 2]) == max(changes.values())
