"""Alerts: rules on metrics, findings and events, told to whom they are for, each at most every so often."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, final

from trimtab.config import AlertsConfig, Config
from trimtab.errors import TrimtabError
from trimtab.events import (
    AlertRaised,
    ArtifactLogged,
    Event,
    FindingsChanged,
    Monitor,
    RunEnded,
    RunStarted,
    StepsEnded,
)
from trimtab.monitor.alert_messages import to_email, to_file, to_webhook
from trimtab.monitor.alert_rules import GRAVITY, Met, Watcher
from trimtab.monitor.couriers import Courier, Message, in_words
from trimtab.monitor.remembered import events_before, events_until
from trimtab.runs import RunDirectory
from trimtab.runs.files import SCHEMA, json_value
from trimtab.runs.printable import printable

_FILE_RETRIES: Final = 3
_PATIENCE_SECONDS: Final = 10.0
"""For what is on its way when the run is over."""


def require_destinations(config: Config) -> None:
    """Raises: ConfigError where a rule goes to a webhook or an e-mail account whose secret is not there."""
    _deliveries(config.alerts, os.environ)


def send_test(config: Config) -> dict[str, str]:
    """A test message to each destination beyond this machine; gives what went wrong, "" where nothing did.

    Raises: ConfigError where a secret is missing.
    """
    answers: dict[str, str] = {}
    for name, (deliver, _) in _deliveries(config.alerts, os.environ).items():
        message = _message(
            config.name, "test", "trimtab check --send-alerts", 0, "a test: alerts of runs come this way"
        )
        try:
            deliver(message)
            answers[name] = ""
        except Exception as error:
            answers[name] = in_words(error)
    return answers


@contextmanager
def open_alerts(config: Config, run: RunDirectory, listeners: Sequence[Monitor] = ()) -> Iterator[list[Monitor]]:
    """The alerts of `config` as a monitor, if there are rules. `listeners`, the console, hear of what is to be told.

    A process that ends by an error tells so, since the loop cannot.
    """
    if not config.alerts.rules:
        yield []
        return
    deliveries = _deliveries(config.alerts, os.environ)
    couriers = {"file": Courier("file", to_file(run.alerts), retries=_FILE_RETRIES)}
    couriers |= {name: Courier(name, deliver, retries=retries) for name, (deliver, retries) in deliveries.items()}
    alerts = Alerts(config.alerts, run, couriers, listeners)
    patience = _PATIENCE_SECONDS
    try:
        yield [alerts]
    except Exception as error:
        alerts.fail(error)
        raise
    except KeyboardInterrupt:
        patience = 0.0  # interrupted twice: nothing more is waited for
        raise
    finally:
        alerts.close(patience)


def _deliveries(
    config: AlertsConfig, environment: Mapping[str, str]
) -> dict[str, tuple[Callable[[Message], None], int]]:
    """How to reach what is beyond this machine, and how often to try again."""
    found: dict[str, tuple[Callable[[Message], None], int]] = {}
    if config.webhook is not None and config.sends_to("webhook"):
        found["webhook"] = to_webhook(config.webhook, environment), config.webhook.retries
    if config.email is not None and config.sends_to("email"):
        found["email"] = to_email(config.email, environment), config.email.retries
    return found


def _message(run: str, rule: str, when: str, step: int, text: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "time": round(time.time(), 3),
        "run": run,
        "host": socket.gethostname(),
        "rule": rule,
        "when": when,
        "step": step,
        "text": f"{run}, step {step:,}: {text}",
    }


def _gravity(finding: Mapping[str, Any]) -> int:
    severity = str(finding.get("severity"))
    return GRAVITY.index(severity) if severity in GRAVITY else 0


@final
class Alerts:
    """A monitor that asks each rule about each event, and hands what is met to the couriers of its destinations."""

    def __init__(
        self,
        config: AlertsConfig,
        run: RunDirectory,
        couriers: Mapping[str, Courier],
        listeners: Sequence[Monitor] = (),
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules, self._run, self._couriers, self._listeners = config.rules, run, couriers, tuple(listeners)
        self._now = now
        self._watchers = {name: Watcher(rule) for name, rule in config.rules.items()}
        self._told_at: dict[str, float] = {}
        self._untold = dict.fromkeys(config.rules, 0)
        self._gravities: dict[str, int] = {}
        """Of the findings that are known, by code."""
        self._step = 0
        self._begun: RunStarted | None = None
        """The attempt or branch whose first window is yet to come."""
        self._is_first = True
        self._has_ended = False

    def observe(self, event: Event) -> None:
        """Tell of what `event` meets."""
        self._step = max(self._step, event.last_step if isinstance(event, StepsEnded) else event.step)
        if isinstance(event, RunStarted):
            self._begin(event)
        elif isinstance(event, StepsEnded) and self._begun is not None:
            self._go_on(self._begun, event.first_step)
        elif isinstance(event, ArtifactLogged) and event.name == "diagnosis":
            event = FindingsChanged(event.step, self._verdict())
        elif isinstance(event, RunEnded):
            self._has_ended = True
        for name, met in self._met(event):
            self._tell(name, met)

    def _met(self, event: Event) -> Iterator[tuple[str, Met]]:
        """Rules that `event` meets; a finding counts when it is new, or graver than it was."""
        if isinstance(event, FindingsChanged):
            new = [one for one in event.findings if _gravity(one) > self._gravities.get(str(one.get("code")), -1)]
            self._gravities |= {str(one.get("code")): _gravity(one) for one in new}
            event = FindingsChanged(event.step, tuple(new))
        for name, watcher in self._watchers.items():
            for met in watcher.watch(event):
                yield name, met

    def _begin(self, started: RunStarted) -> None:
        """What attempts before this process told is not told again; an end is told for each."""
        if self._is_first and started.attempt > 1:
            newest: tuple[float, Event] | None = None
            for newest in events_before(self._run, started.attempt):
                self._remember(*newest)
            if newest is not None and isinstance(newest[1], RunEnded):  # then it told its verdict, too
                self._remember(newest[0], FindingsChanged(newest[1].step, self._verdict()))
            self._untold = dict.fromkeys(self._rules, 0)
        self._is_first = False
        for watcher in self._watchers.values():
            watcher.reset()
        self._begun = started if started.resumed_from is not None else None

    def _remember(self, age_seconds: float, event: Event) -> None:
        for name, _ in self._met(event):
            if self._rules[name].condition.kind != "end":
                self._may_be_told(name, self._now() - age_seconds)

    def _go_on(self, started: RunStarted, first_step: int) -> None:
        """Rules count on from where the record stands: what held before the checkpoint still does."""
        self._begun = None
        for event in events_until(self._run, min(started.resumed_from or 0, first_step - 1)):
            for watcher in self._watchers.values():
                for _ in watcher.watch(event):
                    pass

    def fail(self, error: Exception) -> None:
        """The process ends by `error`, instead of by the end that the loop tells."""
        if not self._has_ended:
            reason = printable(f"{type(error).__name__}: {error}", limit=300)
            self.observe(RunEnded(self._step, "failed", reason, None, None, None, 0.0))

    def close(self, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        """Wait so long for what is on its way, and say what was not delivered."""
        until = time.monotonic() + patience_seconds
        for name, courier in self._couriers.items():
            courier.close(max(0.0, until - time.monotonic()))
            if courier.dropped:
                number = f"{courier.dropped} alert{'' if courier.dropped == 1 else 's'}"
                warnings.warn(f"{number} could not be told by {name}: {printable(courier.problem)}", stacklevel=2)

    def _verdict(self) -> tuple[Mapping[str, Any], ...]:
        """The findings of the verdict."""
        with suppress(TrimtabError, AttributeError, TypeError):
            return tuple(self._run.read_json(self._run.diagnosis).get("findings") or ())
        return ()

    def _may_be_told(self, name: str, now: float) -> bool:
        """Whether a message of a rule is due; what is not is counted."""
        last = self._told_at.get(name)
        if last is not None and now - last < 60 * self._rules[name].every_minutes:
            self._untold[name] += 1
            return False
        self._told_at[name] = now
        return True

    def _tell(self, name: str, met: Met) -> None:
        rule = self._rules[name]
        if not self._may_be_told(name, self._now()):
            return
        untold, self._untold[name] = self._untold[name], 0
        more = f" ({untold} more since the last message)" if untold else ""
        text = f"alert {printable(name)}: {printable(met.text)}{more}"
        message = _message(self._run.name, name, rule.when, met.step, text.removeprefix("alert "))
        message |= {"subject": met.subject, "value": json_value(met.value), "untold": untold}
        for destination in rule.to:
            if destination in self._couriers:
                self._couriers[destination].send(message)
        if "console" in rule.to:
            for listener in self._listeners:
                listener.observe(AlertRaised(met.step, "rule", text, {"rule": name, "subject": met.subject}))
