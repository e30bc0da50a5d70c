"""What the loss tells alone: logs of other trainers, without settings, facts or layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import Array, case_of, noise_of

from trimtab.doctor.case import Case
from trimtab.doctor.diagnose import ask
from trimtab.doctor.finding import Finding
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.growths import Growth, lowest_before

STEPS = 400
AT = np.arange(1, STEPS + 1)


def cosine(floor: float = 0.1) -> Array:
    return floor + (1 - floor) * 0.5 * (1 + np.cos(np.pi * AT / STEPS))


def evaluations(values: Array, every: int = 40) -> dict[int, float]:
    """The curve at every so-manieth step."""
    return {step: float(values[step - 1]) for step in range(every, len(values) + 1, every)}


def found(case: Case, code: str) -> Finding | None:
    """What one rule says, before causes are put before what they explain."""
    return next((told for told in ask(code, case) if isinstance(told, Finding)), None)


def severity(case: Case, code: str) -> str | None:
    told = found(case, code)
    return None if told is None else told.severity


@pytest.mark.parametrize("is_logged", [True, False])
def test_what_each_rate_gains_tells_a_rate_that_is_too_low_under_a_schedule(is_logged: bool) -> None:
    applied = np.cumsum(cosine()) / cosine().sum()
    even, done = 4.6 - 0.5 * applied, 4.6 - 0.5 * (1 - np.exp(-12 * applied))
    rates = 1e-5 * cosine() if is_logged else None
    slow = case_of(even + 0.02 * noise_of(STEPS), rates=rates, validation=evaluations(even))
    assert severity(slow, "learning-rate-too-low") == "warning"
    learned = case_of(done + 0.02 * noise_of(STEPS), rates=rates, validation=evaluations(done))
    assert severity(learned, "learning-rate-too-low") is None


@pytest.mark.parametrize(("power", "expected"), [(1.5, "warning"), (2.2, "info")])
def test_gains_that_grow_by_little_are_of_a_rate_that_is_too_low(power: float, expected: str) -> None:
    """What grows by far had something else to get over first."""
    applied = np.cumsum(cosine()) / cosine().sum()
    loss = 4.6 - 0.5 * applied**power
    case = case_of(loss + 0.02 * noise_of(STEPS), rates=1e-5 * cosine(), validation=evaluations(loss))
    assert severity(replace(case, target="text"), "learning-rate-too-low") == expected


@pytest.mark.parametrize(("pace", "expected"), [(0.8, "info"), (8.0, None)])
def test_a_loss_that_gains_to_the_end_is_a_remark(pace: float, expected: str | None) -> None:
    applied = np.cumsum(cosine()) / cosine().sum()
    loss = 0.5 + 1.5 * np.exp(-pace * applied)
    case = case_of(loss + 0.02 * noise_of(STEPS), rates=1e-5 * cosine(), validation=evaluations(loss))
    assert severity(replace(case, target="text"), "learning-rate-too-low") == expected


def test_a_loss_that_gains_more_from_each_rate_to_the_end_is_a_remark() -> None:
    applied = np.cumsum(cosine()) / cosine().sum()
    loss = 2.0 - 0.8 * applied**2.2
    case = case_of(loss + 0.02 * noise_of(STEPS), rates=1e-5 * cosine(), validation=evaluations(loss))
    assert severity(replace(case, target="text"), "learning-rate-too-low") == "info"


@pytest.mark.parametrize(("until", "waves", "expected"), [(400, 0.0, "info"), (200, 0.0, None), (400, 1.0, None)])
def test_evaluations_that_bounce_to_the_end_hint_at_a_rate_that_is_too_high(
    until: int, waves: float, expected: str | None
) -> None:
    """Not where they calm down, nor where the training loss comes and goes over many steps, as of data in order."""
    bounces = 0.4 * (AT % 60 == 0) * (until >= AT)
    loss = 1.0 + 0.6 * np.exp(-AT / 40) + waves * np.sin(AT / 15) + bounces + 0.15 * noise_of(STEPS)
    judged = {step: 1.1 + 0.4 * (step % 60 == 0 and step <= until) for step in range(30, 401, 30)}
    assert severity(case_of(loss, validation=judged), "learning-rate-too-high") == expected


@pytest.mark.parametrize(("by", "expected"), [(0.6, "warning"), (0.2, None)])
def test_evaluations_that_were_thrown_far_up_thrice_tell_a_rate_that_was_too_high_before_it_decayed(
    by: float, expected: str | None
) -> None:
    bounces = by * (AT % 60 == 0) * (AT <= 200)
    loss = 1.0 + 0.6 * np.exp(-AT / 40) + bounces + 0.2 * noise_of(STEPS)
    judged = {step: 1.1 + by * (step % 60 == 0 and step <= 200) for step in range(30, 401, 30)}
    assert severity(case_of(loss, rates=0.1 * cosine(), validation=judged), "learning-rate-too-high") == expected


@pytest.mark.parametrize(("thrown", "expected"), [(3.0, "warning"), (0.0, None)])
def test_a_loss_that_is_thrown_up_and_stands_from_there_was_knocked_out(thrown: float, expected: str | None) -> None:
    """A loss that stands at the noise of its targets without that is sound."""
    loss = 1.0 + 0.5 * np.exp(-AT / 5) + thrown * np.exp(-(((AT - 12) / 4) ** 2)) + 0.05 * noise_of(STEPS)
    case = case_of(loss, rates=np.full(STEPS, 0.5), validation=evaluations(np.full(STEPS, 1.0)))
    assert severity(case, "learning-rate-too-high") == expected


def test_a_divergence_shows_in_evaluations_where_most_batches_cost_nothing() -> None:
    loss = 2.3 * np.exp(-AT / 40) + 0.02 * np.abs(noise_of(STEPS))
    loss[250:] = 0.0
    loss[250::12] = 2.3 * 1.03 ** np.arange(len(loss[250::12]) * 12)[::12]
    judged = 2.3 * np.exp(-AT / 40) + np.maximum(AT - 230, 0) * 2.0
    told = found(case_of(loss, validation=evaluations(judged, 20)), "divergence")
    assert told is not None
    assert told.severity == "error"
    assert 200 <= told.onset_step <= 260
    by_heart = case_of(2.3 * np.exp(-AT / 40), validation=evaluations(judged, 20))
    assert severity(by_heart, "divergence") is None  # the training loss stays at nothing: that is overfitting


@pytest.mark.parametrize(("left", "code"), [(0.35, "loss-spike"), (1.4, "divergence")])
def test_a_rise_that_is_mostly_made_good_is_a_spike(left: float, code: str) -> None:
    loss = 0.4 + 1.4 * np.exp(-AT / 60) + 0.03 * noise_of(STEPS)
    loss[200:] += left + (1.6 - left) * np.exp(-np.arange(200) / 25)
    case = case_of(loss)
    assert {code} == {one for one in ("loss-spike", "divergence") if severity(case, one) in ("warning", "error")}


@pytest.mark.parametrize(
    ("noise", "decays", "expected"), [(0.7, False, "warning"), (0.45, False, "warning"), (0.7, True, "info")]
)
def test_noise_drowns_progress_at_a_rate_that_is_never_lowered(noise: float, decays: bool, expected: str) -> None:
    level = 2.8 + 1.7 * np.exp(-AT / 20) + 0.1 * (1 - AT / STEPS)
    rates = cosine(0.0) if decays else np.ones(STEPS)
    case = case_of(level + noise * noise_of(STEPS), rates=1e-3 * rates, validation=evaluations(level))
    assert severity(case, "noisy-loss") == expected


@pytest.mark.parametrize(("first", "expected"), [(4.6, "warning"), (2.3, "info")])
def test_a_training_loss_that_is_held_up_tells_too_much_regularization(first: float, expected: str) -> None:
    """Of few classes wrong labels do the same."""
    train, judged = first * (1 - 0.12 * (1 - np.exp(-AT / 60))), first * (1 - 0.4 * (1 - np.exp(-AT / 60)))
    case = case_of(train + 0.02 * noise_of(STEPS), validation=evaluations(judged, 20))
    assert severity(case, "over-regularised") == expected


@pytest.mark.parametrize(("level", "expected"), [(3.2, "warning"), (2.4, None)])
def test_losses_that_stand_where_frequencies_lie_are_underfitting(level: float, expected: str | None) -> None:
    curve = level + (4.6 - level) * np.exp(-AT / 12)
    case = case_of(curve + 0.05 * noise_of(STEPS), rates=cosine(), validation=evaluations(curve, 20))
    assert severity(case, "underfitting") == expected


@pytest.mark.parametrize(("until", "expected"), [(0.25, "warning"), (0.9, None)])
def test_a_schedule_that_is_over_long_before_the_run(until: float, expected: str | None) -> None:
    part = np.minimum(AT / (until * STEPS), 1.0)
    rates = 0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * part))
    loss = 2.0 + 2.0 * np.exp(-np.cumsum(rates) / 30)
    case = case_of(loss + 0.01 * noise_of(STEPS), rates=1e-3 * rates, validation=evaluations(loss, 20))
    assert severity(case, "decayed-too-early") == expected


@pytest.mark.parametrize(
    ("rest", "wobble", "expected"),
    [(1.5, 0.0005, "warning"), (1.5, 0.03, None), (0.2, 0.0002, "warning"), (0.2, 0.01, None)],
)
def test_evaluations_that_hardly_differ_at_the_full_rate_are_a_plateau(
    rest: float, wobble: float, expected: str | None
) -> None:
    level = rest + 1.0 * np.exp(-AT / 10)
    judged = level + wobble * noise_of(STEPS)
    case = case_of(level + 0.1 * noise_of(STEPS), rates=np.ones(STEPS), validation=evaluations(judged, 20))
    assert severity(case, "plateau") == expected


@pytest.mark.parametrize(("turns", "expected"), [(False, "exploding-gradients"), (True, None)])
def test_a_gradient_that_comes_and_goes_does_not_explode(turns: bool, expected: str | None) -> None:
    """And one that grows slowly does, though the loss follows long after it was ten times as large."""
    growth = np.exp(np.maximum(AT - 150, 0) * 0.03)
    high = (AT > 100) & ((AT // 45) % 2 == 1)
    norms = (np.where(high, 20.0, 1.0) if turns else growth) * np.exp(0.1 * noise_of(STEPS))
    loss = 1.0 + 2.0 * np.exp(-AT / 30) + 0.05 * noise_of(STEPS)
    loss += np.where(high, 2.0, 0.0) if turns else np.where(AT > 300, (AT - 300) * 0.2, 0.0)
    case = case_of(loss, grad_norm=norms)
    assert (severity(case, "exploding-gradients") is not None) == (expected is not None)


@pytest.mark.parametrize(("ends", "expected"), [(0.02, None), (0.8, "error")])
def test_a_gradient_that_jumps_with_the_loss_and_falls_from_there_did_not_explode(
    ends: float, expected: str | None
) -> None:
    """Of samples of one kind alone nothing is left to learn, and both jump where the next kind comes."""
    since = np.maximum(AT - 200, 0)
    norms = np.where(AT < 200, 1e-3, 20.0 * np.maximum(np.exp(-since / 20), ends)) * np.exp(0.1 * noise_of(STEPS))
    loss = np.where(AT < 200, 1e-4, 10.0 * np.maximum(np.exp(-since / 20), ends)) * np.exp(0.1 * noise_of(STEPS, 1))
    assert severity(case_of(loss, grad_norm=norms), "exploding-gradients") == expected


def test_a_growth_begins_where_the_norm_was_lowest_of_one_that_had_been_falling() -> None:
    """What is usual before lies far above, and is passed late."""
    norms = Curve(AT, np.exp(-AT / 40 + 0.08 * np.maximum(AT - 200, 0)) * np.exp(0.1 * noise_of(STEPS)))
    growth = Growth(220, 240, norms.level(160, 200), float(norms.values.max()))
    assert 196 <= lowest_before(norms, growth) <= 206


@pytest.mark.parametrize(("rises", "expected"), [(5.0, "error"), (0.0, None)])
def test_a_validation_loss_that_grows_evenly_without_a_gradient_is_of_weights_that_are_multiplied(
    rises: float, expected: str | None
) -> None:
    learns = AT <= 200
    loss = np.where(learns, 1.5 * np.exp(-AT / 40), 0.0)
    judged = np.where(learns, 0.02 + loss, 0.02 * np.exp(rises * (AT - 200) / 80))
    closing = {step: float(judged[step - 1]) for step in (*range(40, STEPS + 1, 40), 377)}  # which comes soon after
    case = case_of(loss, grad_norm=np.where(learns, 1.0, 0.0), validation=dict(sorted(closing.items())))
    assert severity(case, "divergence") == expected


@pytest.mark.parametrize(("end", "expected"), [(204, "warning"), (320, "warning"), (392, None)])
def test_a_cosine_that_rises_again_went_on_beyond_its_end(end: int, expected: str | None) -> None:
    """Up to its peak, or by little: what stays down, or ends with the run, does not."""
    steps = np.arange(10, 401, 5)  # its top lies between two rows of the log
    rates = 0.5 * (1 + np.cos(np.pi * (steps - 8) / (end - 8)))
    case = case_of(2 + np.exp(-AT / 50))
    case.history.add("learning_rate", steps, 1e-3 * rates)
    told = found(Case(case.history, target="text"), "schedule-mismatch")
    assert (told and told.severity) == expected
    assert told is None or abs(told.onset_step - end) < 16


@pytest.mark.parametrize(("length", "floor", "expected"), [(1.25, 0.0, "warning"), (1.0, 0.2, None), (1.08, 0.0, None)])
def test_a_cosine_that_is_cut_off_while_it_falls_was_laid_out_for_more_steps(
    length: float, floor: float, expected: str | None
) -> None:
    """However low it is by then: one that ends there by plan lies flat."""
    rates = floor + (1 - floor) * 0.5 * (1 + np.cos(np.pi * AT / (length * STEPS)))
    case = case_of(2 + np.exp(-AT / 50), rates=1e-3 * rates, facts={"planned_steps": STEPS})
    assert severity(replace(case, target="text"), "schedule-mismatch") == expected


@pytest.mark.parametrize(
    ("until", "gains", "expected"), [(120, 0.002, "warning"), (60, 0.002, "warning"), (120, 0.05, "info")]
)
def test_a_second_rate_at_which_evaluations_stand_still_is_no_second_phase(
    until: int, gains: float, expected: str
) -> None:
    """Also where the loss fell so fast that it stands far below the last steps at the full rate."""
    loss = 2.5 - 1.5 * np.minimum(AT / until, 1.0) - gains * np.maximum(AT - until, 0) / (STEPS - until)
    rates = np.where(until >= AT, 3e-3, 3e-6)
    case = case_of(loss + 0.01 * noise_of(STEPS), rates=rates, validation=evaluations(loss))
    assert severity(replace(case, target="text"), "decayed-too-early") == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [((4.3, 1.52, 1.48, 1.52, 1.63, 1.70), "warning"), ((4.3, 1.52, 1.48, 1.63, 1.52, 1.70), None)],
)
def test_three_rises_in_a_row_are_overfitting_in_a_log_of_few_evaluations(
    values: tuple[float, ...], expected: str | None
) -> None:
    loss = 0.6 + 3.7 * np.exp(-AT / 60)
    judged = {max(1, 80 * at): value for at, value in enumerate(values)}
    assert severity(case_of(loss, validation=judged), "overfitting") == expected


def test_single_losses_that_are_high_now_and_then_are_no_spike_where_some_come_together() -> None:
    draw = np.random.default_rng(1)
    loss = np.where(draw.random(STEPS) < 0.25, 0.27, 0.02) + 0.6 * np.exp(-AT / 15)
    loss[[300, 301, 303, 304, 306, 307]] = 0.27
    assert severity(case_of(loss), "loss-spike") != "warning"


@pytest.mark.parametrize("moves", [0.4, -0.2, 0.0])
def test_rates_that_a_log_rounds_to_nothing_are_not_known_where_the_loss_moved(moves: float) -> None:
    loss = 0.3 + moves * np.exp(-AT / 60) + 0.02 * noise_of(STEPS)
    told = severity(case_of(loss, rates=np.round(2e-5 * cosine(0.0), 4)), "learning-rate-too-low")
    assert told == (None if moves else "error")


@pytest.mark.parametrize(("digits", "expected"), [(4, None), (9, "warning")])
def test_a_rate_that_reads_nothing_in_few_digits_has_not_decayed(digits: int, expected: str | None) -> None:
    loss = 1.0 + np.where(AT < 220, 1.0 - AT / 440, 0.5) + 0.01 * noise_of(STEPS)
    rates = np.round(2e-4 * np.clip(1 - AT / 280, 0, 1), digits)
    assert severity(case_of(loss, rates=rates), "decayed-too-early") == expected


@pytest.mark.parametrize(("begin", "expected"), [(-20.0, None), (0.0, None), (2.3, "error")])
def test_an_objective_of_a_game_or_of_rewards_that_only_rises_has_not_diverged(
    begin: float, expected: str | None
) -> None:
    loss = begin + 9.0 * (1 - np.exp(-AT / 100)) + 0.3 * noise_of(STEPS)
    loss[:10] = begin
    assert severity(case_of(loss), "divergence") == expected
    learned = -3.0 + 4.0 * np.exp(-AT / 30) + 6.0 * np.clip((AT - 250) / 100, 0, 1) + 0.1 * noise_of(STEPS)
    assert severity(case_of(learned), "divergence") == "error"  # below 0, but it had gained, and lost that


@pytest.mark.parametrize(("follows", "expected"), [(0.8, "warning"), (0.0, None)])
def test_a_single_rise_of_smooth_evaluations_is_a_spike_where_the_training_loss_rose_beside_it(
    follows: float, expected: str | None
) -> None:
    fall, bump = 1.0 + np.exp(-AT / 60), 0.4 * np.exp(-np.maximum(AT - 201, 0) / 25) * (AT > 200)
    case = case_of(fall + follows * bump + 0.25 * noise_of(STEPS), validation=evaluations(fall + bump, 20))
    assert severity(replace(case, target="text"), "loss-spike") == expected


@pytest.mark.parametrize(("waits", "expected"), [(0.1, "warning"), (0.8, "info")])
def test_what_mostly_waits_from_the_start_has_not_decayed_first(waits: float, expected: str) -> None:
    seconds = 0.01 * (1 + 0.6 * AT / STEPS)
    case = case_of(2.0 - AT / STEPS)
    case.history.add("step_seconds", AT, seconds)
    case.history.add("data_seconds", AT, waits * seconds)
    assert severity(case, "throughput-decay") == expected


def test_steps_that_became_slower_and_stayed_so_are_a_remark() -> None:
    case = case_of(2.0 - AT / STEPS)
    case.history.add(
        "step_seconds", AT, 0.01 * (1 + 6 * np.clip((AT - 60) / 60, 0, 1)) + 0.001 * np.abs(noise_of(STEPS))
    )
    assert severity(case, "throughput-decay") == "info"


@pytest.mark.parametrize(("tokens", "expected"), [(False, "info"), (True, "warning")])
def test_few_rows_tell_that_steps_take_longer_where_they_count_tokens(tokens: bool, expected: str) -> None:
    """Else the samples may have become longer."""
    at, seconds = np.arange(25, 326, 25), np.linspace(0.2, 0.4, 13)
    case = replace(case_of(2.0 - AT / STEPS), target="text")
    case.history.add("step_seconds", at, seconds)
    if tokens:
        case.history.add("tokens_per_second", at, 500.0 / seconds)
    assert severity(case, "throughput-decay") == expected
