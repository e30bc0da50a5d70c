"""Who goes back, how far, how often, and what is left out: by events alone, and in real runs over spoilt data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rig import VOCABULARY, Rig
from told_steps import descent, windows

from trimtab.config import load_config
from trimtab.control import Recovery, SkippedSteps, SpikeDetector, build_controllers
from trimtab.doctor import Case
from trimtab.doctor.diagnose import diagnose
from trimtab.events import (
    Adjust,
    AlertRaised,
    Decision,
    DecisionTaken,
    EvaluationEnded,
    Event,
    Rollback,
    RunStarted,
    StepsEnded,
    Stop,
)
from trimtab.report.gather import gather
from trimtab.runs.history import History
from trimtab.runs.summary import render, summarize
from trimtab.signals import Gradients
from trimtab.testing import check_controller


def spiking(at: Sequence[int], steps: int = 300, height: float = 2.0) -> Iterator[StepsEnded]:
    loss = descent(steps)
    for step in at:
        loss[step - 1 : step + 3] += height
    return windows(loss)


def answers(controller: Any, events: Iterator[Event] | Sequence[Event]) -> list[Decision]:
    return [answer for event in events if (answer := controller.decide(event)) is not None]


def not_finite(first: int, last: int, size: int = 10, steps: int = 60) -> Iterator[StepsEnded]:
    loss, skipped = descent(steps), np.zeros(steps)
    loss[first - 1 : last], skipped[first - 1 : last] = math.nan, 1.0
    return windows(loss, skipped=skipped, size=size)


def _joined(parts: Sequence[StepsEnded]) -> tuple[int, int, dict[str, Any]]:
    names = parts[0].per_step
    per_step = {name: np.concatenate([part.per_step[name] for part in parts]) for name in names}
    return parts[0].first_step, parts[-1].last_step, per_step


def test_it_goes_back_to_before_the_first_high_step_and_leaves_out_all_of_them() -> None:
    check_controller(lambda: Recovery(SpikeDetector(), None), [RunStarted(0, 1, 0, None, 300), *spiking([203])])
    (back,) = answers(Recovery(SpikeDetector(), None, margin=2), spiking([203]))
    assert isinstance(back, Rollback)
    assert (back.onset_step, back.exclude_steps, back.learning_rate) == (201, ((201, 206),), None)
    # Only four steps after it were seen, so that it may go on.
    assert back.left_out(220) == ((201, 220),)
    early = list(spiking([191], 220))
    (over,) = answers(Recovery(SpikeDetector(), None), [*early[:18], StepsEnded(*_joined(early[18:21]), {})])
    assert isinstance(over, Rollback)
    assert over.left_out(220) == over.exclude_steps == ((190, 194),)
    assert back.reason.endswith("rollback 1 of 3")


def test_the_budget_is_spent_by_rollbacks_that_were_made_and_then_it_stops() -> None:
    controller = Recovery(SpikeDetector(memory=20), None, budget=2)
    told: list[Decision] = []
    for number in range(3):
        told += answers(controller, spiking([203]))
        controller.load_state(json.loads(json.dumps(controller.state())))  # a kill in between gives none back
        controller.decide(RunStarted(190, 1, number + 1, 190, 300))
    assert [type(decision) for decision in told] == [Rollback, Rollback, Stop]
    stop = told[-1]
    assert isinstance(stop, Stop)
    assert stop.exit_code == 4
    assert "2 times already" in stop.reason
    assert answers(controller, spiking([203]))[0] == stop, "and once more, when it is tried again"


def test_while_it_waits_for_its_rollback_it_asks_for_none() -> None:
    (back,) = answers(Recovery(SpikeDetector(memory=20), None), spiking([203, 230]))
    assert isinstance(back, Rollback)


@pytest.mark.parametrize("margin", [0, 1])
def test_steps_that_were_made_and_are_not_finite_again_roll_back_again(margin: int) -> None:
    loss = descent(200)
    loss[100:] = math.nan
    controller = Recovery(SpikeDetector(), None, margin=margin)
    onsets = []
    for number in range(2):
        back = next(answer for event in list(windows(loss))[10 * number :] if (answer := controller.decide(event)))
        assert isinstance(back, Rollback)
        onsets.append(back.onset_step)
        controller.decide(RunStarted(100, 1, number + 1, 100, 200))
    assert onsets == [101 - margin] * 2


def test_a_rollback_that_is_refused_costs_nothing_and_the_run_goes_on() -> None:
    controller = Recovery(SpikeDetector(), None, budget=1)
    (back,) = answers(controller, spiking([203], 220))
    note = "no whole checkpoint lies before step 202"
    controller.decide(DecisionTaken(220, 210, "recovery", back, "overruled", note))
    assert controller.state()["spent"] == 0
    calm = [event for event in windows(descent(300)) if event.first_step > 220]
    assert answers(controller, calm) == []


def test_another_ones_refusal_is_not_taken_for_its_own() -> None:
    controller = Recovery(SpikeDetector(), None)
    (back,) = answers(controller, spiking([203], 220))
    controller.decide(DecisionTaken(220, 210, "somebody", back, "overruled", "no checkpoint"))
    assert controller.state()["spent"] == 1


def test_skipped_steps_on_end_roll_back_and_without_a_checkpoint_they_stop() -> None:
    controller = Recovery(None, SkippedSteps(5), margin=0)
    (back,) = answers(controller, not_finite(23, 29))
    assert isinstance(back, Rollback)
    assert (back.onset_step, back.exclude_steps) == (23, ((23, 29),))
    assert "not finite" in back.reason
    controller.decide(DecisionTaken(40, 30, "recovery", back, "overruled", "no whole checkpoint lies before step 23"))
    (stop,) = answers(controller, list(not_finite(23, 29))[3:4])
    assert isinstance(stop, Stop)
    assert stop.exit_code == 4
    assert "cannot go back: no whole checkpoint lies before step 23" in stop.reason


def refused() -> Recovery:
    """Was told that it cannot go back, and has not answered yet."""
    controller = Recovery(None, SkippedSteps(5), margin=0)
    (back,) = answers(controller, list(not_finite(13, 20))[:2])
    controller.decide(DecisionTaken(30, 20, "recovery", back, "overruled", "no whole checkpoint lies before step 13"))
    return controller


def resumed(controller: Recovery, step: int) -> Recovery:
    again = Recovery(None, SkippedSteps(5), margin=0)
    again.load_state(json.loads(json.dumps(controller.state())))
    again.decide(RunStarted(step, 2, 1, step, 60))
    return again


def test_after_the_stop_an_attempt_is_judged_by_its_own_steps() -> None:
    controller = refused()
    assert len(answers(controller, list(windows(descent(60)))[2:3])) == 1
    four = list(not_finite(31, 34))[3:]
    assert answers(resumed(controller, 30), four) == [], "four more skipped steps are not five"
    (again,) = answers(resumed(controller, 30), list(not_finite(31, 35))[3:])
    assert isinstance(again, Rollback)


def test_a_stop_that_was_not_given_before_an_interruption_is_given_after_it() -> None:
    (stop,) = answers(resumed(refused(), 30), list(windows(descent(60)))[3:4])
    assert isinstance(stop, Stop)


def test_a_run_that_could_not_go_back_goes_on_when_it_is_tried_again(tmp_path: Path) -> None:
    def tried(*broken: int) -> Rig:
        controller = Recovery(None, SkippedSteps(3), margin=0)
        spoils = [Breaks(set(broken))]
        return Rig(
            tmp_path / "run", controllers=[controller], steps=24, transforms=spoils, log_every=2, evaluate_every=24
        )

    first = tried(2, 3, 4, 5)
    assert first.go().status == "failed"
    assert "cannot go back" in first.loop.progress.stop["reason"]
    assert tried().go().status == "finished"


def test_after_a_rollback_skipped_steps_are_counted_anew() -> None:
    controller = SkippedSteps(8)
    assert answers(controller, list(not_finite(15, 20))[:2]) == []
    controller.decide(RunStarted(10, 1, 1, 10, 60))
    assert answers(controller, list(not_finite(15, 20))[1:]) == []
    resumed = SkippedSteps(8)
    answers(resumed, list(not_finite(15, 20))[:2])
    resumed.decide(RunStarted(20, 2, 1, 20, 60))
    assert len(answers(resumed, list(not_finite(21, 22))[2:])) == 1, "a resume goes on counting"


def test_the_rate_is_lower_for_a_while_and_then_as_scheduled_again() -> None:
    controller = Recovery(SpikeDetector(), None, factor=0.5, slow_steps=30)
    (back,) = answers(controller, spiking([203], 210))
    assert isinstance(back, Rollback)
    assert back.learning_rate == 0.5
    controller.decide(RunStarted(200, 1, 1, 200, 300))
    calm = list(windows(descent(300)))[20:]
    free = [(event.last_step, answer) for event in calm if (answer := controller.decide(event)) is not None]
    assert [step for step, _ in free] == [230]
    assert isinstance(free[0][1], Adjust)
    assert (free[0][1].name, free[0][1].value) == ("learning_rate", 1.0)


def test_what_the_configuration_asks_for_is_built() -> None:
    def names(*overrides: str) -> list[str]:
        return [one.name for one in build_controllers(load_config(None, list(overrides), environment={}))]

    assert names()[:2] == ["skipped_steps", "spikes"]
    assert names("recovery.spikes.name=rollback")[:2] == ["recovery", "skipped_steps"]
    assert names("recovery.non_finite=rollback")[:2] == ["recovery", "spikes"]
    both = names("recovery.non_finite=rollback", "recovery.spikes.name=rollback")
    assert both[0] == "recovery"
    assert not {"spikes", "skipped_steps"} & set(both)


def spoilt(*steps: range, num_steps: int = 400) -> np.ndarray[Any, Any]:
    """Counting, which is soon learned, but for the data of some steps (16 tokens each), which is noise."""
    tokens = np.arange(16 * num_steps + 1) % VOCABULARY
    noise = np.random.default_rng(3).integers(0, VOCABULARY, len(tokens))
    for span in steps:
        tokens[16 * (span.start - 1) : 16 * (span.stop - 1)] = noise[16 * (span.start - 1) : 16 * (span.stop - 1)]
    return tokens


def recovering(folder: Path, tokens: np.ndarray[Any, Any], **more: Any) -> Rig:
    controller = Recovery(SpikeDetector(memory=40), None, **more)
    return Rig(
        folder,
        controllers=[controller],
        steps=160,
        log_every=4,
        evaluate_every=20,
        save_every=20,
        tokens=tokens,
        evaluate=lambda step: (EvaluationEnded(step, {"validation/loss": 1.0}, 0.0), ()),
    )


def test_a_run_goes_back_before_spoilt_data_leaves_it_out_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    rig = recovering(tmp_path / "run", spoilt(range(111, 116)), factor=0.5, slow_steps=10)
    assert rig.go().status == "finished"
    back = [d for d in rig.watch.of(DecisionTaken) if isinstance(d.decision, Rollback)]
    assert [(d.outcome, d.decision.onset_step) for d in back] == [("taken", 109)]
    assert [event.step for event in rig.watch.of(RunStarted)] == [0, 100]
    first, last = 109, 116
    # Two sequences a step, in their order: what is left out is named by position and by sample.
    positions = [[2 * (first - 1), 2 * last]]
    assert rig.loop.progress.plan == {"excluded": positions}
    assert back[0].details == {"positions": positions, "samples": list(range(*positions[0]))}
    rates = np.concatenate([w.per_step["learning_rate"] for w in rig.watch.of(StepsEnded)][-15:])
    assert set(np.round(rates, 6)) == {0.005, 0.01}
    clean = Rig(tmp_path / "clean", steps=160, log_every=4, evaluate_every=20, save_every=20, tokens=spoilt())
    clean.go()
    ends = [rig.watch.of(StepsEnded)[-1].per_step["train/loss"][-1] for rig in (rig, clean)]
    assert ends[0] < max(1.2 * ends[1], 0.02)


@pytest.mark.parametrize("budget", [1, 2])
def test_a_region_that_stays_bad_ends_with_exit_code_4_after_as_many_rollbacks(tmp_path: Path, budget: int) -> None:
    rig = recovering(tmp_path / "run", spoilt(range(111, 300)), budget=budget)
    ended = rig.go()
    assert ended.status == "failed"
    assert rig.loop.progress.stop["exit_code"] == 4
    kinds = [type(d.decision) for d in rig.watch.of(DecisionTaken)]
    assert kinds == [Rollback] * budget + [Stop]
    again = recovering(tmp_path / "run", spoilt(range(111, 300)), budget=budget)
    assert again.go().status == "failed", "the budget is spent in a later attempt, too"
    assert {type(d.decision) for d in again.watch.of(DecisionTaken)} == {Stop}


class Breaks:
    """Makes the gradient of some attempted updates infinite."""

    name = "breaks"

    def __init__(self, steps: set[int]) -> None:
        self.steps, self.now = steps, 0

    def apply(self, gradients: Gradients, settings: Any) -> None:
        self.now += 1
        if self.now in self.steps:
            gradients.total_norm = gradients.total_norm * torch.inf

    def state_by_name(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state_by_name(self, state: Any) -> None:
        pass


def test_a_step_that_is_not_finite_is_told_with_its_samples_and_changes_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "run", steps=12, transforms=[Breaks({7})])
    rig.go()
    (alert,) = rig.watch.of(AlertRaised)
    assert alert.kind == "non_finite_step"
    assert {name: alert.details[name] for name in ("step", "grad_norm", "positions")} == {
        "step": 7,
        "grad_norm": math.inf,
        "positions": [[12, 14]],
    }
    assert math.isfinite(alert.details["loss"])
    order = rig.loader._order
    assert alert.details["samples"] == order.sequences_at(np.array([12, 13])).tolist()
    summary = summarize(rig.run)
    assert [(one["step"], one["kind"]) for one in summary["alerts"]] == [(alert.step, "non_finite_step")]
    assert "data positions 12 to 13" in render(summary)
    case = Case(History.read(rig.run.record))
    (finding,) = (one for one in diagnose(case).findings if one.code == "nan-loss")
    named = ", ".join(str(sample) for sample in alert.details["samples"])
    assert any(f"step 7 was trained on samples {named} of the training set" in e.text for e in finding.evidence)
    assert (alert.step, alert.text) in gather(rig.run, case, diagnose(case)).steered()
    window = next(w for w in rig.watch.of(StepsEnded) if w.first_step <= 7 <= w.last_step)
    assert math.isinf(window.per_step["grad_norm"][7 - window.first_step]), "never masked"


def test_steps_that_are_not_finite_roll_back_once_and_the_samples_are_left_out(tmp_path: Path) -> None:
    controller = Recovery(None, SkippedSteps(3), margin=0)
    rig = Rig(
        tmp_path / "run",
        controllers=[controller],
        steps=24,
        transforms=[Breaks({13, 14, 15})],
        log_every=2,
        save_every=6,
    )
    assert rig.go().status == "finished"
    assert [event.step for event in rig.watch.of(RunStarted)] == [0, 12]
    assert rig.loop.progress.plan == {"excluded": [[24, 30]]}
    assert len(rig.watch.of(AlertRaised)) == 3


def test_what_was_done_is_told_in_a_sentence_although_the_branch_that_survives_shows_nothing(tmp_path: Path) -> None:
    rig = recovering(tmp_path / "run", spoilt(range(111, 116)))
    rig.go()
    sentence = "the run went back to step 100 and left out data positions 216 to 231"
    history = History.read(rig.run.record)
    (finding,) = (one for one in diagnose(Case(history)).findings if one.code == "loss-spike")
    assert (finding.severity, finding.onset_step) == ("info", 109)
    assert finding.cause.endswith(f"3 steps since 110 are high: {sentence}")
    live = History()
    for event in rig.watch.events:
        live.observe(event)
    assert live.rollbacks.made == history.rollbacks.made
    rows = gather(rig.run, Case(history), diagnose(Case(history))).steered()
    assert any(sentence in text for step, text in rows if step == 100)
    assert summarize(rig.run)["decisions"][0]["details"]["positions"] == [[216, 232]]
    assert "data positions 216 to 231 are left out" in render(summarize(rig.run))
