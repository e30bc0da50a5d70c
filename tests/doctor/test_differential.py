"""What else a log resembles: features, their sum, and when nothing is named."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import Array, case_of, cosine, falling, noise_of
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from trimtab.cli import app
from trimtab.doctor import Case, Finding
from trimtab.doctor.codes import CODES
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.differential import guesses_of, resemble
from trimtab.doctor.differential.card import Heard, Scorecard, probabilities, the_scorecard
from trimtab.doctor.differential.features import FEATURES, features_of
from trimtab.doctor.differential.onset import onset_of
from trimtab.doctor.rules import RULES
from trimtab.doctor.schema import DOCTOR_SCHEMA
from trimtab.report import render_text
from trimtab.report.words import told_guess, worth_telling

KEPT = Path(__file__).parents[2] / "benchmarks" / "doctor" / "scorecard-runs.npz"


def foreign(loss: Array, **told: Any) -> Case:
    """A log of which nothing but its columns is known."""
    return replace(case_of(loss, **told), target="text")


def test_a_straight_line_has_no_bend_and_a_corner_has_one() -> None:
    line = features_of(foreign(np.linspace(4.0, 2.0, 201)))
    assert line["loss_bend"] == pytest.approx(0.0, abs=0.01)
    assert line["loss_descent_10"] == pytest.approx(0.1, abs=0.02)
    assert line["loss_descent_50"] == pytest.approx(0.5, abs=0.01)
    assert line["loss_last_quarter"] == pytest.approx(0.25, abs=0.03)
    assert line["loss_done"] == pytest.approx(0.95, abs=0.03)
    assert line["loss_fall"] == pytest.approx(math.log(2.0), abs=0.05)
    corner = features_of(foreign(np.maximum(4.0 - np.arange(201) / 10, 2.0) + 1e-3 * noise_of(201)))
    assert corner["loss_bend"] == pytest.approx(1.0, abs=0.01)
    assert corner["loss_descent_10"] == pytest.approx(1.0, abs=0.01)


def test_a_spike_is_told_with_its_place_and_whether_it_comes_back() -> None:
    loss = falling(400, noise=0.02)
    loss[200:206] += 9.0
    told = features_of(foreign(loss))
    assert told["loss_jump_where"] == pytest.approx(0.5, abs=0.02)
    assert told["loss_jump_back"] == pytest.approx(1.0, abs=0.1)
    loss[200:] = loss[199] + 9.0
    told = features_of(foreign(loss))
    assert told["loss_jump_back"] == pytest.approx(0.0, abs=0.1)
    assert 195 <= onset_of("divergence", foreign(loss)) <= 205


def test_a_loss_that_goes_with_the_epoch_comes_again() -> None:
    at = np.arange(400)
    sawtooth = 2.0 + 0.3 * ((at % 40) / 40 - 0.5) + 0.05 * noise_of(400)
    told, plain = (features_of(foreign(loss)) for loss in (sawtooth, 2.0 + 0.1 * noise_of(400)))
    assert told["loss_memory"] > 0.5 > 0.2 > abs(plain["loss_memory"])
    assert told["loss_period"] > 2 * plain["loss_period"]


def test_values_that_are_no_numbers_are_counted() -> None:
    loss = falling(200)
    loss[150:] = math.nan
    told = features_of(foreign(loss))
    assert (told["loss_bad_share"], told["loss_bad_since"], told["loss_ends_bad"]) == (0.25, 0.75, 1.0)
    assert onset_of("nan-loss", foreign(loss)) == 151


def test_the_gap_and_the_turn_of_the_validation_loss() -> None:
    at = np.arange(1, 1001)
    validation = {step: 2.0 + abs(step - 300) / 1000 for step in range(100, 1001, 100)}
    case = foreign(2.0 * np.exp(-at / 2000), validation=validation)
    told = features_of(case)
    assert told["validation_best_at"] == pytest.approx(2 / 9)
    assert told["validation_rise"] == pytest.approx(math.log(2.65 / 2.0))
    assert told["gap_last"] == pytest.approx(math.log(2.65 / (2.0 * math.exp(-0.475))), abs=0.01)
    assert onset_of("overfitting", case) == 300


def test_a_validation_loss_that_only_falls_has_not_risen() -> None:
    falls = {step: 3.0 - step / 1000 for step in range(100, 1001, 100)}
    told = features_of(foreign(falling(1000), validation=falls))
    assert (told["validation_rise"], told["validation_rise_of_descent"]) == (0.0, 0.0)


def test_norms_that_stand_at_a_bound_are_counted_whatever_the_bound() -> None:
    for bound in (1.0, 1 / 3, 0.1):
        norms = np.minimum(bound * np.exp(0.3 * noise_of(200)), bound)
        told = features_of(foreign(falling(200), grad_norm=norms))
        assert told["gradient_same"] == pytest.approx(float((norms == bound).mean())), bound


def test_what_the_rate_does() -> None:
    told = features_of(foreign(falling(1000), rates=cosine(1000, warmup=0.1)))
    assert told["rate_warmup"] == pytest.approx(0.1, abs=0.03)
    assert told["rate_last"] == pytest.approx(0.1, abs=0.01)
    assert (told["rate_up"], told["rate_constant"]) == pytest.approx((0.0, 0.0), abs=0.01)


def test_features_do_not_know_units() -> None:
    loss, rates, validation = falling(300), cosine(300), {step: 3.0 + 30 / step for step in range(30, 301, 30)}
    norms = np.exp(0.2 * noise_of(300))
    plain = features_of(foreign(loss, rates=rates, validation=validation, grad_norm=norms))
    other = {step: 7.0 * value for step, value in validation.items()}
    scaled = features_of(foreign(7.0 * loss, rates=3.0 * rates, validation=other, grad_norm=5.0 * norms))
    assert plain.keys() == scaled.keys()
    assert len(plain) > 60
    for name in plain.keys() - {"rate_peak"}:
        assert scaled[name] == pytest.approx(plain[name], rel=1e-6, abs=1e-6), name


HOSTILE: Mapping[str, Array] = {
    "one value": np.array([1.0]),
    "zeros": np.zeros(50),
    "nothing": np.full(50, np.nan),
    "infinite": np.full(50, np.inf),
    "huge": np.geomspace(1.0, 1e300, 60),
    "negative": -falling(60),
    "one number among none": np.where(np.arange(60) == 30, 1.0, np.nan),
    "five": np.array([3.0, 3.0, 3.0, 3.0, 2.0]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_was_logged_is_told_in_finite_numbers(name: str) -> None:
    loss = HOSTILE[name]
    last = len(loss)
    case = foreign(loss, rates=loss, grad_norm=loss, train_accuracy=loss, step_seconds=loss, memory_bytes=loss)
    for metric in ("validation/loss", "validation/accuracy"):
        case.history.add(metric, np.arange(1, last + 1), loss)
    for settled in (foreign(loss), case):
        told = features_of(settled)
        assert told.keys() <= FEATURES.keys()
        assert all(math.isfinite(value) for value in told.values())
        guesses_of(settled, [])
        for code in the_scorecard().codes:
            assert onset_of(code, settled) >= 0


def test_the_points_are_a_sum_and_probabilities_are_whole() -> None:
    card = the_scorecard()
    features = features_of(foreign(falling(200), rates=cosine(200)))
    heard = {"noisy-loss": Heard(remarked=0.5), "plateau": Heard(warned=0.8, leads=True)}
    logits = card.logits(features, heard)
    by_hand = card.intercepts_C.copy()
    for name, value in features.items():
        if name in card.features:
            bins = card.features[name]
            by_hand += bins.points_BC[sum(value > edge for edge in bins.edges)]
    remarked, sure, warned, surer, leads = card.heard_M
    by_hand[card.codes.index("noisy-loss")] += remarked + 0.5 * sure
    by_hand[card.codes.index("plateau")] += warned + 0.8 * surer + leads
    assert logits == pytest.approx(by_hand)
    sound, odds = probabilities(logits)
    assert sound + odds.sum() == pytest.approx(1.0)
    assert odds / sound == pytest.approx(np.exp(logits))
    assert card.logits({}, {}) == pytest.approx(card.intercepts_C)  # what was not logged adds nothing


def test_the_file_names_what_there_is() -> None:
    card = the_scorecard()
    assert set(card.codes) <= set(RULES)
    assert set(card.features) <= set(FEATURES)
    for bins in card.features.values():
        assert (np.diff(bins.edges) > 0).all()
        assert bins.points_BC.shape == (len(bins.edges) + 1, len(card.codes))
    size = (Path(resemble.__file__).parent / "scorecard.json").stat().st_size
    assert size <= 150_000


@pytest.fixture
def sick(monkeypatch: pytest.MonkeyPatch) -> Scorecard:
    """A card by hand: a loss that rises to its end is a divergence, 4 to 1 against over-regularised."""
    told = {
        "codes": ["divergence", "over-regularised", "leakage"],
        "intercepts": [-300, -300, -900],
        "heard": [100, 0, 0, 300, 50],
        "runs": 100,
        "faulty": 60,
        "features": {"loss_slope": {"edges": [0.0], "usual": -9.0, "points": [[0, 0, 0], [539, 400, 0]]}},
    }
    card = Scorecard.of(told)
    monkeypatch.setattr(resemble, "the_scorecard", lambda: card)
    return card


RISES = np.linspace(2.0, 2.4, 60) + 0.02 * noise_of(60)
FALLS = RISES[::-1].copy()


def test_what_the_log_resembles_is_named_with_its_reasons_the_likelier_first(sick: Scorecard) -> None:
    first, second = guesses_of(foreign(RISES), [])
    assert [(one.code, one.severity) for one in (first, second)] == [
        ("divergence", "info"),
        ("over-regularised", "info"),
    ]
    odds = np.exp([2.39, 1.0, -9.0])
    assert [first.confidence, second.confidence] == pytest.approx(
        [odd / (1 + odds.sum()) for odd in odds[:2]], abs=1e-9
    )
    assert "of 100 runs" in first.cause
    [reason] = first.evidence
    assert reason.text.startswith("for divergence (+5.4): the slope of the training loss")
    assert reason.expected == -9.0
    chances = [one.confidence for one in guesses_of(foreign(FALLS), [])]
    assert chances == pytest.approx(2 * [math.exp(-3) / (1 + 2 * math.exp(-3) + math.exp(-9))])


def test_a_remark_counts_for_its_code_and_is_not_named_again(sick: Scorecard) -> None:
    remark = Finding("over-regularised", "info", 0.4, 17, "said before")
    [guess] = guesses_of(foreign(RISES), [remark])
    odds = np.exp([2.39, 1.0 + 1.0, -9.0])
    assert (guess.code, guess.confidence) == ("divergence", pytest.approx(odds[0] / (1 + odds.sum()), abs=1e-9))


def test_beside_what_the_rules_found_there_is_room_for_three(sick: Scorecard) -> None:
    loud = Finding("divergence", "warning", 0.9, 9, "…", consequences=("plateau",))
    [guess] = guesses_of(foreign(RISES), [loud])
    odds = np.exp([2.39 + 0.9 * 3.0 + 0.5, 1.0, -9.0])
    assert (guess.code, guess.confidence) == ("over-regularised", pytest.approx(odds[1] / (1 + odds.sum()), abs=1e-9))
    remarks = [Finding(code, "info", 0.4, 9, "…") for code in ("noisy-loss", "plateau")]
    assert guesses_of(foreign(RISES), [loud, *remarks]) == ()


def test_nothing_is_guessed_of_runs_of_our_own_or_where_little_was_logged(sick: Scorecard) -> None:
    case = foreign(RISES)
    assert guesses_of(replace(case, target="trimtab"), []) == ()
    assert guesses_of(foreign(RISES[:7]), []) == ()
    assert guesses_of(foreign(RISES[:8]), []) != ()


def test_a_code_that_cannot_be_of_the_task_is_not_named(sick: Scorecard) -> None:
    lm_only = replace(sick, codes=("noisy-loss", "over-regularised", "leakage"))
    assert CODES["noisy-loss"].tasks
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resemble, "the_scorecard", lambda: lm_only)
        codes = [found.code for found in guesses_of(replace(foreign(RISES), facts={"task": "classification"}), [])]
    assert codes == ["over-regularised"]


def test_what_was_never_judged_is_not_named_for_its_evaluations(sick: Scorecard) -> None:
    of_two = replace(sick, codes=("validation-too-small", "over-regularised", "leakage"))
    judged = {step: 2.0 + step / 100 for step in range(10, 61, 10)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resemble, "the_scorecard", lambda: of_two)
        assert [found.code for found in guesses_of(foreign(RISES), [])] == ["over-regularised"]
        codes = [found.code for found in guesses_of(foreign(RISES, validation=judged), [])]
    assert codes == ["validation-too-small", "over-regularised"]


def test_no_verdict_and_no_exit_code_hangs_on_a_guess(sick: Scorecard, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n" + "\n".join(f"{at},{loss:.4f}" for at, loss in enumerate(FALLS, start=1)))
    answer = CliRunner().invoke(app, ["doctor", str(log), "--json", "--fail-on", "info"])
    told = json.loads(answer.stdout)
    assert (answer.exit_code, told["verdict"]) == (0, "healthy")
    assert [(one["code"], one["severity"], one["guess"]) for one in told["findings"]] == [
        ("divergence", "info", True),
        ("over-regularised", "info", True),
    ]
    Draft202012Validator(DOCTOR_SCHEMA).validate(told)
    text = CliRunner().invoke(app, ["doctor", str(log)]).stdout
    assert "(no findings)" in text
    assert "should it disappoint nevertheless" not in text, "so little is noise to a reader"


def test_beside_a_healthy_verdict_a_likely_guess_is_named_without_a_chance() -> None:
    """Among runs of which most have a fault it is one, and among a reader's it is another."""
    diagnosis = diagnose(foreign(FALLS))
    likely, unlikely = (replace(diagnosis.guesses[0], confidence=chance) for chance in (0.12, 0.07))
    text = render_text(replace(diagnosis, guesses=(likely, unlikely)))
    assert f"look first for: {likely.code}\n" in text
    assert "%" not in text
    assert "look first" not in render_text(replace(diagnosis, guesses=(unlikely,)))
    attention = replace(diagnosis, verdict="attention", guesses=(likely, unlikely))
    assert worth_telling(attention) == (likely, unlikely)
    assert told_guess(attention, unlikely).startswith(f"{unlikely.code} (7%): ")


@pytest.mark.parametrize("rows", [12, 40, 300])
def test_a_sound_log_is_left_in_peace(rows: int) -> None:
    validation = {
        step: 3.05 + 5.0 * (1 + 40 * step / rows) ** -0.7 for step in range(rows // 10 + 1, rows + 1, rows // 10 + 1)
    }
    for told in ({}, {"rates": cosine(rows)}, {"rates": cosine(rows), "validation": validation}):
        case = foreign(falling(rows, noise=0.03), **told)
        assert diagnose(case).verdict == "healthy", (rows, list(told))


@pytest.mark.slow
def test_the_file_is_what_the_kept_runs_give() -> None:
    pytest.importorskip("scipy")
    from fit_scorecard import calibrated, exported
    from scorecard_table import Table

    table = Table.load(KEPT)
    told = exported(calibrated(table), table)
    shipped = json.loads((Path(resemble.__file__).parent / "scorecard.json").read_text())
    assert told["sha256"] == shipped["sha256"]
    assert told.keys() == shipped.keys()
    one, other = Scorecard.of(told), Scorecard.of(shipped)
    for name, bins in one.features.items():
        assert bins.edges == pytest.approx(other.features[name].edges)
        assert bins.points_BC == pytest.approx(other.features[name].points_BC, abs=0.03)


@pytest.mark.slow
def test_held_out_runs_bear_its_probabilities_out() -> None:
    pytest.importorskip("scipy")
    from fit_scorecard import held_out, temperature
    from scorecard_table import Table

    table = Table.load(KEPT)
    rows, logits = held_out(table)
    logits = logits / temperature(table, rows, logits)
    sounds, odds = zip(*(probabilities(one) for one in logits), strict=True)
    truth = table.truth_N[rows]
    wrong, sure = 1.0 - np.array(sounds), np.array(odds).max(axis=1)
    right = np.array(odds).argmax(axis=1) == truth
    for claimed, true in ((wrong, truth >= 0), (sure, right)):
        parts = np.array_split(np.argsort(claimed), 8)
        off = [abs(float(claimed[part].mean()) - float(true[part].mean())) for part in parts]
        assert np.mean(off) < 0.1


@pytest.mark.slow
def test_across_programs_the_fault_is_among_three_more_often() -> None:
    pytest.importorskip("scipy")
    from fit_scorecard import figures, fit
    from scorecard_table import Table

    table = Table.load(KEPT)
    other = np.char.startswith(table.generator_N, "strange-")
    told = figures(fit(table.where(~other)), table.where(other))
    assert told.three >= told.three_by_rules + 0.1 * told.faulty
