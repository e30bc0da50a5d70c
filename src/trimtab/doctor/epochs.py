"""A log that has a row for each epoch is told of in epochs: its findings name steps, which are its rows."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from trimtab.doctor.finding import Finding

_STEPS: Final = re.compile(r"\bstep(s?)(?= \d)|(?<=\d )step(s?)\b|(?<=\bbest )step\b|(?<=\beach )step\b")


def in_epochs(text: str) -> str:
    """`text` with the steps of such a log as what they are."""
    return _STEPS.sub(lambda found: f"epoch{found[1] or found[2] or ''}", text)


def told_in_epochs(finding: Finding) -> Finding:
    """The same finding; settings of its remedies stay."""
    return replace(
        finding,
        cause=in_epochs(finding.cause),
        evidence=tuple(replace(one, text=in_epochs(one.text)) for one in finding.evidence),
        remedies=tuple(replace(one, summary=in_epochs(one.summary)) for one in finding.remedies),
    )
