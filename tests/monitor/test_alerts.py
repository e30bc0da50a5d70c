"""Alerts: when rules are met, how often that is told, and that it arrives."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from trimtab.cli import app
from trimtab.config import AlertRule, AlertsConfig, Condition, Config, EmailConfig, WebhookConfig, load_config
from trimtab.config.alerts import parse_condition
from trimtab.doctor.lint import alert_on_unknown, lint, refuse
from trimtab.errors import ConfigError, ResourceError
from trimtab.events import (
    AlertRaised,
    ArtifactLogged,
    EvaluationEnded,
    Event,
    ExaminationEnded,
    FindingsChanged,
    RunEnded,
    RunStarted,
    StepsEnded,
)
from trimtab.monitor.alert_messages import to_email, to_file, to_webhook
from trimtab.monitor.alert_rules import Met, Watcher
from trimtab.monitor.alerts import Alerts, open_alerts, require_destinations
from trimtab.monitor.couriers import WAITING, Courier, RefusedError
from trimtab.monitor.sinks import Console
from trimtab.runs import Recorder, RunDirectory
from trimtab.runs.metrics import METRICS

sys.path.insert(0, str(Path(__file__).parent))
from servers import certificate, deaf_server, http_server, smtp_server

MESSAGE = {"run": "demo", "rule": "diverges", "step": 340, "text": "demo, step 340: diverges: train/loss is 12.3, > 10"}


def window(first: int, losses: Sequence[float], **values: float) -> StepsEnded:
    return StepsEnded(first, first + len(losses) - 1, {"train/loss": np.array(losses, dtype=float)}, values)


def met(when: str, *events: Event) -> list[Met]:
    watcher = Watcher(AlertRule(when=when))
    return [one for event in events for one in watcher.watch(event)]


# ---- what a rule says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("train/loss > 10 for 20 steps", Condition("compare", "train/loss", ">", 10.0, 20)),
        ("validation/accuracy@ema  below 0.5", Condition("compare", "validation/accuracy@ema", "<", 0.5)),
        ("tokens_per_second <= 1e3 for 1 step", Condition("compare", "tokens_per_second", "<=", 1000.0)),
        ("layer/*/grad_norm is not finite", Condition("not_finite", "layer/*/grad_norm")),
        ("train/loss>5", Condition("compare", "train/loss", ">", 5.0)),
        ("train/loss>=5 for 2 steps", Condition("compare", "train/loss", ">=", 5.0, 2)),
        ("grad_norm is not finite for 3 steps", Condition("not_finite", "grad_norm", steps=3)),
        ("validation/loss changes by 12.5 % over 3 steps", Condition("change", "validation/loss", "", 0.125, 3)),
        ("memory_bytes changes by 50%", Condition("change", "memory_bytes", "", 0.5)),
        ("finding overfitting", Condition("finding", "overfitting")),
        ("trouble any", Condition("trouble", "any")),
        ("end failed", Condition("end", "failed")),
    ],
)
def test_conditions(text: str, condition: Condition) -> None:
    assert parse_condition(text) == condition


@pytest.mark.parametrize(
    "text",
    ["", "train/loss", "train/loss >> 3", "train/loss > ten", "trouble spikes", "end well", "loss > 3 for 0.5 steps"],
)
def test_what_is_no_condition_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ConfigError, match=r"METRIC > NUMBER \[for N steps\]"):
        load_config(None, environment={}, overrides=[f"alerts.rules={{a: {{when: {json.dumps(text)}}}}}"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("alerts.rules={a: {when: end any, to: [webhook]}}", "alerts.webhook={} takes the address"),
        ("alerts.rules={a: {when: end any, to: [email]}}", "alerts.email={recipients:"),
        ("alerts.rules={a: {when: end any, to: []}}", "alerts.rules.a.to: must have 1 entry or more"),
        ("alerts.rules={a: {when: end finishd}}", "did you mean 'end finished'?"),
        ("alerts.rules={a: {wen: end any}}", "did you mean 'when'?"),
        ("alerts.rules={a: {}}", "alerts.rules.a.when: must be given"),
        ("alerts.rules={a: {when: train/loss > 3 for 0 steps}}", "1 step or more"),
        ("alerts.webhook={address_from: TRIMTAB_HOOK}", "not begin with TRIMTAB_"),
        ("alerts.email={recipients: [a@b], sender: c@d, password_from: TRIMTAB_X}", "not begin with TRIMTAB_"),
        ("alerts.rules={'a b': {when: end any}}", "a rule's name must be letters"),
        ("alerts.webhook.form=slack", "no rule in alerts.rules goes to webhook"),
        ("alerts.email={recipients: [a@b], sender: c@d, host: far, user: u, security: none}", "in clear text"),
        ("alerts.email={recipients: [], sender: c@d}", "recipients"),
    ],
)
def test_what_cannot_be_told_is_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, environment={}, overrides=[override])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("when", "near"),
    [
        ("train/los > 10", "did you mean 'train/loss'?"),
        ("grad_nrm is not finite", "'grad_norm'"),
        ("finding overfiting", "'overfitting'"),
        ("learningrate > 1", "'learning_rate'"),
        ("user/x < 0", "in records alone"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_the_nearest(when: str, near: str) -> None:
    config = load_config(None, environment={}, overrides=[f"alerts.rules={{a: {{when: {json.dumps(when)}}}}}"])
    with pytest.raises(ConfigError) as caught:
        refuse(lint(config), config.lint.allow)
    assert near in str(caught.value)
    refuse(lint(config), ["alert-on-unknown"])


def test_what_examinations_measure_needs_one() -> None:
    def found(*overrides: str) -> list[str | None]:
        rules = ["alerts.rules={a: {when: probe/loss > 1}}", "training.steps=90", *overrides]
        config = load_config(None, environment={}, overrides=rules)
        return [one.fix for one in lint(config) if one.code == "alert-on-unknown"]

    assert found() == ["logging.examine.every=9"]
    assert found("logging.examine.every=9") == []
    assert found("training.steps=200") == []


@pytest.mark.parametrize(
    "when",
    [
        "train/loss > 1",
        "layer/*/grad_norm > 1",
        "layer/blocks.0/grad_norm > 1",
        "validation/loss@ema > 1",
        "validation/held-out/loss > 3",
        "group/head.*/learning_rate > 1",
        "finding warning",
        "finding plateau",
    ],
)
def test_names_that_exist_and_families_are_taken(when: str) -> None:
    config = Config(alerts=AlertsConfig(rules={"a": AlertRule(when=when)}))
    refuse(lint(config), ())


# ---- when it is met ------------------------------------------------------------------------------------------------


def test_so_many_steps_in_a_row_across_windows() -> None:
    events = [window(1, [1, 11, 11]), window(4, [11, 1, 11]), window(7, [11, 11, 11, 11])]
    assert met("train/loss > 10 for 4 steps", *events) == [
        Met(10, "train/loss is 11.000, > 10, since step 6", "train/loss", 11.0)
    ]
    assert [one.step for one in met("train/loss > 10 for 3 steps", *events)] == [4, 10]
    assert met("train/loss > 10 for 6 steps", *events) == []


def test_nan_is_not_above_and_not_below() -> None:
    events = [window(1, [math.nan, math.inf, 1.0])]
    assert [one.step for one in met("train/loss > 10", *events)] == [2]
    assert met("train/loss < 0.5", *events) == []
    assert met("train/loss is not finite", *events)[0].text == "train/loss is inf, since step 1"
    assert met("train/loss is not finite for 3 steps", *events) == []


def test_a_value_of_a_window_counts_for_its_steps_and_an_evaluation_for_its_own() -> None:
    slow = [window(1, [1.0] * 10, tokens_per_second=5.0), window(11, [1.0] * 10, tokens_per_second=5.0)]
    assert [one.step for one in met("tokens_per_second < 10 for 20 steps", *slow)] == [20]
    judged = [EvaluationEnded(step, {"validation/loss": 3.0}, 0.1) for step in (10, 20, 30)]
    assert [one.step for one in met("validation/loss > 2 for 11 steps", *judged)] == [20, 30]


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_of_the_table_is_watched_or_refused(name: str) -> None:
    said = re.sub("<[^<>]+>", "x", name).replace("x@x", "validation/loss@ema")
    rules = {"a": AlertRule(when=f"{said} > 1")}
    if list(alert_on_unknown.check(Config(alerts=AlertsConfig(rules=rules)), {})):
        assert name.startswith(("rank/", "ranks/", "user/"))
        return
    window, value = METRICS[name].window, {said: 2.0}
    whole, layers = ({}, value) if said.startswith("layer/") else (value, {})
    event: Event
    if window == "examination":
        event = ExaminationEnded(5, whole, 0.1, layers)
    elif window == "evaluation":
        event = EvaluationEnded(5, value, 0.1)
    else:
        per_step = {said: np.array([2.0])} if window == "per_step" else {}
        event = StepsEnded(5, 5, per_step, {} if per_step else whole, layers)
    assert met(f"{said} > 1", event) == [Met(5, f"{said} is 2.0000, > 1", said, 2.0)]


def test_any_layer() -> None:
    event = StepsEnded(1, 2, {}, {}, {"layer/a/grad_norm": math.nan, "layer/b/grad_norm": 1.0})
    assert [one.subject for one in met("layer/*/grad_norm is not finite", event)] == ["layer/a/grad_norm"]


def test_a_change_is_of_means() -> None:
    assert met("train/loss changes by 50 %", window(1, [1.0, 1.4, 2.0, 2.0])) == []
    (one,) = met("train/loss changes by 50 % over 2 steps", window(1, [1.0, 1.0, 1.4, 1.8]))
    assert one == Met(4, "train/loss went from 1.0000 to 1.6000, means of 2 values each", "train/loss", 1.8)
    falls = met("train/loss changes by 50 %", window(1, [4.0, math.nan, 1.0]))
    assert [one.step for one in falls] == [3]


@given(
    st.lists(st.sampled_from([0.0, 5.0, 20.0, math.nan]), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(1, 7),
)
def test_how_windows_are_cut_does_not_matter(values: list[float], steps: int, width: int) -> None:
    """Whether it is met by the end of a window is what a plain count says."""
    watcher = Watcher(AlertRule(when=f"train/loss > 10 for {steps} steps"))
    run = 0
    for start in range(0, len(values), width):
        part = values[start : start + width]
        expected = 0
        for place, value in enumerate(part):
            run = run + 1 if value > 10 else 0
            expected = start + place + 1 if run >= steps else expected
        found = list(watcher.watch(window(start + 1, part)))
        assert [one.step for one in found] == ([expected] if expected else [])


def test_findings_troubles_and_ends() -> None:
    finding = {"code": "overfitting", "severity": "warning", "cause": "by \x1b[2Jheart", "consequences": ["plateau"]}
    changed = FindingsChanged(30, (finding, {"code": "thread-oversubscription", "severity": "info", "cause": "c"}))
    assert [one.text for one in met("finding overfitting", changed)] == ["warning overfitting: by heart"]
    assert [one.subject for one in met("finding plateau", changed)] == ["overfitting"]
    assert [len(met(f"finding {one}", changed)) for one in ("info", "warning", "error", "any")] == [2, 1, 0, 2]
    alert = AlertRaised(7, "outlying_step", "step 7: far above")
    assert [one.subject for one in met("trouble any", alert)] == ["outlying_step"]
    assert met("trouble write_failed", alert) == []
    assert met("trouble any", AlertRaised(7, "rule", "of another rule")) == []
    ended = RunEnded(9, "failed", "numerics", None, None, None, 1.0)
    assert [one.text for one in met("end failed", ended)] == ["failed: numerics"]
    assert met("end stopped", ended) == []


# ---- how often, and to whom ----------------------------------------------------------------------------------------


class Kept:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)


def alerts(tmp_path: Path, now: Callable[[], float], **rules: AlertRule) -> tuple[Alerts, Kept, Path]:
    listener, run = Kept(), RunDirectory(tmp_path)
    file = Courier("file", to_file(run.alerts), retries=0)
    return Alerts(AlertsConfig(rules=rules), run, {"file": file}, [listener], now=now), listener, run.alerts


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_message_in_so_many_minutes_which_counts_the_others(tmp_path: Path) -> None:
    now = 0.0
    told, listener, path = alerts(tmp_path, lambda: now, high=AlertRule(when="train/loss > 10", every_minutes=2.0))
    for index in range(7):
        now = 30.0 * index
        told.observe(window(index + 1, [11.0]))
    told.close()
    found = lines(path)
    assert [(one["step"], one["untold"], one["value"]) for one in found] == [(1, 0, 11.0), (5, 3, 11.0)]
    assert found[1]["text"].endswith(
        "step 5: high: train/loss is 11.000, > 10, since step 1 (3 more since the last message)"
    )
    assert [event.text for event in listener.events if isinstance(event, AlertRaised)] == [
        "alert high: train/loss is 11.000, > 10",
        "alert high: train/loss is 11.000, > 10, since step 1 (3 more since the last message)",
    ]


def test_an_attempt_begins_to_count_anew(tmp_path: Path) -> None:
    told, listener, _ = alerts(tmp_path, lambda: 0.0, high=AlertRule(when="train/loss > 10 for 3 steps"))
    told.observe(window(1, [11.0, 11.0]))
    told.observe(RunStarted(1, 2, 1, 1, 100))
    told.observe(window(2, [11.0, 11.0]))
    assert listener.events == []
    told.observe(window(4, [11.0]))
    assert len(listener.events) == 1
    told.close()


def test_a_resumed_run_counts_on_and_tells_nothing_again(tmp_path: Path) -> None:
    """Killed at step 6 and resumed from 4: the record says what held, what was told, and how long ago."""
    rules = {
        "high": AlertRule(when="train/loss > 10 for 6 steps"),
        "once": AlertRule(when="grad_norm > 3"),
        "grave": AlertRule(when="finding warning", every_minutes=0.0),
        "over": AlertRule(when="end any"),
    }
    finding = {"code": "plateau", "severity": "warning", "cause": "it stands"}
    recorder = Recorder.open(RunDirectory(tmp_path))
    for event in (
        RunStarted(0, 1, 0, None, 100),
        StepsEnded(1, 2, {"train/loss": np.array([1.0, 11.0]), "grad_norm": np.array([1.0, 9.0])}, {}),
        StepsEnded(3, 4, {"train/loss": np.full(2, 11.0), "grad_norm": np.full(2, 1.0)}, {}),
        StepsEnded(5, 6, {"train/loss": np.full(2, 1.0), "grad_norm": np.full(2, 1.0)}, {}),
        FindingsChanged(6, (finding,)),
        RunEnded(6, "failed", "no room", None, None, None, 0.0),
    ):
        recorder.record(event)
    recorder.close()
    told, listener, _ = alerts(tmp_path, time.monotonic, **rules)
    told.observe(RunStarted(4, 2, 1, 4, 100))
    told.observe(StepsEnded(5, 6, {"train/loss": np.full(2, 11.0), "grad_norm": np.full(2, 5.0)}, {}))
    assert [event.details["rule"] for event in listener.events if isinstance(event, AlertRaised)] == []
    told.observe(window(7, [11.0]))  # the sixth in a row, since step 2
    told.observe(FindingsChanged(8, (finding,)))
    told.observe(FindingsChanged(9, (finding | {"severity": "error"},)))
    told.observe(RunEnded(9, "finished", "done", None, None, None, 0.0))
    told.close()
    assert [(event.step, event.details["rule"]) for event in listener.events if isinstance(event, AlertRaised)] == [
        (7, "high"),
        (9, "grave"),
        (9, "over"),
    ]


def test_the_verdict_tells_what_was_not_told_during_the_run(tmp_path: Path) -> None:
    told, listener, _ = alerts(tmp_path, lambda: 0.0, grave=AlertRule(when="finding warning", every_minutes=0.0))
    findings = [{"code": code, "severity": "warning", "cause": code} for code in ("plateau", "overfitting")]
    told.observe(FindingsChanged(10, (findings[0],)))
    (tmp_path / "diagnosis.json").write_text(json.dumps({"schema": 1, "findings": findings}))
    told.observe(ArtifactLogged(20, "text", "diagnosis", "attention: …", "report.html"))
    told.close()
    assert [event.details["subject"] for event in listener.events if isinstance(event, AlertRaised)] == [
        "plateau",
        "overfitting",
    ]


def test_the_verdict_of_an_attempt_that_ended_is_not_told_again(tmp_path: Path) -> None:
    found = [{"code": code, "severity": "warning", "cause": code} for code in ("plateau", "overfitting")]
    (tmp_path / "diagnosis.json").write_text(json.dumps({"schema": 1, "findings": found[:1]}))
    recorder = Recorder.open(RunDirectory(tmp_path))
    recorder.record(RunStarted(0, 1, 0, None, 100))
    recorder.record(RunEnded(6, "interrupted", "SIGTERM", None, None, None, 0.0))
    recorder.close()
    told, listener, _ = alerts(tmp_path, time.monotonic, grave=AlertRule(when="finding warning", every_minutes=0.0))
    told.observe(RunStarted(6, 2, 1, 6, 100))
    (tmp_path / "diagnosis.json").write_text(json.dumps({"schema": 1, "findings": found}))
    told.observe(ArtifactLogged(20, "text", "diagnosis", "attention: …", "report.html"))
    told.close()
    raised = [event for event in listener.events if isinstance(event, AlertRaised)]
    assert [event.details["subject"] for event in raised] == ["overfitting"]


def test_an_error_that_ends_the_process_is_told(tmp_path: Path) -> None:
    config = Config(alerts=AlertsConfig(rules={"end": AlertRule(when="end failed")}))

    def fails() -> None:
        with open_alerts(config, RunDirectory(tmp_path)) as (monitor,):
            monitor.observe(window(1, [1.0]))
            raise ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError):
        fails()
    (line,) = lines(tmp_path / "alerts.jsonl")
    assert line["text"].endswith("step 1: end: failed: ZeroDivisionError: by zero")


def test_the_console_tells_and_counts_it(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(stream, 100)
    console.observe(RunStarted(0, 1, 0, None, 100))
    rule = AlertRule(when="train/loss > 10", to=("console",))
    told = Alerts(AlertsConfig(rules={"high": rule}), RunDirectory(tmp_path), {}, [console])
    told.observe(window(1, [11.0]))
    console.observe(window(1, [11.0]))
    text = stream.getvalue()
    assert "step   1  alert high: train/loss is 11.000, > 10\n" in text
    assert "1 alert " in text
    assert not (tmp_path / "alerts.jsonl").exists()


def test_a_thousand_layers_and_ten_rules_cost_little(tmp_path: Path) -> None:
    rules = {f"r{index}": AlertRule(when=f"layer/*/grad_norm > {index + 100}") for index in range(10)}
    told, _, _ = alerts(tmp_path, lambda: 0.0, **rules)
    layers = {f"layer/blocks.{index}/{name}": 1.0 for index in range(333) for name in ("grad_norm", "weight_norm", "x")}
    event = StepsEnded(1, 10, {"train/loss": np.ones(10)}, {}, layers)
    told.observe(event)
    begun = time.process_time()
    for _ in range(20):
        told.observe(event)
    assert (time.process_time() - begun) / 20 < 0.05
    told.close()


# ---- that it arrives, and that nothing waits for it ----------------------------------------------------------------


def test_a_line_that_was_torn_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_text('{"schema": 1, "torn')
    deliver = to_file(path)
    deliver(MESSAGE)
    deliver(MESSAGE)
    whole = path.read_text().splitlines()
    assert [json.loads(line) for line in whole[1:]] == [MESSAGE, MESSAGE]
    assert whole[0] == '{"schema": 1, "torn'


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("json", MESSAGE | {"text": "<!channel> & \u202e" + "x" * 3000}),
        ("slack", {"text": "&lt;!channel&gt; &amp; \u202e" + "x" * 1885 + "…"}),
        ("discord", {"content": "<!channel> & \u202e" + "x" * 1885 + "…", "allowed_mentions": {"parse": []}}),
    ],
)
def test_a_webhook_in_three_forms(form: Any, body: dict[str, Any]) -> None:
    with http_server() as posted:
        message = MESSAGE | {"text": "<!channel> & \u202e" + "x" * 3000}
        to_webhook(WebhookConfig(form=form), {"TRIMTAB_WEBHOOK_URL": posted.address})(message)
    assert posted.bodies == [body]


def test_a_webhook_that_fails_twice_gets_it_the_third_time() -> None:
    with http_server([500, 429]) as posted:
        deliver = to_webhook(WebhookConfig(), {"TRIMTAB_WEBHOOK_URL": posted.address})
        courier = Courier("webhook", deliver, retries=5, first_pause_seconds=0.01)
        courier.send(MESSAGE)
        courier.close(10.0)
    assert posted.answers == [500, 429, 200]
    assert posted.bodies == [MESSAGE]
    assert (courier.delivered, courier.dropped) == (1, 0)


@pytest.mark.parametrize("code", [404, 403, 302])
def test_what_a_server_will_never_take_is_not_tried_again_and_nothing_follows_elsewhere(code: int) -> None:
    with http_server() as elsewhere, http_server([code] * 9, location=elsewhere.address) as posted:
        deliver = to_webhook(WebhookConfig(), {"TRIMTAB_WEBHOOK_URL": posted.address})
        courier = Courier("webhook", deliver, retries=5, first_pause_seconds=0.01)
        courier.send(MESSAGE)
        courier.close(10.0)
    assert posted.answers == [code]
    assert elsewhere.bodies == []
    assert courier.dropped == 1
    assert courier.problem == f"the server answered {code}"


def test_the_secret_is_in_no_message() -> None:
    address = "http://127.0.0.1:9/hooks/secret-token"  # nobody listens there
    with pytest.raises(ConnectionError) as caught:
        to_webhook(WebhookConfig(timeout_seconds=2.0), {"TRIMTAB_WEBHOOK_URL": address})(MESSAGE)
    assert "secret" not in str(caught.value)
    for wrong in ("", "ftp://secret.org/a", "https://", "https://secret org/"):
        with pytest.raises(ConfigError) as refused:
            to_webhook(WebhookConfig(), {"TRIMTAB_WEBHOOK_URL": wrong})
        assert "secret" not in str(refused.value)
        assert "TRIMTAB_WEBHOOK_URL" in str(refused.value)


def test_a_missing_secret_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_HOOK", raising=False)
    rules = {"end": AlertRule(when="end any", to=("webhook",))}
    config = Config(alerts=AlertsConfig(rules=rules, webhook=WebhookConfig(address_from="MY_HOOK")))
    with pytest.raises(ConfigError, match="the environment has no MY_HOOK"):
        require_destinations(config)
    monkeypatch.setenv("MY_HOOK", "https://hooks.example.org/x")
    require_destinations(config)
    # A destination that no rule names asks for nothing.
    monkeypatch.delenv("MY_HOOK")
    require_destinations(Config(alerts=AlertsConfig(webhook=WebhookConfig(address_from="MY_HOOK"))))


EMAIL = EmailConfig(recipients=("a@b.org", "c@d.org"), sender="runs@b.org", host="127.0.0.1", security="none")


def email(port: int, **settings: Any) -> EmailConfig:
    return EMAIL.model_copy(update={"port": port} | settings)


def test_a_mail_says_what_is_known() -> None:
    with smtp_server(refuses=1) as mailed:
        courier = Courier("email", to_email(email(mailed.port), {}), retries=3, first_pause_seconds=0.01)
        courier.send(MESSAGE | {"run": "a\r\nBcc: x@y.org"} | {"run": "demo"})
        courier.close(10.0)
    (mail,) = mailed.mails
    assert "Subject: trimtab demo: diverges\r\n" in mail
    assert "To: a@b.org, c@d.org\r\n" in mail
    assert "From: runs@b.org\r\n" in mail
    assert "demo, step 340: diverges: train/loss is 12.3, > 10\r\n\r\nrun: demo\r\n" in mail
    assert (courier.delivered, courier.dropped) == (1, 0)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_password_goes_over_tls_alone_to_a_server_that_is_trusted(
    security: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = certificate(tmp_path)
    secret = {"TRIMTAB_SMTP_PASSWORD": "right"}
    with smtp_server(path, wraps=security == "tls") as mailed:
        config = email(mailed.port, user="me", security=security)
        with pytest.raises(OSError, match="certificate verify failed"):
            to_email(config, secret)(MESSAGE)
        assert mailed.logins == []
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        to_email(config, secret)(MESSAGE)
        assert mailed.logins == [("me", "right")]
        assert mailed.encrypted == [True]
        with pytest.raises(RefusedError, match="no such login"):
            to_email(config, {"TRIMTAB_SMTP_PASSWORD": "wrong"})(MESSAGE)
    with pytest.raises(ConfigError, match="the environment has no TRIMTAB_SMTP_PASSWORD"):
        to_email(config, {})


def test_a_server_without_tls_gets_no_password() -> None:
    with smtp_server() as mailed:
        deliver = to_email(email(mailed.port, user="me", security="starttls"), {"TRIMTAB_SMTP_PASSWORD": "right"})
        with pytest.raises(RefusedError):
            deliver(MESSAGE)
    assert mailed.logins == []


def test_a_server_that_never_answers_holds_up_nobody() -> None:
    with deaf_server() as port:
        address = {"TRIMTAB_WEBHOOK_URL": f"http://127.0.0.1:{port}/"}
        courier = Courier("webhook", to_webhook(WebhookConfig(timeout_seconds=30.0), address), retries=5)
        longest = 0.0
        for _ in range(5 * WAITING):
            begun = time.perf_counter()
            courier.send(MESSAGE)
            longest = max(longest, time.perf_counter() - begun)
        begun = time.perf_counter()
        courier.close(0.3)
        assert time.perf_counter() - begun < 2.0
    assert longest < 0.1
    assert courier.dropped == 5 * WAITING
    assert courier.delivered == 0
    assert courier.problem


def test_the_oldest_is_dropped_and_the_order_kept() -> None:
    taken: list[int] = []
    may_go = threading.Event()

    def deliver(message: Mapping[str, Any]) -> None:
        may_go.wait(10)
        taken.append(message["step"])

    courier = Courier("slow", deliver, retries=0)
    courier.send({"step": 0})
    while courier._waiting:
        time.sleep(0.001)
    for step in range(1, WAITING + 11):
        courier.send({"step": step})
    may_go.set()
    courier.close(10.0)
    assert taken == [0, *range(11, WAITING + 11)]
    assert (courier.delivered, courier.dropped) == (WAITING + 1, 10)


def test_what_was_not_delivered_is_said(tmp_path: Path) -> None:
    def broken(message: Mapping[str, Any]) -> None:
        raise RefusedError("the server answered 404")

    rule = AlertRule(when="train/loss > 1", to=("webhook",))
    config = AlertsConfig(rules={"a": rule}, webhook=WebhookConfig())
    told = Alerts(config, RunDirectory(tmp_path), {"webhook": Courier("webhook", broken, retries=3)})
    told.observe(window(1, [2.0]))
    with pytest.warns(UserWarning, match="1 alert could not be told by webhook: the server answered 404"):
        told.close()


@pytest.mark.parametrize(("answers", "code"), [([], 0), ([404], 7)])
def test_a_test_message_can_be_sent_before_a_run(
    answers: list[int], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["check", "gpt-1m", "--send-alerts"]
    with http_server(answers) as posted, smtp_server() as mailed:
        monkeypatch.setenv("TRIMTAB_WEBHOOK_URL", posted.address)
        to = f"alerts.email={{recipients: [a@b], sender: c@d, host: 127.0.0.1, port: {mailed.port}, security: none}}"
        rules = "alerts.rules={end: {when: end any, to: [webhook, email]}}"
        done = CliRunner().invoke(app, [*command, rules, "alerts.webhook={}", to])
    assert "alerts by email: a test message was taken" in done.output
    assert len(mailed.mails) == 1
    if code:
        assert isinstance(done.exception, ResourceError)
        assert "alerts by webhook: the server answered 404" in done.output
    else:
        assert done.exit_code == 0
        assert [body["rule"] for body in posted.bodies] == ["test"]
    assert "no rule in alerts.rules goes to" in CliRunner().invoke(app, command).output


# ---- in a run ------------------------------------------------------------------------------------------------------


def test_a_run_with_alerts_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that fails once gets every message, one that is dead costs nothing, and the weights are the same."""
    from trimtab.trainer import Trainer

    (tmp_path / "t.txt").write_text("the quick brown fox jumps over the lazy dog. " * 200)
    tiny = [
        f"data={{source: {{name: text, path: {tmp_path / 't.txt'}}}, tokenizer: {{name: bytes}}, sequence_length: 16}}",
        "model={name: decoder, num_layers: 1, hidden_size: 16, num_heads: 1}",
        "training={steps: 20, micro_batch_size: 2, device: cpu, threads: 1, compile: off}",
        "evaluation={every: 5, max_tokens: 64, gap_tokens: 0, yardsticks: false, samples: {max_tokens: 0}}",
        "stopping.name=none",
    ]
    rules = "{high: {when: train/loss > 1, to: [webhook, file, email], every_minutes: 0}, end: {when: end any}}"
    with http_server([500]) as posted, deaf_server() as port:
        monkeypatch.setenv("MY_HOOK", posted.address)
        settings = [
            *tiny,
            f"alerts.rules={rules}",
            "alerts.webhook={address_from: MY_HOOK}",
            f"alerts.email={{recipients: [a@b], sender: c@d, host: 127.0.0.1, port: {port}, security: none}}",
        ]
        told = Trainer(load_config(None, settings, environment={}), run=tmp_path / "told")
        monkeypatch.setattr("trimtab.monitor.alerts._PATIENCE_SECONDS", 4.0)
        with pytest.warns(UserWarning, match="could not be told by email"):
            told.fit()
        plain = Trainer(load_config(None, tiny, environment={}), run=tmp_path / "plain")
        plain.fit()
    weights, same = (dict(trainer.trained()[0].state_dict()) for trainer in (told, plain))
    assert weights.keys() == same.keys()
    assert all((weights[name] == same[name]).all() for name in weights)
    found = lines(tmp_path / "told" / "alerts.jsonl")
    assert [one["rule"] for one in found].count("end") == 1
    assert posted.bodies == [one for one in found if one["rule"] == "high"]
    assert len(posted.bodies) >= 3
    written = b"".join(path.read_bytes() for path in (tmp_path / "told").rglob("*") if path.is_file())
    assert b"secret-token" not in written
