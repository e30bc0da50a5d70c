"""Sound logs by `benchmarks/doctor/sound_logs/levels.py`, fine-tuning and logs that begin in the middle among them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sound_logs.judge import alarms
from sound_logs.levels import KINDS


def alarmed(folder: Path, seeds: range) -> dict[str, list[str]]:
    """What is said of which log, where something is."""
    found = {f"{name} {seed}": alarms(name, kind, seed, folder) for name, kind in KINDS.items() for seed in seeds}
    return {log: codes for log, codes in found.items() if codes}


def test_two_of_each_kind_raise_no_alarm(tmp_path: Path) -> None:
    assert alarmed(tmp_path, range(2)) == {}


@pytest.mark.slow
def test_five_of_each_kind_raise_no_alarm(tmp_path: Path) -> None:
    assert alarmed(tmp_path, range(2, 7)) == {}
