"""Sound logs by `benchmarks/doctor/sound_logs/scales.py`, sums and norms that are no numbers among them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sound_logs.judge import alarms
from sound_logs.scales import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_two_of_each_kind_raise_no_alarm(kind: str, tmp_path: Path) -> None:
    assert [alarms(kind, KINDS[kind], seed, tmp_path) for seed in range(2)] == [[], []]
