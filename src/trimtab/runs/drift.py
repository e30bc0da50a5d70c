"""What differs between a run and the process that wants to go on with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from trimtab.config.keys import keys as settings_by_key
from trimtab.errors import DriftError
from trimtab.runs.files import json_value

_HARMLESS: Final = (
    "name",
    "lint.allow",
    "sinks",
    "data.prefetch",
    "data.workers",
    "training.watchdog_seconds",
    "checkpoint.background",
    "checkpoint.differential",
    "checkpoint.on_failure",
    "evaluation.calibration",
    "evaluation.details",
)
"""Settings that change no result."""
_HARMLESS_SECTIONS: Final = ("alerts.", "hardware.", "logging.adaptive.", "privacy.", "profile.")
"""Sections of such settings."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference."""

    what: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.what}: was {self.was!r}, now {self.now!r}"


def drift(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[Drift]:
    """The differences between two flat descriptions (`config.<key>`, `data.fingerprint`, `version.torch` …).

    What an older trimtab did not describe is no difference: a setting that is new and at its default, a version.
    """
    keys = [key for key in dict.fromkeys([*was, *now]) if not _is_harmless(key.removeprefix("config."))]
    pairs = [(key, json_value(was.get(key)), json_value(now.get(key))) for key in keys]
    return [Drift(key, before, after) for key, before, after in pairs if before != after and not _is_new(key, was, now)]


def _is_harmless(setting: str) -> bool:
    return setting in _HARMLESS or setting.startswith(_HARMLESS_SECTIONS)


def _is_new(key: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if key in was:
        return False
    if not key.startswith("config."):
        return key.startswith(("version.", "plan."))
    parts = key.split(".")
    if any(".".join(parts[:length]) in was for length in range(2, len(parts))):
        return False  # there was none of this section, and now there is one
    known = settings_by_key().get(key.removeprefix("config."), ())
    return any(json_value(one.default) == json_value(now[key]) for one in known)


def refuse_drift(differences: Sequence[Drift]) -> None:
    """Raises: DriftError listing `differences`, when there are any."""
    if differences:
        lines = "".join(f"\n  {difference}" for difference in differences)
        raise DriftError(
            f"this is not the run that was begun; going on would mix two experiments:{lines}",
            hint=f"undo the change{_as_it_was(differences)}, give --accept-drift to go on all the same, or train into "
            "another --run directory",
        )


def _as_it_was(differences: Sequence[Drift]) -> str:
    """How: a setting that nobody wrote may have another default since."""
    metric = next((one.was for one in differences if one.what == "config.checkpoint.metric"), None)
    return "" if metric is None else f" (checkpoint.metric={metric}, where nobody wrote another)"
