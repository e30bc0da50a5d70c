"""The doctor during a run says what it says afterwards of the same steps, each thing once, and survives a kill."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import cosine, falling, noise_of
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.control import Acts, Doctor, Tripwire
from trimtab.control import doctor as module
from trimtab.doctor import Case, Finding, Withheld
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.load import open_case
from trimtab.events import Advise, CheckpointSaved, EvaluationEnded, Event, ExaminationEnded, RunStarted, StepsEnded
from trimtab.runs import Recorder, RunDirectory
from trimtab.runs.history import History
from trimtab.testing import check_controller

STEPS, EVERY = 600, 50


def events(run: Path) -> Iterator[Event]:
    """A run that overfits from step 300 on, and is no number from step 560 on."""
    facts: dict[str, Any] = {"run": str(run), "epochs": 20.0, "identity": {"config.stopping.name": "none"}}
    yield RunStarted(0, 1, 0, None, STEPS, facts)
    loss, rates = falling(STEPS, floor=0.5), cosine(STEPS)
    loss[560:] = np.nan
    for first in range(1, STEPS + 1, 10):
        part = slice(first - 1, first + 9)
        layers = {"layer/a/grad_norm": 1.0 / first}
        per_step = {"train/loss": loss[part], "learning_rate": rates[part], "step_seconds": np.ones(10)}
        yield StepsEnded(first, first + 9, per_step, {}, layers)
        if (step := first + 9) % EVERY == 0:
            yield EvaluationEnded(step, {"validation/loss": 3.5 + 30 / step + max(0, step - 300) / 200}, 0.1)


def step_of(event: Event) -> int:
    return event.last_step if isinstance(event, StepsEnded) else event.step


def tell(doctor: Doctor, told: list[Event], recorder: Recorder | None = None) -> list[tuple[int, str]]:
    said = []
    for event in told:
        if recorder is not None:
            recorder.record(event)
        answer = doctor.decide(event)
        if answer is not None:
            assert isinstance(answer, Advise)
            said.append((step_of(event), str(answer.finding["code"])))
    return said


def test_while_it_has_nothing_to_say_it_keeps_the_contract_of_controllers(tmp_path: Path) -> None:
    # Beyond that its history comes from the record, which the test of a kill below writes.
    check_controller(Doctor, list(events(tmp_path))[1:30])


def test_it_says_each_thing_once(tmp_path: Path) -> None:
    said = tell(Doctor(), list(events(tmp_path)))
    assert [code for _, code in said] == ["overfitting", "nan-loss"]
    assert 350 <= said[0][0] <= 500
    assert said[1][0] == 600


TROUBLES = {
    "none": lambda loss, at: loss,
    "no number": lambda loss, at: np.where(np.arange(STEPS) >= at, np.nan, loss),
    "leaves": lambda loss, at: loss + np.clip(np.arange(STEPS) - at, 0, None) * 0.03,
    "spike": lambda loss, at: loss + 6.0 * np.isin(np.arange(STEPS), range(at, at + 5)),
    "scatters": lambda loss, at: loss + np.where(np.arange(STEPS) >= at, noise_of(STEPS, 5), 0.0),
}


def troubled(run: Path, kind: str, at: int, size: int) -> list[Event]:
    """A run in which something goes wrong from step `at` on, told in windows of `size` steps."""
    facts: dict[str, Any] = {"run": str(run), "epochs": 3.0, "task": "causal_lm", "tokens_per_step": 512}
    told: list[Event] = [RunStarted(0, 1, 0, None, STEPS, facts)]
    per_step = {
        "train/loss": TROUBLES[kind](falling(STEPS, seed=at), at),
        "learning_rate": cosine(STEPS),
        "grad_norm": np.exp(0.3 * noise_of(STEPS, at)) / 3,
        "step_seconds": 1.0 + 0.01 * noise_of(STEPS, at + 1),
    }
    for first in range(1, STEPS + 1, size):
        last = first + size - 1
        layers = {f"layer/{index}/grad_norm": float(np.exp(0.1 * index + np.sin(first))) for index in range(4)}
        part = {name: values[first - 1 : last] for name, values in per_step.items()}
        told.append(StepsEnded(first, last, part, {"tokens_per_second": 500.0 + np.sin(first)}, layers))
        if last % EVERY == 0:
            examined = {f"layer/{index}/dead_fraction": [0.1, np.nan, 1 / 3][(index + last) % 3] for index in range(4)}
            told.append(ExaminationEnded(last, {"probe/sharpness": 1 / 3}, 0.1, examined, {}))
            told.append(EvaluationEnded(last, {"validation/loss": 3.1 + 30 / last + 0.001 * float(np.sin(last))}, 0.1))
    return told


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(sorted(TROUBLES)),
    at=st.integers(100, 550),
    size=st.sampled_from([5, 10, 25]),
    cut=st.integers(1, STEPS // EVERY - 1),
    lost=st.integers(0, 3),
)
def test_its_findings_are_those_of_the_record_up_to_there_also_after_a_kill(
    kind: str, at: int, size: int, cut: int, lost: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        run = RunDirectory.create_at(Path(folder) / "run")
        told, asked, others = troubled(run.path, kind, at, size), [], []
        (run.path / "facts.json").write_text(json.dumps({"schema": 1, **told[0].facts}))  # type: ignore[union-attr]
        recorder = Recorder.open(run)

        def compared(case: Case) -> tuple[list[Finding], list[Withheld]]:
            asked.append(case.history.last_step)
            recorder.sync()
            live, afterwards = diagnose(case), diagnose(open_case(run))
            if repr(live) != repr(afterwards):
                others.append((case.history.last_step, live, afterwards))
            return list(live.findings), list(live.withheld)

        patch.setattr(module, "findings_of", compared)
        first, saved = Doctor(Tripwire(), now=lambda: 0.0), cut * EVERY
        kept = [event for event in told[1:] if step_of(event) <= saved]
        later = [event for event in told[1:] if step_of(event) > saved]
        tell(first, [told[0], *kept], recorder)
        state = json.loads(json.dumps(first.state()))
        tell(first, later[:lost], recorder)  # of a branch that is given up
        recorder.close()
        recorder = Recorder.open(run, branch=1)
        second = Doctor(Tripwire(), now=lambda: 0.0)
        second.load_state(state)
        tell(second, [RunStarted(saved, 2, 1, saved, STEPS, told[0].facts), *later], recorder)  # type: ignore[union-attr]
        recorder.close()
        assert set(asked) >= set(range(EVERY, STEPS + 1, EVERY))
        assert not others


def seconds_of(step_seconds: float, cost: float, acts: Acts | None = None) -> tuple[list[int], float]:
    """Where a doctor is asked whose every answer takes `cost` seconds, and the part of the run that all took."""
    clock, asked = [0.0], []

    def costly(case: Case) -> tuple[list[Finding], list[Withheld]]:
        asked.append(case.history.last_step)
        clock[0] += cost
        return [], []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "findings_of", costly)
        doctor = Doctor(None, acts, now=lambda: clock[0])
        for event in events(Path("nowhere")):
            if isinstance(event, StepsEnded):
                event = replace(event, per_step={**event.per_step, "step_seconds": np.full(10, step_seconds)})
            doctor.decide(event)
    return asked, clock[0] / (STEPS * step_seconds)


def test_advice_costs_a_thousandth_of_the_run_and_the_first_is_free() -> None:
    everywhere = list(range(EVERY, STEPS + 1, EVERY))
    assert seconds_of(1.0, 0.02)[0] == everywhere
    asked, part = seconds_of(0.05, 0.005)  # each has to earn five seconds, which are two evaluations
    assert asked == [50, *everywhere[3::2]]
    assert part <= 0.001
    assert seconds_of(0.001, 0.005)[0] == [EVERY]


def test_what_may_act_does_not_go_by_the_clock() -> None:
    assert seconds_of(0.001, 0.005, Acts())[0] == list(range(EVERY, STEPS + 1, EVERY))


def test_a_run_that_was_killed_gets_the_same_advice(tmp_path: Path) -> None:
    told = list(events(tmp_path))
    whole = tell(Doctor(), told)
    for cut in (30, 47, 61):
        run = RunDirectory.create_at(tmp_path / f"run-{cut}")
        facts = dict(told[0].facts) | {"run": str(run.path)}  # type: ignore[union-attr]
        first = Doctor()
        recorder = Recorder.open(run)
        before = tell(first, [RunStarted(0, 1, 0, None, STEPS, facts), *told[1:cut]], recorder)
        state, step = first.state(), next(e.step for e in reversed(told[:cut]) if isinstance(e, EvaluationEnded))
        # What was written after the checkpoint belongs to a branch that is given up.
        recorder.record(told[cut])
        recorder.close()
        restored = Doctor()
        restored.load_state(state)
        recorder = Recorder.open(run, branch=1)
        resumed = [e for e in told[1:] if (e.last_step if isinstance(e, StepsEnded) else e.step) > step]  # type: ignore[union-attr]
        after = tell(restored, [RunStarted(step, 2, 1, step, STEPS, facts), *resumed], recorder)
        recorder.close()
        assert before + [one for one in after if one not in before] == whole, cut


def test_asking_costs_little_at_the_end_of_a_long_run() -> None:
    history = History()
    steps = np.arange(1, 200_001)
    history.observe(RunStarted(0, 1, 0, None, len(steps)))
    for name in ("train/loss", "grad_norm", "learning_rate", "step_seconds", "data_seconds"):
        history.add(name, steps, falling(len(steps)) if name != "learning_rate" else cosine(len(steps)))
    diagnose(Case(history))
    times = []
    for step in range(len(steps) + 1, len(steps) + 51, 10):
        history.observe(StepsEnded(step, step + 9, {"train/loss": np.full(10, 3.1)}, {}))
        begun = time.process_time()
        diagnose(Case(history))
        times.append(time.process_time() - begun)
    assert min(times) < 0.025  # five times what it takes on a quiet processor


def leaving(run: Path, *, resumed_from: int | None = None) -> list[Event]:
    """A run that leaves for good at step 300, saved every hundred steps."""
    facts: dict[str, Any] = {
        "run": str(run),
        "identity": {"config.checkpoint.keep_latest": 2, "config.checkpoint.keep_best": 1},
    }
    loss = falling(STEPS, floor=0.5)
    loss[300:] = np.linspace(loss[299], 6.0, STEPS - 300)
    begun = RunStarted(resumed_from or 0, 1, 0, resumed_from, STEPS, facts)
    told: list[Event] = [begun]
    for first in range((resumed_from or 0) + 1, STEPS + 1, 10):
        last = first + 9
        told.append(StepsEnded(first, last, {"train/loss": loss[first - 1 : last], "step_seconds": np.ones(10)}, {}))
        if last % 100 == 0:
            told.append(EvaluationEnded(last, {"validation/loss": float(loss[last - 1])}, 0.1))
            told.append(CheckpointSaved(last, f"checkpoints/step-{last:08d}", 1, 0.1, "scheduled"))
    return told


def advice(doctor: Doctor, told: list[Event]) -> list[str]:
    answers = [doctor.decide(event) for event in told]
    return [answer.finding["remedies"][0]["summary"] for answer in answers if answer is not None]


def test_it_knows_the_checkpoints_also_when_a_kill_kept_the_newest_out_of_the_record(tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    whole = advice(Doctor(), leaving(run.path))
    assert whole[0].startswith("go back to the checkpoint of step 200")
    told = leaving(run.path)
    killed_at = next(i for i, e in enumerate(told) if isinstance(e, CheckpointSaved) and e.step == 200)
    recorder = Recorder.open(run)
    first = Doctor()
    for event in told[:killed_at]:  # the checkpoint is whole, and the process died before it was told
        recorder.record(event)
        first.decide(event)
    recorder.close()
    resumed = Doctor()
    resumed.load_state(first.state())
    later = leaving(run.path, resumed_from=200)
    recorder = Recorder.open(run, branch=1)
    recorder.record(later[0])
    recorder.close()
    assert advice(resumed, later) == whole
