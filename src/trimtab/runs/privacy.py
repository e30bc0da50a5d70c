"""What of texts and code is written down and told: whole, redacted, as a hash, or not at all; secrets never are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Final

from trimtab.config.privacy import Disclosure
from trimtab.config.secrets import hidden, hide
from trimtab.events import ArtifactLogged, CheckpointSaved, EvaluationEnded, Event, ExaminationEnded, StepsEnded

_PERSONAL: Final = (
    ("e-mail", re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")),
    ("address of a page", re.compile(r"https?://\S+")),
    ("social security number", re.compile(r"\b\d{3}-\d{2}-\d{4}\b")),
    ("IBAN", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")),
    ("card number", re.compile(r"(?<![\d.])\d{4}(?:[ -]?\d{4}){2}[ -]?\d{1,7}(?!\d|\.\d)")),
    (
        "IP address",
        re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\d|\.\d)|\b(?:[0-9a-fA-F]{1,4}:){4,7}[0-9a-fA-F]{1,4}\b"),
    ),
    (
        "telephone number",
        re.compile(r"(?<![\w.])(?:\+|00)\d(?:[ ./()-]{0,2}\d){7,14}|\(?\b\d{3}\)?[ .-]\d{3}[ .-]\d{4}\b"),
    ),
)
"""What looks like it; names of people and places do not, and stay."""


_OF_DATA: Final = ("highest-loss",)
"""How texts are called that hold what was trained on, though they are no samples of the model's."""


def private(samples: Disclosure) -> Callable[[Event], Event | None]:
    """What turns an event into the one that is told: without secrets, and its samples as `samples` says; None: none."""

    def told(event: Event) -> Event | None:
        if isinstance(event, StepsEnded | EvaluationEnded | ExaminationEnded | CheckpointSaved):
            return event
        if isinstance(event, ArtifactLogged) and (event.kind == "sample" or event.name.startswith(_OF_DATA)):
            if samples == "off":
                return None
            text = disclosed(event.text, samples)
            return event if text == event.text else replace(event, text=text)
        changed: dict[str, Any] = {}
        for field in fields(event):
            value = getattr(event, field.name)
            if isinstance(value, str | dict | list | tuple) and (other := hidden(value, field.name)) != value:
                changed[field.name] = other
        return replace(event, **changed) if changed else event

    return told


def disclosed(text: str, how: Disclosure) -> str:
    """`text` as it may be seen. A hash tells whether two are the same; a short text can be found by trying."""
    match how:
        case "on":
            return hide(text)
        case "redacted":
            return redacted(text)
        case "hashed":
            return hashed(text)
        case "off":
            return ""


def redacted(text: str) -> str:
    """`text` without secrets and what looks like e-mail addresses, telephone and card numbers, and other addresses."""
    text = hide(text)
    for what, shape in _PERSONAL:
        text = shape.sub(f"[{what}]", text)
    return text


def hashed(text: str) -> str:
    """The beginning of the SHA-256 of `text`, and its length."""
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:16]} ({len(text):,} characters)"
