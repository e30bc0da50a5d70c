"""What a rule has to say about a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from trimtab.config import Config, NetworkShape

TRIAL_STEPS: Final = 100
"""A shorter run tries a set-up: what it lacks for want of length is a note."""


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One remark on one key of a configuration."""

    code: str
    severity: Literal["info", "warning", "refusal"]
    """A refusal ends the command with exit code 2 unless `lint.allow` names its code."""
    key: str
    """Dotted path of the setting that it is about."""
    message: str
    """What is the case, with the values."""
    reason: str
    """Why that matters."""
    fix: str | None
    """An override `section.key=value` that puts it right, where there is one."""
    source: str
    """Who says so."""

    def __str__(self) -> str:
        return f"{self.severity} {self.text}"

    @property
    def text(self) -> str:
        """All but the severity."""
        fix = "" if self.fix is None else f" (try {self.fix})"
        stop = "" if self.message.endswith("?") else "."
        return f"{self.code}: {self.key}: {self.message}{stop} {self.reason}.{fix}"


def aims_at_cuda(config: Config, facts: Mapping[str, Any]) -> bool:
    """Whether `config` asks for CUDA; the fact `device` settles what auto leaves open."""
    return str(facts.get("device", config.training.device)).startswith("cuda")


def has_batch_norm(config: Config, facts: Mapping[str, Any]) -> bool:
    """Whether the model normalizes by batches; of one from outside the fact `batch_norm` tells."""
    model = config.model
    return (isinstance(model, NetworkShape) and model.batch_norm is not None) or "batch_norm" in facts
