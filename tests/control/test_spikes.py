"""Spikes are found where they are, once, and neither a descent nor a warm-up is one."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from told_steps import descent, windows

from trimtab.config import load_config
from trimtab.control import ReportSpikes, SpikeDetector, build_controllers
from trimtab.control.spikes import Spike
from trimtab.events import Advise, StepsEnded
from trimtab.testing import check_controller


def found(detector: SpikeDetector, events: Iterator[StepsEnded]) -> list[Spike]:
    return [spike for event in events if (spike := detector.see(event)) is not None]


def test_a_spike_is_found_once_with_its_first_and_last_step() -> None:
    loss = descent(300)
    loss[[199, 200, 201, 203]] += 2.0
    (spike,) = found(SpikeDetector(), windows(loss))
    assert (spike.first, spike.last) == (200, 204)
    assert spike.goes_on, "fewer than eight steps after it were seen"
    assert "training loss was" in spike.text


def test_the_gradient_alone_gives_one_and_can_be_left_out() -> None:
    loss = descent(300)
    norm = np.exp(0.1 * np.random.default_rng(1).normal(size=300))
    norm[150:154] *= 30
    (spike,) = found(SpikeDetector(), windows(loss, norm))
    assert (spike.first, spike.last) == (151, 154)
    assert "gradient norm was" in spike.text
    assert found(SpikeDetector("loss"), windows(loss, norm)) == []


def test_a_single_hard_batch_is_none_but_with_a_patience_of_one() -> None:
    loss = descent(300)
    loss[200] += 5.0
    assert found(SpikeDetector(), windows(loss)) == []
    (spike,) = found(SpikeDetector(patience=1), windows(loss))
    assert (spike.first, spike.last, spike.goes_on) == (201, 201, False)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), speed=st.floats(2.0, 60.0), noise=st.floats(0.0, 0.3), size=st.integers(1, 40))
def test_a_descent_however_fast_is_none(seed: int, speed: float, noise: float, size: int) -> None:
    at = np.arange(240)
    loss = 2 + 9 * np.exp(-at / speed) + noise * np.random.default_rng(seed).normal(size=240)
    norm = np.exp(1.5 * np.exp(-at / speed) + 0.1 * np.random.default_rng(seed + 1).normal(size=240))
    assert found(SpikeDetector(), windows(loss, norm, size=size)) == []


@pytest.mark.parametrize("warmup", [120, 200])
def test_what_a_warm_up_or_a_restart_lifts_is_none_and_the_same_at_a_steady_rate_is(warmup: int) -> None:
    at = np.arange(400)
    rate = np.minimum(1.0, (1 + at) / warmup) * 1e-3
    loss = descent(400)
    loss[warmup - 8 : warmup - 2] += 3.0  # the rate has come so high that the loss rises
    assert found(SpikeDetector(memory=40), windows(loss, rate=rate)) == []
    assert found(SpikeDetector(memory=40), windows(loss))
    restarted = np.where(at < 300, 1e-4, 1e-3)
    loss = descent(400)
    loss[300:306] += 3.0
    assert found(SpikeDetector(), windows(loss, rate=restarted)) == []


def test_skipped_steps_are_passed_over_and_infinite_ones_that_were_made_are_high() -> None:
    loss, skipped = descent(200), np.zeros(200)
    loss[150:154], skipped[150:154] = np.nan, 1.0
    assert found(SpikeDetector(), windows(loss, skipped=skipped)) == []
    (spike,) = found(SpikeDetector(), windows(loss))
    assert (spike.first, spike.last) == (151, 154)


def test_a_level_that_lasts_becomes_the_usual_one() -> None:
    loss = descent(600)
    loss[300:] += 4.0
    (spike,) = found(SpikeDetector(memory=50), windows(loss))
    assert spike.first == 301


def test_steps_that_are_told_again_replace_what_was_known_of_them() -> None:
    loss = descent(300)
    loss[200:210] += 3.0
    detector = SpikeDetector()
    events = list(windows(loss))
    assert len(found(detector, iter(events[:21]))) == 1
    clean = list(windows(descent(300)))
    assert found(detector, iter(clean[18:])) == []
    plain = SpikeDetector()
    found(plain, iter(clean))
    assert [entry[0] for entry in detector.state()["past"]] == [entry[0] for entry in plain.state()["past"]]


@pytest.mark.parametrize("cut", [5, 11, 20, 21, 22])
def test_it_goes_on_from_its_state_as_if_nothing_happened(cut: int) -> None:
    loss = descent(300)
    loss[[105, 106, 110, 208, 209, 211]] += 2.0
    events = list(windows(loss))
    whole = found(SpikeDetector(memory=40), iter(events))
    first, second = SpikeDetector(memory=40), SpikeDetector(memory=40)
    before = found(first, iter(events[:cut]))
    second.load_state(json.loads(json.dumps(first.state())))
    assert before + found(second, iter(events[cut:])) == whole
    assert len(whole) == 2


def test_the_report_names_the_steps_once_and_is_on_by_default() -> None:
    loss = descent(300)
    loss[200:204] += 2.0
    events = list(windows(loss))
    check_controller(lambda: ReportSpikes(SpikeDetector()), events)
    controller = ReportSpikes(SpikeDetector())
    answers = [answer for event in events if (answer := controller.decide(event)) is not None]
    assert [(type(answer), answer.steps) for answer in answers] == [(Advise, ((201, 204),))]
    names = [one.name for one in build_controllers(load_config(None, [], environment={}))]
    assert "spikes" in names
    assert "recovery" not in names
    off = load_config(None, ["recovery.spikes.name=none"], environment={})
    assert "spikes" not in [one.name for one in build_controllers(off)]
