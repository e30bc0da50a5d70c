"""What one run of the bank is: its place in the plan, and the truth about it."""

from __future__ import annotations

import hashlib
import random
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, final

HEALTHY: Final = "healthy"

Part = Literal["tuning", "test", "spread"]
Logger = Literal["trimtab", "csv", "jsonl", "huggingface", "lightning"]
Task = Literal["lm", "classification", "seq2seq", "regression", "mlp", "cnn"]
Severity = Literal["mild", "strong", "none"]

PARTS: Final[tuple[Part, ...]] = ("tuning", "test", "spread")
"""Rules may be fitted to all but `test`."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run. All that is drawn for it follows from these fields, so that it can be made again."""

    part: Part
    logger: Logger
    task: Task
    code: str
    """The fault that is planted, or `healthy`."""
    variant: str
    """Which healthy oddity it is; of a fault its code."""
    severity: Severity
    round: int
    """Which time this combination is made: another seed, other sizes of what is drawn."""

    @property
    def name(self) -> str:
        """Unique in its part, and a folder's name."""
        told = self.variant if self.code == HEALTHY else f"{self.code}-{self.severity}"
        return f"{self.logger}-{told}-{self.task}-{self.round}"

    def draw(self, purpose: str = "") -> random.Random:
        """Random numbers that belong to this run and `purpose` alone."""
        told = f"{self.part}/{self.name}/{purpose}"
        return random.Random(int.from_bytes(hashlib.sha256(told.encode()).digest()[:8]))

    @property
    def seed(self) -> int:
        """That of weights and order."""
        return self.draw("seed").randrange(1, 10_000)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is known of a run that was made: kept beside it in truth.json."""

    part: str
    name: str
    logger: str
    task: str
    code: str
    variant: str
    severity: str
    onset: int | None
    """The first step that the fault acts on; of overfitting the step of the lowest validation loss."""
    steps: int
    sentence: str
    twin: str | None
    """The healthy run of the same settings and seed, where it was made."""
    seconds: float
    generator: str
    """SHA-256 of the generator's sources."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)
