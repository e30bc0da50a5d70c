"""Causes lead, what was not logged is withheld, and the JSON keeps to its schema."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest
from cases import case_of, cosine, falling, noise_of
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.doctor import CODES, Case, Evidence, Finding, Remedy
from trimtab.doctor.diagnose import diagnose, in_causal_order, verdict_of
from trimtab.doctor.lint import RULES as LINT_RULES
from trimtab.doctor.rules import RULES
from trimtab.doctor.schema import DIAGNOSIS_SCHEMA
from trimtab.events import EvaluationEnded, RunEnded
from trimtab.report.text import render_text
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


@pytest.mark.parametrize("fault", ["random-labels", "frozen-parameters"])
def test_no_setting_is_proposed_against_data_or_code_that_is_at_fault(fault: str) -> None:
    look = Remedy("look at ten samples")
    dropout = Remedy("more dropout", "trimtab", {"model.dropout.residual": 0.3})
    explained = CODES[fault].explains[0]
    cause = replace(finding(fault), remedies=(look,))
    effect = replace(finding(explained), remedies=(dropout,))
    [one] = in_causal_order([cause, effect], 100)
    assert (one.consequences, one.remedies) == ((explained,), (look,))
    [other] = in_causal_order(
        [
            replace(finding("learning-rate-too-high"), remedies=(look,)),
            replace(finding("noisy-loss"), remedies=(dropout,)),
        ],
        100,
    )
    assert other.remedies == (look, dropout)


def test_of_a_foreign_log_only_what_can_be_logged_is_asked_for() -> None:
    diagnosis = diagnose(case_of(falling(400)))
    told = render_text(diagnosis)
    assert "facts." not in told
    assert "yardsticks" not in told
    asked = [line for line in told.split("not judged")[1].splitlines() if line.startswith("  - ")]
    assert len(asked) == 4
    assert "more, with --json" in told
    assert "facts." not in diagnosis.summary
    kept = tuple(one for one in diagnosis.withheld if "facts." in one.needs[0])
    assert "facts." in render_text(replace(diagnosis, withheld=kept), settings={"seed": 1})


def test_of_hugging_face_stopping_is_asked_for_with_all_that_it_needs() -> None:
    at = np.arange(200, 2001, 200)
    rising = dict(zip(at.tolist(), (2.6 + np.maximum(0, at - 400) / 1000).tolist(), strict=True))
    case = replace(case_of(falling(2000, floor=0.05), validation=rising), target="huggingface")
    [remedy] = [
        one
        for told in diagnose(case).findings
        for one in told.remedies
        if told.code == "overfitting" and "load_best_model_at_end" in one.config
    ]
    assert "EarlyStoppingCallback" in remedy.summary
    assert (remedy.config["eval_strategy"], remedy.config["save_strategy"]) == ("steps", "steps")
    assert (remedy.config["eval_steps"], remedy.config["save_steps"]) == (200, 200)


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


def test_of_a_run_of_our_own_the_setting_is_named_that_a_signal_waits_for() -> None:
    def asked(**config: Any) -> tuple[str, ...]:
        case = Case(case_of(falling(400)).history, {f"logging.{key}": value for key, value in config.items()})
        return {item.code: item.needs for item in diagnose(case).withheld}["dead-units"]

    signals = "layer/*/dead_fraction or layer/*/grad_norm"
    assert asked(**{"examine.every": 0, "layers": False}) == (f"{signals} (logging.examine.every, logging.layers)",)
    assert asked(**{"examine.every": 0, "layers": True}) == (f"{signals} (logging.examine.every)",)
    assert asked(**{"examine.every": 50, "layers": True}) == (signals,)
    assert asked() == (signals,)


@pytest.mark.parametrize(("task", "is_asked"), [("regression", False), ("causal_lm", False), ("classification", True)])
def test_overconfident_is_withheld_of_classes_alone(task: str, is_asked: bool) -> None:
    case = case_of(falling(400), validation={step: 3.2 + 20 / step for step in range(40, 401, 40)})
    diagnosis = diagnose(Case(case.history, case.config, {"task": task}))
    assert ("overconfident" in {item.code for item in diagnosis.withheld}) == is_asked


def test_nothing_logged_is_no_crash() -> None:
    diagnosis = diagnose(case_of(np.array([])))
    assert diagnosis.findings == ()
    needed = {code for code in RULES if CODES[code].signals}
    assert {item.code for item in diagnosis.withheld} == {
        *needed,
        "throughput-decay",
    }  # which knows many names of speed
    assert "no loss is known" in diagnosis.summary


@pytest.mark.parametrize("steps", [1, 2, 5, 11, 30])
def test_very_short_runs_are_judged_without_a_crash_or_an_alarm(steps: int) -> None:
    loss = falling(steps, noise=0.02)
    assert diagnose(case_of(loss, rates=cosine(steps), validation={steps: 3.0})).verdict == "healthy"


def length(steps: int, lowest: float, *, tokens: float = 100.0, parameters: float = 1e6, done: bool = True) -> Case:
    """A run of so many steps that was still falling where it ended; counting pairs reaches 4.0, single tokens 6.0."""
    yardsticks = {"bigram": 4.0 / LN2, "unigram": 6.0 / LN2, "judged_tokens": 100, "judged_bytes": 100}
    return case_of(
        np.linspace(8.0, lowest, steps),
        validation={steps: lowest},
        total_steps=steps if done else 10 * steps,
        tokens=np.full(steps, tokens),
        facts={
            "parameters": {"total": parameters},
            "yardsticks": yardsticks,
            "tokenizer": {"vocabulary_size": 3000},
            "task": "causal_lm",
        },
    )


LN2 = 0.6931471805599453


@pytest.mark.parametrize(
    "case",
    [
        length(10, 7.0),
        length(10, 4.5),  # better than single tokens, which is no feat
        length(200, 6.5),  # far longer, and knows no more than how frequent tokens are
        length(200, 5.9),  # 0.02 tokens for each parameter: on its way, which is no result
    ],
)
def test_a_run_of_far_too_few_steps_is_not_healthy(case: Case) -> None:
    diagnosis = diagnose(case)
    assert diagnosis.verdict == "attention"
    (finding,) = diagnosis.findings
    assert finding.code == "stopped-too-early"
    steps = case.history.last_step
    assert finding.cause.startswith(
        f"{steps} steps are far too few, with {100 * steps / 1e6:.2g} tokens for each param"
    )
    assert finding.remedies[0].config == {"training.steps": 200_000}, "20 tokens for each parameter"
    assert "far too few" in diagnosis.summary


@pytest.mark.parametrize(
    "case",
    [
        length(10, 3.9),  # better than counting pairs
        length(10, 7.0, tokens=2e5),  # a short run of large batches
        length(10, 7.0, done=False),  # not over
        length(10, 8.5),  # does not fall: another fault, if any
    ],
)
def test_a_short_run_that_is_on_its_way_is_left_in_peace(case: Case) -> None:
    assert "stopped-too-early" not in [finding.code for finding in diagnose(case).findings]


def test_a_run_on_its_way_that_saw_few_tokens_is_sound_and_told_to_go_on() -> None:
    diagnosis = diagnose(length(200, 5.9, tokens=2000.0))
    assert diagnosis.verdict == "healthy"
    (finding,) = diagnosis.findings
    assert (finding.code, finding.severity) == ("stopped-too-early", "info")
    assert finding.cause == (
        "200 steps are few, with 0.4 tokens for each parameter: the model does no better than counting pairs of "
        "tokens, and its loss was still falling"
    )
    assert diagnosis.summary.endswith("To go on: train longer, for about 10,000 steps.")
    assert diagnose(length(200, 3.9, tokens=2000.0)).findings == ()


def test_fewer_tokens_are_no_better_for_a_loss_that_flattens() -> None:
    """A batch ten times smaller must not turn a warning into nothing."""
    short = length(200, 5.9)
    flat = np.concatenate([np.linspace(8.0, 5.95, 100), np.linspace(5.95, 5.86, 100)])
    case = case_of(flat, validation={200: 5.9}, tokens=np.full(200, 100.0), facts=short.facts)
    (finding,) = [one for one in diagnose(case).findings if one.code == "stopped-too-early"]
    assert finding.severity == "warning"
    assert finding.cause.endswith("counting pairs of tokens")


def test_what_keeps_a_run_from_learning_explains_that_it_is_no_better_than_counting() -> None:
    order = in_causal_order([finding("stopped-too-early", onset=100, confidence=0.9), finding("noisy-loss")], 100)
    assert [(one.code, one.consequences) for one in order] == [("noisy-loss", ("stopped-too-early",))]


def test_of_a_few_steps_the_summary_says_that_they_show_little() -> None:
    assert "; 10 steps show few faults." in diagnose(case_of(falling(10, noise=0.0))).summary
    assert "show few faults" not in diagnose(case_of(falling(100, noise=0.0))).summary


def test_a_run_that_ended_in_failure_is_not_healthy() -> None:
    """Though no rule sees in its curves why."""
    case = case_of(falling(100, noise=0.0))
    case.history.observe(RunEnded(100, "failed", "the run went back 3 times already", None, None, None, 0.0, {}))
    diagnosis = diagnose(case)
    assert diagnosis.verdict == "failed"
    assert "It ended in failure: the run went back 3 times already." in diagnosis.summary


def test_a_run_that_came_to_no_step_cannot_be_judged() -> None:
    assert "nothing can be judged" in diagnose(case_of(np.array([]))).summary


def evaluated(evaluation: float, training: float, **config: Any) -> Case:
    case = case_of(falling(300), rates=cosine(300), validation={s: 3.2 + 20 / s for s in range(10, 301, 10)})
    split = {"start": 50.0, "training": training, "evaluation": evaluation, "data": 0.1, "checkpoint": 0.1}
    for step in range(10, 301, 10):
        case.history.observe(EvaluationEnded(step, {}, evaluation / 30))
    case.history.observe(RunEnded(300, "finished", "", None, None, None, 0.0, split))
    known = {"evaluation.every": 10, "evaluation.gap_tokens": 65_536, "evaluation.max_tokens": None}
    facts = {"validation": {"tokens": 30_000}}
    return Case(case.history, known | {f"evaluation.{key}": value for key, value in config.items()}, facts)


def test_evaluations_that_take_most_of_the_time_are_remarked_with_what_to_set() -> None:
    diagnosis = diagnose(evaluated(390.0, 110.0))
    (finding,) = diagnosis.findings
    assert (finding.code, finding.severity) == ("evaluation-bound", "warning")
    assert finding.cause == "evaluations took 6m 30s, 78% of the time"
    configs = [dict(remedy.config) for remedy in finding.remedies]
    assert {"evaluation.gap_tokens"} in [set(config) for config in configs]
    # They must be 31.9 times as cheap: 6 times by being rarer, so that five are left, and the rest by being shorter.
    assert configs[0] == {"evaluation.every": 60, "evaluation.max_tokens": 5651}
    assert finding.remedies[0].summary == "evaluate every 60 steps, and judge 5,651 tokens of the validation text"
    (finding,) = diagnose(evaluated(390.0, 110.0, every=100)).findings
    assert finding.remedies[0].config == {"evaluation.max_tokens": 4096}, "fewer than five are not made fewer"
    (finding,) = diagnose(evaluated(90.0, 91.8, every=2)).findings
    # 90 s beside 92: to be a tenth of the time, evaluations must be 8.8 times as rare.
    assert finding.remedies[0].config == {"evaluation.every": 18}
    assert finding.severity == "info"
    assert diagnose(evaluated(30.0, 31.0)).findings == (), "nobody minds half a minute, but where it is most of all"
    assert diagnose(evaluated(200.0, 600.0)).findings == ()


def averaged(evaluate: str, *, rises: bool) -> Case:
    """Plain weights to step 500, then their average; of which the loss rises while that of training falls on."""
    history = case_of(falling(1000, noise=0.02), rates=cosine(1000)).history
    for step in range(50, 1001, 50):
        late = step > 500
        suffix = "@swa" if late else ""
        loss = 4.0 - step / 1000 + (max(0, step - 600) / 300 if rises else 0.0)
        values = {"validation/loss": loss, "training_slice/loss": 4.0 - step / 1000}
        values["generalization_gap"] = values["validation/loss"] - values["training_slice/loss"]
        for name, value in values.items():
            history.add(name + suffix, np.array([step]), np.array([value]))
    config = {"averaging.name": "swa", "averaging.evaluate": evaluate, "checkpoint.metric": "validation/loss@swa"}
    return Case(history, config, {"epochs": 20.0})


def test_where_only_an_average_is_judged_it_is_what_the_rules_look_at() -> None:
    case = averaged("average", rises=True)
    for metric in ("validation/loss", "generalization_gap", "training_slice/loss"):
        series = case.evaluated(metric)
        assert series is not None
        assert series.steps.tolist() == list(range(50, 1001, 50)), metric
    lead = diagnose(case).findings[0]
    assert (lead.code, lead.severity) == ("overfitting", "warning")
    assert any(item.metric == "training_slice/loss" for item in lead.evidence)
    assert diagnose(averaged("average", rises=False)).verdict == "healthy"


def test_without_plain_evaluations_nothing_is_withheld_for_want_of_them() -> None:
    case = case_of(falling(400), rates=cosine(400), config={"averaging.name": "ema", "averaging.evaluate": "average"})
    for step in range(50, 401, 50):
        case.history.add("validation/loss@ema", np.array([step]), np.array([3.0 + 20 / step]))
    assert "validation/loss" not in [need for item in diagnose(case).withheld for need in item.needs]


def test_the_summary_names_the_best_of_the_weights_that_the_run_chooses_by() -> None:
    history = case_of(falling(400), rates=cosine(400)).history
    for step in range(50, 401, 50):
        history.add("validation/loss", np.array([step]), np.array([3.5 + 20 / step]))
        history.add("validation/loss@ema", np.array([step]), np.array([3.1 + abs(step - 300) / 1000]))
    both = {"averaging.name": "ema", "averaging.evaluate": "both"}
    chosen = diagnose(Case(history, both | {"checkpoint.metric": "validation/loss@ema"}))
    assert "the best validation loss of the ema weights is 3.1" in chosen.summary
    assert "at step 300" in chosen.summary
    plain = diagnose(Case(history, both | {"checkpoint.metric": "validation/loss"}))
    assert "the best validation loss is 3.55" in plain.summary


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
