"""Causes lead, what was not logged is withheld, and the JSON keeps to its schema."""

from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import numpy as np
import pytest
from cases import case_of, cosine, falling, noise_of
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.doctor import CODES, Evidence, Finding, Remedy
from trimtab.doctor.diagnose import diagnose, in_causal_order, verdict_of
from trimtab.doctor.lint import RULES as LINT_RULES
from trimtab.doctor.rules import RULES
from trimtab.doctor.schema import DIAGNOSIS_SCHEMA
from trimtab.runs.files import json_value


def finding(code: str, severity: str = "warning", onset: int = 10, confidence: float = 0.8) -> Finding:
    return Finding(
        code, severity, confidence, onset, f"{code} it is", (Evidence("train/loss", (onset, 20), 1, 0, code),)
    )  # type: ignore[arg-type]


def test_every_rule_and_lint_has_its_code_and_every_explained_code_exists() -> None:
    assert set(RULES) <= set(CODES)
    assert set(LINT_RULES) <= set(CODES)
    for code in CODES.values():
        assert set(code.explains) <= set(CODES)


def test_a_cause_leads_and_takes_over_what_it_explains() -> None:
    order = in_causal_order(
        [finding("underfitting"), finding("loss-spike", "error", 15, 0.99), finding("learning-rate-too-high")], 100
    )
    assert [one.code for one in order] == ["learning-rate-too-high"]
    assert order[0].severity == "error"
    assert set(order[0].consequences) == {"loss-spike", "underfitting"}
    assert {item.text for item in order[0].evidence} == {"learning-rate-too-high", "loss-spike", "underfitting"}


def test_a_cause_that_comes_too_late_explains_nothing() -> None:
    order = in_causal_order([finding("learning-rate-too-high", onset=90), finding("loss-spike", "error", 10)], 100)
    assert [one.code for one in order] == ["loss-spike", "learning-rate-too-high"]


def test_of_two_that_explain_each_other_the_earlier_leads() -> None:
    late_nan = in_causal_order([finding("nan-loss", "error", 60, 0.97), finding("divergence", "error", 50, 0.9)], 100)
    assert [(one.code, one.consequences) for one in late_nan] == [("divergence", ("nan-loss",))]
    early_nan = in_causal_order([finding("nan-loss", "error", 40, 0.9), finding("divergence", "error", 50, 0.97)], 100)
    assert [(one.code, one.consequences) for one in early_nan] == [("nan-loss", ("divergence",))]


def test_a_remark_explains_nothing() -> None:
    order = in_causal_order([finding("noisy-loss", "info"), finding("underfitting")], 100)
    assert [one.code for one in order] == ["underfitting", "noisy-loss"]


@given(
    st.lists(
        st.builds(
            finding,
            st.sampled_from(sorted(CODES)),
            st.sampled_from(["info", "warning", "error"]),
            st.integers(0, 100),
            st.floats(0, 1),
        ),
        max_size=8,
        unique_by=lambda one: one.code,
    )
)
@settings(max_examples=200, deadline=None)
def test_no_finding_is_lost_and_the_verdict_stays(findings: list[Finding]) -> None:
    order = in_causal_order(findings, 100)
    told = [code for one in order for code in (one.code, *one.consequences)]
    assert sorted(told) == sorted(one.code for one in findings)
    assert verdict_of(order) == verdict_of(findings)
    assert in_causal_order(list(reversed(findings)), 100) == order


def test_what_was_not_logged_is_withheld_and_says_what_to_log() -> None:
    diagnosis = diagnose(case_of(falling(400)))
    withheld = {item.code: item.needs for item in diagnosis.withheld}
    assert withheld["overfitting"] == ("validation/loss",)
    assert withheld["input-bound"] == ("data_seconds", "step_seconds")
    assert withheld["learning-rate-too-high"] == ("learning_rate",)
    assert "validation/loss" in diagnosis.summary
    assert diagnosis.verdict == "healthy"


def test_nothing_logged_is_no_crash() -> None:
    diagnosis = diagnose(case_of(np.array([])))
    assert diagnosis.findings == ()
    assert {item.code for item in diagnosis.withheld} == set(RULES)
    assert "no loss was logged" in diagnosis.summary


@pytest.mark.parametrize("steps", [1, 2, 5, 11, 30])
def test_very_short_runs_are_judged_without_a_crash_or_an_alarm(steps: int) -> None:
    loss = falling(steps, noise=0.02)
    assert diagnose(case_of(loss, rates=cosine(steps), validation={steps: 3.0})).verdict == "healthy"


def test_the_summary_is_three_sentences_with_the_lead_and_the_remedy() -> None:
    loss = falling(400)
    loss[250:] += np.linspace(0, 6, 150)
    diagnosis = diagnose(case_of(loss, rates=cosine(400)), "my run")
    assert diagnosis.verdict == "failed"
    assert diagnosis.findings[0].code == "divergence"
    assert "divergence" in diagnosis.summary
    assert "Next:" in diagnosis.summary


def made_up(kind: int) -> dict[str, object]:
    loss = falling(300)
    if kind == 1:
        loss[200:] = np.nan
    if kind == 2:
        loss[150:] += 5
    if kind == 3:
        loss[100:106] += 8
    return diagnose(
        case_of(
            loss,
            rates=cosine(300, 0.05),
            validation={step: 3.0 + 1e-5 * (step - 150) ** 2 for step in range(50, 301, 50)},
            grad_norm=1 + 0.1 * noise_of(300),
            data_seconds=np.full(300, 0.5),
            step_seconds=np.full(300, 1.0),
            facts={"parameters": {"total": 1e6, "non_embedding": 8e5, "frozen": 0}, "optimizer": "adamw"},
        ),
        "a run",
    ).to_json()


@pytest.mark.parametrize("kind", range(4))
def test_json_keeps_to_the_schema(kind: int) -> None:
    diagnosis = made_up(kind)
    text = json.dumps(json_value(diagnosis), allow_nan=False)
    jsonschema.Draft202012Validator(DIAGNOSIS_SCHEMA).validate(json.loads(text))
    assert diagnosis["findings"]


def test_the_schema_refuses_what_is_no_diagnosis() -> None:
    validator = jsonschema.Draft202012Validator(DIAGNOSIS_SCHEMA)
    sound = made_up(1)
    assert validator.is_valid(sound)
    assert not validator.is_valid({**sound, "verdict": "fine"})
    assert not validator.is_valid({**sound, "more": 1})
    assert not validator.is_valid({**sound, "findings": [{**sound["findings"][0], "code": "bad-luck"}]})  # type: ignore[index]


def test_the_doctor_starts_without_torch() -> None:
    code = "import sys; import trimtab.doctor.diagnose, trimtab.doctor.load; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_remedies_are_in_the_words_of_the_trainer() -> None:
    loss = falling(400)
    loss[250:] += np.linspace(0, 6, 150)
    case = case_of(loss, rates=cosine(400))
    for target, name in (("trimtab", "optimizer.learning_rate"), ("huggingface", "learning_rate")):
        told = diagnose(type(case)(case.history, case.config, case.facts, target))  # type: ignore[arg-type]
        configs = [remedy.config for remedy in told.findings[0].remedies if isinstance(remedy, Remedy)]
        assert any(name in config for config in configs)
