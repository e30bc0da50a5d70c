"""The temperature of a run's answers: `calibration.json` in its directory, for one of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.runs.directory import RunDirectory
from trimtab.runs.files import read_json, write_json


def write_calibration(run: RunDirectory, step: int, weights: str, found: Mapping[str, Any]) -> None:
    """Keep what was `found` for the `weights` of `step`, `plain` or the kind of an average. Raises: StorageError."""
    write_json(run.calibration, {"step": step, "weights": weights, **found})


def newest_calibration(run: RunDirectory) -> dict[str, Any] | None:
    """What was kept last, or None. Raises: StorageError."""
    return read_json(run.calibration) if run.calibration.exists() else None


def read_calibration(run: RunDirectory, step: int, weights: str) -> dict[str, Any] | None:
    """What was kept for these weights; None where there is nothing, or for others. Raises: StorageError."""
    found = newest_calibration(run)
    return found if found is not None and (found["step"], found["weights"]) == (step, weights) else None


def temperature_in(found: Mapping[str, Any]) -> float | tuple[float, ...]:
    """One for all answers, or one for each label."""
    kept = found["temperature"]
    return tuple(map(float, kept)) if isinstance(kept, Sequence) else float(kept)


def in_words(found: Mapping[str, Any]) -> str:
    """The temperature, and what it does on texts that it was not fitted on."""
    if "why" in found:
        return f"no temperature: {found['why']}"
    before, after = found["before"], found["after"]
    judged = f"on {found['judged_on']:,} that it was not fitted on"
    temperature = temperature_in(found)
    if temperature == 1.0 or (isinstance(temperature, tuple) and set(temperature) == {1.0}):
        why = found.get("why_not") or "the loss is no lower with it"
        return (
            f"temperature 1, as {_shown(found['fitted'])}, which was fitted, does not help {judged}: {why}; "
            f"calibration error {before['calibration_error']:.3f}"
        )
    worse = after["calibration_error"] > before["calibration_error"] or after["loss"] >= before["loss"]
    warned = "; it does not help by both: trimtab calibrate judges it anew" if worse else ""
    return (
        f"temperature {_shown(temperature)}: calibration error {before['calibration_error']:.3f} → "
        f"{after['calibration_error']:.3f}, loss {before['loss']:.4f} → {after['loss']:.4f}, {judged}{warned}"
    )


def _shown(temperature: float | Sequence[float]) -> str:
    """In three digits; of several labels the least and the greatest."""
    if not isinstance(temperature, Sequence):
        return f"{temperature:.3g}"
    return f"{min(temperature):.3g} to {max(temperature):.3g} by label"
