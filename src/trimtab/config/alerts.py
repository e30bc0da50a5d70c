"""Which events of a run somebody is told of, and how: `alerts.rules`, a webhook, e-mail."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from trimtab.config.base import NonNegative, Positive, Section, Texts
from trimtab.config.nearest import any_of, did_you_mean, nearest_names

Destination = Literal["console", "file", "webhook", "email"]

_ADDRESS: Final = "TRIMTAB_WEBHOOK_URL"
_PASSWORD: Final = "TRIMTAB_SMTP_PASSWORD"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_COMPARED: Final = re.compile(rf"([^\s<>]+?)(?: ?(>=|<=|>|<) ?| (above|below) )({_NUMBER})(?: for (\d+) steps?)?")
_NOT_FINITE: Final = re.compile(r"(\S+) is not finite(?: for (\d+) steps?)?")
_CHANGES: Final = re.compile(rf"(\S+) changes by ({_NUMBER}) ?%(?: over (\d+) steps?)?")
_EVENT: Final = re.compile(r"(finding|trouble|end) (\S+)")
_TROUBLES: Final = ("non_finite_step", "outlying_step", "write_failed", "examination_failed", "volume_capped")
_ENDS: Final = ("finished", "stopped", "interrupted", "failed")
_FORMS: Final = (
    "'METRIC > NUMBER [for N steps]' (or <, >=, <=), 'METRIC is not finite [for N steps]', "
    "'METRIC changes by P % [over N steps]', 'finding CODE' (or info, warning, error: that and graver), "
    f"'trouble any' (or one of: {', '.join(_TROUBLES)}), 'end any' (or one of: {', '.join(_ENDS)})"
)


def _own_variable(name: str, default: str) -> str:
    if name.startswith("TRIMTAB_") and name != default:
        raise ValueError(
            f"must be {default} or not begin with TRIMTAB_, as settings do: it would be told as a wrong one"
        )
    return name


@dataclass(frozen=True, slots=True)
class Condition:
    """What a rule waits for, as `when` says it."""

    kind: Literal["compare", "not_finite", "change", "finding", "trouble", "end"]
    subject: str
    """A metric, in which * stands for any text; else a code, a severity, a kind of trouble, a status, or any."""
    sign: Literal["", ">", ">=", "<", "<="] = ""
    number: float = 0.0
    """What the metric is held against; of a change the part, 0.1 for 10 %."""
    steps: int = 1
    """So many steps it must be so, one after the other; of a change, those that a mean is taken over."""

    @property
    def is_of_a_metric(self) -> bool:
        """Whether `subject` names a metric."""
        return self.kind in ("compare", "not_finite", "change")


def parse_condition(text: str) -> Condition:
    """The condition that `text` says. Raises: ValueError with the forms that it may have."""
    text = " ".join(text.split())
    if found := _COMPARED.fullmatch(text):
        metric, sign, word, number, steps = found.groups()
        sign = sign or {"above": ">", "below": "<"}[word]
        return Condition("compare", metric, sign, float(number), int(steps or 1))  # type: ignore[arg-type]
    if found := _NOT_FINITE.fullmatch(text):
        return Condition("not_finite", found[1], steps=int(found[2] or 1))
    if (found := _CHANGES.fullmatch(text)) and float(found[2]) > 0:
        return Condition("change", found[1], number=float(found[2]) / 100, steps=int(found[3] or 1))
    if found := _EVENT.fullmatch(text):
        kind, subject = found.groups()
        known = {"trouble": ("any", *_TROUBLES), "end": ("any", *_ENDS)}.get(kind)
        if known is None or subject in known:
            return Condition(kind, subject)  # type: ignore[arg-type]
        if near := nearest_names(subject, known):
            raise ValueError(f"must be '{kind}' and {any_of(known)}; {did_you_mean([f'{kind} {one}' for one in near])}")
    raise ValueError(f"must be one of the forms {_FORMS}")


class AlertRule(Section):
    """One thing to be told of."""

    when: str = Field(
        description="what is waited for: 'train/loss > 10 for 20 steps', 'validation/loss changes by 50 %', "
        "'grad_norm is not finite', 'finding overfitting', 'trouble any', 'end failed'"
    )
    to: Annotated[tuple[Destination, ...], Field(strict=False, min_length=1)] = Field(
        ("console", "file"), description="who is told: console, file (alerts.jsonl in the run), webhook, email"
    )
    every_minutes: NonNegative = Field(
        10.0, description="at least between two messages of this rule; those between are counted in the next"
    )

    @field_validator("when")
    @classmethod
    def _can_be_read(cls, text: str) -> str:
        if parse_condition(text).steps < 1:
            raise ValueError("must be for 1 step or more")
        return text

    @property
    def condition(self) -> Condition:
        """What `when` says."""
        return parse_condition(self.when)


class WebhookConfig(Section):
    """A message is sent by HTTP POST to an address that is secret, and so comes from the environment."""

    address_from: str = Field(
        _ADDRESS, pattern=r"^[A-Za-z_]\w*$", description="the environment variable that has the address"
    )
    form: Literal["json", "slack", "discord"] = Field(
        "json", description="what is sent: all that is known as JSON, or the text as Slack or Discord take it"
    )
    timeout_seconds: Positive = Field(10.0, description="for one try")
    retries: int = Field(5, ge=0, le=20, description="further tries, after 1, 2, 4 … seconds")

    @field_validator("address_from")
    @classmethod
    def _is_no_setting(cls, name: str) -> str:
        return _own_variable(name, _ADDRESS)


class EmailConfig(Section):
    """A message is sent as e-mail by SMTP."""

    recipients: Annotated[Texts, Field(min_length=1)] = Field(description="who gets it")
    sender: str = Field(min_length=1, description="whom it is from")
    host: str = Field("localhost", min_length=1, description="the SMTP server")
    port: int = Field(587, ge=1, le=65_535, description="its port")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="encryption: begun on the open connection, from the first byte (port 465), or none"
    )
    user: str | None = Field(None, description="the name to log in with; null: without")
    password_from: str = Field(
        _PASSWORD, pattern=r"^[A-Za-z_]\w*$", description="the environment variable with its password"
    )
    timeout_seconds: Positive = Field(20.0, description="for one try")
    retries: int = Field(3, ge=0, le=20, description="further tries, after 1, 2, 4 … seconds")

    @field_validator("password_from")
    @classmethod
    def _is_no_setting(cls, name: str) -> str:
        return _own_variable(name, _PASSWORD)

    @model_validator(mode="after")
    def _keeps_the_password(self) -> Self:
        for name in ("sender", "host", "user"):
            if re.search(r"[\r\n]", str(getattr(self, name))):
                raise ValueError(f"{name} has a line break")
        if self.user is not None and self.security == "none" and self.host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("user would send its password in clear text to another machine, as security is none")
        return self


class AlertsConfig(Section):
    """Rules on metrics, findings and events of a run, and where their messages go."""

    rules: dict[str, AlertRule] = Field(
        default_factory=dict, description="name to a rule: {diverges: {when: 'train/loss > 10 for 20 steps'}}"
    )
    webhook: WebhookConfig | None = Field(None, description="for rules to webhook; null: there is none")
    email: EmailConfig | None = Field(None, description="for rules to email; null: there is none")

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        fitting = {
            "webhook": "alerts.webhook={} takes the address from the environment",
            "email": "alerts.email={recipients: [a@b.org], sender: c@b.org} says whose it is",
        }
        for name, rule in self.rules.items():
            if not _NAME.fullmatch(name):
                raise ValueError(
                    "alerts.rules: a rule's name must be letters, digits, '.', '_' and '-', 64 at most, "
                    f"and is {name!r}"
                )
            for place, remedy in fitting.items():
                if place in rule.to and getattr(self, place) is None:
                    raise ValueError(f"alerts.rules.{name} goes to {place}, and alerts.{place} is null; {remedy}")
        return self

    def sends_to(self, destination: Destination) -> bool:
        """Whether any rule does."""
        return any(destination in rule.to for rule in self.rules.values())
