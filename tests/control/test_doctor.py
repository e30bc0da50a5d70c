"""The doctor during a run says what it says afterwards of the same steps, each thing once, and survives a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cases import cosine, falling

from trimtab.control import Doctor
from trimtab.doctor import Case
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.load import settings_of
from trimtab.events import Advise, CheckpointSaved, EvaluationEnded, Event, RunStarted, StepsEnded
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
        yield StepsEnded(first, first + 9, {"train/loss": loss[part], "learning_rate": rates[part]}, {}, layers)
        if (step := first + 9) % EVERY == 0:
            yield EvaluationEnded(step, {"validation/loss": 3.5 + 30 / step + max(0, step - 300) / 200}, 0.1)


def tell(doctor: Doctor, told: list[Event], recorder: Recorder | None = None) -> list[tuple[int, str]]:
    said = []
    for event in told:
        if recorder is not None:
            recorder.record(event)
        answer = doctor.decide(event)
        if answer is not None:
            assert isinstance(answer, Advise)
            step = event.last_step if isinstance(event, StepsEnded) else event.step
            said.append((step, str(answer.finding["code"])))
    return said


def test_while_it_has_nothing_to_say_it_keeps_the_contract_of_controllers(tmp_path: Path) -> None:
    # Beyond that its history comes from the record, which the test of a kill below writes.
    check_controller(Doctor, list(events(tmp_path))[1:30])


def test_it_says_each_thing_once_and_what_would_be_said_afterwards(tmp_path: Path) -> None:
    told = list(events(tmp_path))
    said = tell(Doctor(), told)
    assert [code for _, code in said] == ["overfitting", "nan-loss"]
    for step, code in said:
        prefix = History()
        for event in told:
            if (event.last_step if isinstance(event, StepsEnded) else event.step) <= step:
                prefix.observe(event)
        facts = told[0].facts  # type: ignore[union-attr]
        assert code in {finding.code for finding in diagnose(Case(prefix, settings_of(facts), facts)).findings}
    assert 350 <= said[0][0] <= 500
    assert said[1][0] == 600


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
    import time

    history = History()
    steps = np.arange(1, 200_001)
    history.observe(RunStarted(0, 1, 0, None, len(steps)))
    for name in ("train/loss", "grad_norm", "learning_rate", "step_seconds", "data_seconds"):
        history.add(name, steps, falling(len(steps)) if name != "learning_rate" else cosine(len(steps)))
    case = Case(history)
    diagnose(case)
    begun = time.process_time()
    for _ in range(5):
        diagnose(case)
    assert (time.process_time() - begun) / 5 < 0.2


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
        told.append(StepsEnded(first, last, {"train/loss": loss[first - 1 : last]}, {}))
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
