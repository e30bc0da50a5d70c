"""Sound runs that look as if they were not get no warning: games, rewards, weak relations, noise that comes and goes.

`sound/logs.tar.xz` is written by `benchmarks/doctor/sound_runs.py --pack`, which also made the runs: three of each kind
by plain loops that write a CSV. What is said of the same curves where they are faulty stands beside it.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from cases import case_of, falling, noise_of

from trimtab.doctor.diagnose import ask, diagnose
from trimtab.doctor.finding import Finding, Withheld
from trimtab.doctor.load import open_foreign_case

ARCHIVE = Path(__file__).parent / "sound" / "logs.tar.xz"


ONCE_ALARMED = {"generator": 2, "annealed": 1, "chapters": 1}
"""Which of three is the hardest, where it is not the first."""


def _quiet(folder: Path, *, all_of_them: bool) -> int:
    """The number of kinds. Raises: AssertionError."""
    kinds = set()
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    for log in sorted(folder.glob("*.csv")):
        kind, _, number = log.stem.rpartition("-")
        kinds.add(kind)
        if all_of_them or int(number) == ONCE_ALARMED.get(kind, 0):
            said = diagnose(open_foreign_case(log)[0])
            assert (log.stem, [one.code for one in said.findings if one.severity != "info"]) == (log.stem, [])
            assert not any("failed" in need for one in said.withheld for need in one.needs)
    return len(kinds)


def test_one_of_each_raises_no_alarm(tmp_path: Path) -> None:
    assert _quiet(tmp_path, all_of_them=False) >= 20


@pytest.mark.slow
def test_none_of_them_raises_an_alarm(tmp_path: Path) -> None:
    assert _quiet(tmp_path, all_of_them=True) >= 20


def test_a_loss_that_rises_is_a_divergence_unless_an_opponent_is_logged_or_it_began_at_nothing() -> None:
    at = np.arange(1, 301)
    rising = 1.0 + 3.0 * (1 - np.exp(-at / 60)) + 0.05 * noise_of(300)
    assert [one.code for one in diagnose(case_of(rising)).findings][:1] == ["divergence"]
    game = case_of(rising)
    game.history.add("user/d_loss", at, np.full(300, 0.5))
    assert diagnose(game).verdict == "healthy"
    (withheld,) = [one for one in ask("loss-spike", game) if isinstance(one, Withheld)]
    assert "d_loss" in withheld.needs[0]
    assert diagnose(case_of(rising - 1.04)).verdict == "healthy"


def test_a_game_whose_loss_is_blown_up_has_diverged() -> None:
    at = np.arange(1, 301)
    game = case_of(1.0 + np.where(at > 150, np.exp((at - 150) / 10), 0.0))
    game.history.add("user/return", at, np.ones(300))
    assert diagnose(game).findings[0].code == "divergence"


@pytest.mark.parametrize(("belongs", "found"), [(0.0, True), (0.95, False)])
def test_a_spike_of_a_loss_that_wanders_must_be_higher(belongs: float, found: bool) -> None:
    loss, wander = falling(400, noise=0.02), 0.0
    for index, one in enumerate(noise_of(400, 7)):
        wander = belongs * wander + 0.06 * one
        loss[index] += wander
    loss[300:320] += 0.5
    spikes = [one for one in ask("loss-spike", case_of(loss)) if isinstance(one, Finding)]
    assert bool(spikes) is found


@pytest.mark.parametrize(("carries", "codes"), [(0.4, []), (0.0, ["random-labels"])])
def test_answers_that_become_better_by_more_than_chance_have_to_do_with_inputs(
    carries: float, codes: list[str]
) -> None:
    at, evaluated = np.arange(1, 301), np.arange(30, 301, 30)
    loss = 0.4 + 1.2 * np.exp(-at / 120) + 0.02 * noise_of(300)
    case = case_of(loss, validation={int(step): 1.62 + 0.0006 * step for step in evaluated})
    share = 0.2 + carries * (1 - np.exp(-evaluated / 120)) + 0.01 * noise_of(10)
    case.history.add("validation/accuracy", evaluated, share)
    said = [one.code for one in ask("random-labels", case) if isinstance(one, Finding)]
    assert said == codes


def test_quarters_of_the_rates_that_gain_less_and_less_are_no_rate_that_is_too_low() -> None:
    at = np.arange(1, 401)
    for shape, codes in ((at / 400, ["learning-rate-too-low"]), (1 - np.exp(-at / 430), [])):
        loss = 1.6 - 0.15 * shape / shape[-1]
        validation = {int(step): float(loss[step - 1]) for step in range(25, 401, 25)}
        case = case_of(loss + 0.01 * noise_of(400), rates=np.full(400, 1e-5), validation=validation)
        assert [one.code for one in ask("learning-rate-too-low", case) if isinstance(one, Finding)] == codes


@pytest.mark.parametrize(("rise", "severity"), [(0.055, "info"), (0.3, "warning")])
def test_a_rise_of_the_validation_loss_within_five_errors_is_a_remark(rise: float, severity: str) -> None:
    at, index = np.arange(1, 301), np.arange(20)
    bend = 0.7 + 0.3 * np.exp(-index / 1.5) + rise * np.maximum(index - 8, 0) / 6
    scatter = 0.02 * noise_of(20, 4)
    validation = {int(15 * (one + 1)): float(bend[one] + scatter[one]) for one in index}
    case = case_of(0.05 + np.exp(-at / 60) + 0.01 * noise_of(300), validation=validation)
    assert [one.severity for one in ask("overfitting", case) if isinstance(one, Finding)] == [severity]
