"""What is done about findings: what can be undone, within a budget, to the same after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab import LanguageModelTrainer
from trimtab.config import load_config
from trimtab.control import Acts, Doctor, Tripwire, build_controllers
from trimtab.control import doctor as module
from trimtab.doctor import Case
from trimtab.doctor.finding import Finding, Withheld
from trimtab.errors import ConfigError
from trimtab.events import (
    Adjust,
    Decision,
    DecisionTaken,
    EvaluationEnded,
    Event,
    Rollback,
    RunStarted,
    StepsEnded,
    Stop,
)
from trimtab.testing import check_controller


def found(code: str, onset: int = 50, severity: Any = "error", confidence: float = 0.9) -> Finding:
    return Finding(code, severity, confidence, onset, "the loss left")


def act(acts: Acts, *findings: Finding, step: int = 100, outcome: Any = "taken", note: str = "") -> Decision | None:
    acts.consider(findings, step)
    decision = acts.take()
    if decision is not None:
        acts.hear(DecisionTaken(step, step, "doctor", decision, outcome, note))
    return decision


def test_each_code_has_its_act_and_others_none() -> None:
    assert act(Acts(), found("divergence")) == Rollback(
        "divergence: the loss left; act 1 of 3", 50, learning_rate=0.3, code="divergence"
    )
    nan = act(Acts(), found("nan-loss"))
    assert isinstance(nan, Rollback)
    assert (nan.exclude_steps, nan.to_the_newest, nan.learning_rate) == (((50, 100),), True, 0.3)
    assert act(Acts(), found("learning-rate-too-high", severity="warning")) == Adjust(
        "learning-rate-too-high: the loss left; act 1 of 3", "learning_rate", 0.3
    )
    assert act(Acts(), found("overfitting", severity="warning")) == Stop(
        "overfitting: the loss left; act 1 of 3", restore_best=True
    )
    assert act(Acts(), found("underfitting")) is None


def test_what_is_mild_unsure_or_decided_elsewhere_is_left() -> None:
    assert act(Acts(), found("nan-loss", severity="warning")) is None
    assert act(Acts(), found("overfitting", severity="info")) is None
    assert act(Acts(), found("divergence", confidence=0.7)) is None
    assert act(Acts(stops=False), found("overfitting")) is None
    assert isinstance(act(Acts(stops=False), found("overfitting"), found("divergence")), Rollback)


def test_a_code_is_acted_upon_again_only_where_it_begins_anew() -> None:
    acts = Acts()
    assert act(acts, found("divergence", 50), step=100) is not None
    acts.starts(40)
    assert act(acts, found("divergence", 40), step=60) is None
    again = act(acts, found("divergence", 55), step=80)
    assert isinstance(again, Rollback)
    assert again.learning_rate == pytest.approx(0.09)


def test_the_budget_ends_it_and_a_refusal_costs_nothing() -> None:
    acts = Acts(budget=2)
    refused = act(acts, found("divergence"), outcome="overruled")
    assert refused is not None
    assert refused.reason.endswith("act 1 of 2")
    codes = ("divergence", "learning-rate-too-high", "nan-loss")
    taken = [act(acts, found(code)) for code in codes]
    assert [one is not None for one in taken] == [True, True, False]


def test_where_no_checkpoint_is_kept_the_rate_is_lowered() -> None:
    acts = Acts()
    act(acts, found("divergence"), outcome="overruled", note="no whole checkpoint lies before step 50")
    lower = acts.take()
    assert isinstance(lower, Adjust)
    assert "it cannot go back: no whole checkpoint" in lower.reason
    assert lower.value == 0.3


def test_a_rollback_that_a_kill_cut_short_counts_as_made() -> None:
    told, untold, nothing = Acts(), Acts(), Acts()
    act(told, found("divergence", 50), step=100)
    untold.consider([found("divergence", 50)], 100)
    untold.take()  # decided and written down; nobody is told any more
    for acts in (told, untold, nothing):
        acts.starts(40)
    assert told.state() == untold.state() != nothing.state()
    nothing.consider([found("divergence", 50)], 100)
    nothing.starts(100)  # resumed where it was saved: what waits is done
    assert isinstance(nothing.take(), Rollback)


def test_state_is_all_that_it_remembers() -> None:
    acts = Acts()
    act(acts, found("divergence"))
    acts.starts(40)
    acts.consider([found("learning-rate-too-high")], 60)
    other = Acts()
    other.load_state(json.loads(json.dumps(acts.state())))
    assert other.take() == acts.take()
    assert other.state() == acts.state()


def saying(monkeypatch: pytest.MonkeyPatch, *rows: tuple[int, int, Finding]) -> list[int]:
    """A doctor that finds, between two steps, what is given; the steps at which it was asked."""
    asked: list[int] = []

    def findings_of(case: Case) -> tuple[list[Finding], list[Withheld]]:
        step = case.history.last_step
        asked.append(step)
        return [finding for first, last, finding in rows if first <= step <= last], []

    monkeypatch.setattr(module, "findings_of", findings_of)
    return asked


def told(steps: int = 200, every: int = 50, loss: np.ndarray | None = None) -> list[Event]:
    values = np.ones(steps) if loss is None else loss
    events: list[Event] = [RunStarted(0, 1, 0, None, steps, {"run": "nowhere"})]
    for first in range(1, steps + 1, 10):
        events.append(StepsEnded(first, first + 9, {"train/loss": values[first - 1 : first + 9]}, {}))
        if (first + 9) % every == 0:
            events.append(EvaluationEnded(first + 9, {"validation/loss": 1.0}, 0.1))
    return events


def test_it_tells_first_then_acts_and_loses_nothing_to_answers_that_nobody_hears(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saying(monkeypatch, (50, 200, found("learning-rate-too-high")), (50, 200, found("underfitting")))
    doctor, said = Doctor(None, Acts()), []
    for event in told():
        answer = doctor.decide(event)
        if answer is not None:
            said.append((type(event).__name__, type(answer).__name__, answer.reason.partition(":")[0]))
            step = event.last_step if isinstance(event, StepsEnded) else event.step
            assert doctor.decide(DecisionTaken(step, step, "doctor", answer)) is None
    assert said == [
        ("EvaluationEnded", "Advise", "learning-rate-too-high"),
        ("StepsEnded", "Adjust", "learning-rate-too-high"),
        ("StepsEnded", "Advise", "underfitting"),
    ]


def test_the_tripwire_has_it_asked_between_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = saying(monkeypatch)
    loss = 1.0 + 0.01 * np.sin(np.arange(200))
    loss[120:] += np.linspace(0.0, 3.0, 80)
    doctor = Doctor(Tripwire())
    for event in told(loss=loss):
        doctor.decide(event)
    between = sorted(set(asked) - {50, 100, 150, 200})
    assert between
    assert between[0] in range(121, 150)


def test_it_keeps_the_contract_of_controllers(monkeypatch: pytest.MonkeyPatch) -> None:
    saying(monkeypatch, (50, 200, found("learning-rate-too-high")))
    check_controller(lambda: Doctor(Tripwire(), Acts()), told()[1:])


def test_settings_build_it_and_ask_for_nothing_idle() -> None:
    def built(*overrides: str) -> Doctor:
        (one,) = [one for one in build_controllers(load_config("gpt-1m", overrides)) if isinstance(one, Doctor)]
        return one

    assert built().state()["acts"] is None
    assert built().state()["tripwire"] is not None
    acting = built("doctor.policy={name: act, budget: 2}", "doctor.watch=false")
    assert acting.state()["acts"] is not None
    assert acting.state()["tripwire"] is None
    with pytest.raises(ConfigError, match=r"doctor\.live is false"):
        load_config("gpt-1m", ["doctor.live=false", "doctor.policy={name: act}"])


SETTINGS: dict[str, Any] = {
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 32,
    "model": {"name": "decoder", "num_layers": 1, "hidden_size": 32, "num_heads": 2},
    "schedule": {"name": "constant", "warmup": 0},
    "optimizer.learning_rate": 5e-3,
    "training.steps": 40,
    "training.micro_batch_size": 4,
    "evaluation.every": 10,
    "evaluation.max_tokens": 1024,
    "evaluation.gap_tokens": 0,
    "evaluation.samples.max_tokens": 0,
    "evaluation.yardsticks": False,
    "logging.every": 5,
    "logging.layers": False,
    "stopping": {"name": "none"},
    "doctor.policy": {"name": "act", "budget": 2},
    "lint.allow": [],
}


class Killed:
    """Ends the run by an interrupt at the end of a window."""

    def __init__(self, at: int | None) -> None:
        self.at = at

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step == self.at:
            raise KeyboardInterrupt


def test_a_real_run_goes_back_and_slower_and_after_a_kill_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.py"
    text.write_text(Path(json.__file__).read_text() * 3)

    def findings_of(case: Case) -> tuple[list[Finding], list[Withheld]]:
        """Of the newest rate alone, so that an act is what ends the finding."""
        rates, step = case.history.get("learning_rate"), case.history.last_step
        assert rates is not None
        rate, findings = float(rates.mean[-1]), []
        if step >= 20 and rate > 4e-3:
            findings.append(found("divergence", 15))
        if step >= 30 and rate > 1e-3:
            findings.append(found("learning-rate-too-high", 28, "warning"))
        return findings, []

    monkeypatch.setattr(module, "findings_of", findings_of)

    def run(name: str, kills: int | None = None) -> LanguageModelTrainer:
        trainer = LanguageModelTrainer(
            text, settings=SETTINGS, run=tmp_path / name, progress=False, monitors=[Killed(kills)]
        )
        trainer.fit()
        return trainer

    def decisions(name: str) -> list[tuple[int, str, Any]]:
        lines = [json.loads(line) for line in (tmp_path / name / "record.jsonl").read_text().splitlines()]
        told = [line["decision"] | {"step": line["step"]} for line in lines if line["event"] == "DecisionTaken"]
        return [
            (one["step"], one["kind"], one["learning_rate"] if one["kind"] == "Rollback" else one["value"])
            for one in told
            if one["kind"] in ("Rollback", "Adjust")
        ]

    whole = run("whole")
    assert [kind for _, kind, _ in decisions("whole")] == ["Rollback", "Adjust"]
    assert [round(value, 6) for _, _, value in decisions("whole")] == [0.3, 0.09]
    with pytest.raises(KeyboardInterrupt):
        run("killed", kills=35)
    resumed = run("killed")
    assert sorted(set(decisions("killed"))) == decisions("whole")
    for name, value in whole.model.state_dict().items():
        assert value.equal(resumed.model.state_dict()[name]), name
