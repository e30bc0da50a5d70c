"""Logs of strangers in which the steps go wrong: what few rows, other units and other names still tell."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Array, falling, noise_of

from trimtab.doctor import Case, Finding
from trimtab.doctor.rules import RULES
from trimtab.runs.history import History


def told(code: str, every: int = 1, **metrics: Array) -> Finding | None:
    """What a rule says of a log that has a value of these metrics each so many steps."""
    history = History()
    for name, values in metrics.items():
        history.add(name.replace("__", "/"), every * np.arange(1, len(values) + 1), values)
    found = [one for one in RULES[code](Case(history, {}, {}, "text")) if isinstance(one, Finding)]
    return found[0] if found else None


def is_warning(finding: Finding | None) -> bool:
    return finding is not None and finding.severity != "info"


@pytest.mark.parametrize(("right", "expected"), [(0.9, True), (0.6, False), (None, False)])
def test_twice_the_validation_loss_is_a_sum_where_samples_are_no_harder(right: float | None, expected: bool) -> None:
    judged = falling(28, start=5.0, floor=1.5, noise=0.0)
    metrics = {"train__loss": 0.3 + 1.85 * judged, "validation__loss": judged}
    if right is not None:
        metrics |= {"train__accuracy": np.linspace(0.3, right, 28), "validation__accuracy": np.linspace(0.3, 0.9, 28)}
    assert is_warning(told("accumulation-not-normalised", 10, **metrics)) == expected


@pytest.mark.parametrize(("times", "more", "expected"), [(4.0, 0.0, True), (1.0, 6.0, False)])
def test_a_loss_that_falls_slowly_is_a_multiple_where_both_ends_tell(times: float, more: float, expected: bool) -> None:
    """And where a constant lies between the two it is none."""
    judged = np.linspace(2.0, 1.76, 30)
    metrics = {"train__loss": times * judged + more + 0.02 * noise_of(30), "validation__loss": judged}
    assert is_warning(told("accumulation-not-normalised", 10, **metrics)) == expected


@pytest.mark.parametrize("led", [True, False])
def test_of_twelve_rows_the_gradient_led_if_it_had_outgrown_the_loss_that_left(led: bool) -> None:
    loss = np.array([1.3, 1.1, 1.0, 0.9, 1.1, 1.05, 2.2, 6.3, 13.0, 33.0, 77.0, 137.0])
    norms = np.array([0.7, 0.5, 0.5, 0.55, 1.4, 7.0, 12.0, 1e5, 2e4, 5e5, 2e3, 20.0]) if led else 0.5 * loss**0.3
    found = told("exploding-gradients", 15, train__loss=loss, grad_norm=norms)
    assert (found is not None) == led
    assert told("divergence", 15, train__loss=loss, grad_norm=norms) is not None


@pytest.mark.parametrize(("period", "turns", "expected"), [(66, False, True), (10**9, False, False), (66, True, False)])
def test_a_sum_that_is_cleared_by_epoch_shows_between_rows(period: int, turns: bool, expected: bool) -> None:
    at = np.arange(10, 401, 10)
    sums = (1.0 + at % period) ** 0.7
    norms: Array = np.asarray(np.exp(0.1 * noise_of(40)) * sums if period < 400 else np.exp(0.5 * noise_of(40)))
    loss = falling(40, noise=0.02) * (norms**0.3 if turns else 1.0)
    found = told("gradients-not-cleared", 10, train__loss=loss, grad_norm=norms)
    assert (found is not None and found.severity == "info") == expected


@pytest.mark.parametrize(("noise", "expected"), [(0.03, True), (0.002, False)])
def test_a_sum_differs_from_row_to_row_by_less_than_the_loss_of_its_batches(noise: float, expected: bool) -> None:
    norms = 6.0 * np.exp(0.01 * noise_of(140)) * np.linspace(1.0, 1.3, 140)
    norms[:4] = 1.0, 2.2, 3.9, 5.0
    loss = falling(140, noise=0.0) * np.exp(noise * noise_of(140, 1))
    assert is_warning(told("gradients-not-cleared", 2, train__loss=loss, grad_norm=norms)) == expected


@pytest.mark.parametrize(
    ("height", "slow", "rate", "warned"),
    [
        (3000.0, 1.5, 2e-3, "unscaled-inputs"),
        (60.0, 8.0, 2e-3, "bad-initialization"),
        (60.0, 8.0, 0.1, None),
        (1.0, 8.0, 2e-3, None),
    ],
)
def test_how_fast_a_first_loss_comes_down_tells_large_inputs_from_large_weights(
    height: float, slow: float, rate: float, warned: str | None
) -> None:
    loss = 0.3 + height * np.exp(-np.arange(120) / slow) + 0.02 * noise_of(120)
    right = 0.9 - 0.8 * np.exp(-np.arange(120) / 8)
    for code in ("unscaled-inputs", "bad-initialization"):
        curves = {"train__loss": loss, "learning_rate": np.full(120, rate)}
        if rate < 0.1:  # at a high one the accuracy tells by itself
            assert is_warning(told(code, 5, train__accuracy=right, **curves)) == (code == warned)
        summed = told(code, 5, **curves)
        assert not is_warning(summed), "it may be a sum"
        assert (summed is None) == (warned is None), "which is remarked"
    curves["train__loss"] = np.where(loss > 3.0, 30.0 * loss, loss)
    assert is_warning(told("unscaled-inputs", 5, **curves)) == (warned == "unscaled-inputs"), "no sum rests so far down"


@pytest.mark.parametrize("together", [True, False])
def test_evaluations_that_bounce_alone_are_made_of_few_samples(together: bool) -> None:
    bounces = np.tile([0.0, 0.5, -0.1, 0.4], 10)
    loss = falling(40, start=2.0, floor=1.0, noise=0.01)
    training = loss + (bounces if together else 0.0)
    curves = {"train__loss": training, "validation__loss": loss + bounces, "learning_rate": np.full(40, 0.05)}
    assert is_warning(told("learning-rate-too-high", 20, **curves)) == together
    del curves["learning_rate"]  # then it may be the kind of task
    assert not is_warning(told("learning-rate-too-high", 20, **curves))


@pytest.mark.parametrize(("orders", "undone", "expected"), [(6.0, 5.0, True), (6.0, 1.0, False), (1.0, 0.8, False)])
def test_a_loss_that_was_thrown_up_by_orders_and_mostly_came_down_lacked_a_warm_up(
    orders: float, undone: float, expected: bool
) -> None:
    exponents = orders - undone * np.minimum(1.0, np.arange(200) / 60)
    loss = 10.0 ** np.concatenate([[0.0, orders / 2], exponents]) * np.exp(0.1 * noise_of(202))
    found = told("missing-warmup", train__loss=loss, learning_rate=np.linspace(0.02, 1e-4, 202))
    assert is_warning(found) == expected


@pytest.mark.parametrize("times", [1, 40])
def test_one_damaged_batch_is_no_outlier_that_comes_again_and_again(times: int) -> None:
    loss = falling(400, start=1.0, floor=0.1, noise=0.01)
    loss[90 : 90 + 7 * times : 7] = 500.0
    judged = falling(400, start=1.0, floor=0.1, noise=0.0)
    found = told("outlier-dominated-loss", train__loss=loss, validation__loss=judged)
    assert is_warning(found) == (times > 1)


@pytest.mark.parametrize("seen", ["train/accuracy", "validation/accuracy"])
def test_a_language_model_whose_first_answers_are_right_now_and_then_begins_as_a_guess(seen: str) -> None:
    """Frequent words are guessed at once, and ln V is no more than a guess costs."""
    gone = np.exp(-np.arange(300) / 8.0)
    loss, right = 3.5 + 7.3 * gone + 0.03 * noise_of(300), 0.4 - 0.37 * gone
    curves = {"train__loss": loss, "validation__loss": loss, "learning_rate": np.full(300, 3e-4)}
    assert not is_warning(told("bad-initialization", **{seen.replace("/", "__"): right}, **curves))


@pytest.mark.parametrize(("parts", "expected"), [(1.0, True), (5.0, False)])
def test_a_loss_that_is_a_sum_is_no_bad_initialization_though_an_accuracy_is_logged(
    parts: float, expected: bool
) -> None:
    """In the end a mean costs what answers cost that are right as often."""
    loss = parts * (0.4 + (60.0 / parts) * np.exp(-np.arange(200) / 10.0))
    right = 0.9 - 0.8 * np.exp(-np.arange(200) / 15.0)
    rates = np.full(200, 1e-3)
    found = told("bad-initialization", 5, train__loss=loss, train__accuracy=right, learning_rate=rates)
    assert found is not None
    assert is_warning(found) == expected


@pytest.mark.parametrize(("rest", "expected"), [(12.0, True), (60.0, False)])
def test_no_sum_falls_further_than_from_the_dearest_guess_to_the_cheapest_answers(rest: float, expected: bool) -> None:
    """Of answers of which one in seven is right: a thirtieth. Other terms may keep the loss high."""
    loss = rest + (600.0 - rest) * np.exp(-np.arange(200) / 10.0)
    right = 0.15 - 0.1 * np.exp(-np.arange(200) / 15.0)
    rates = np.full(200, 1e-3)
    found = told("bad-initialization", 5, train__loss=loss, train__accuracy=right, learning_rate=rates)
    assert found is not None
    assert is_warning(found) == expected
