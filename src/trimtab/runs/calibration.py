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
    judged = f"on {found['judged_on']:,} answers that were held back to judge it"
    temperature = temperature_in(found)
    if temperature == 1.0 or (isinstance(temperature, tuple) and set(temperature) == {1.0}):
        why = found.get("why_not") or "the loss is no lower with it"
        return (
            f"answers stay as they are: the temperature that was fitted, {_shown(found['fitted'])}, does not help "
            f"{judged}: {why}; calibration error {before['calibration_error']:.3f}"
        )
    worse = after["calibration_error"] > before["calibration_error"] or after["loss"] >= before["loss"]
    warned = "; one of the two is no better with it: judge it on more answers by trimtab calibrate" if worse else ""
    errors, losses = ([one[key] for one in (before, after)] for key in ("calibration_error", "loss"))
    return (
        f"answers are divided by a temperature of {_shown(temperature)}, so that they are {_effect(temperature)}; "
        f"{judged} the calibration error goes from {errors[0]:.3f} to {errors[1]:.3f}, the loss from {losses[0]:.4f} "
        f"to {losses[1]:.4f}{warned}"
    )


def _effect(temperature: float | Sequence[float]) -> str:
    several = temperature if isinstance(temperature, Sequence) else (temperature,)
    if min(several) >= 1.0:
        return "less sure"
    return "surer" if max(several) <= 1.0 else "surer or less sure"


def _shown(temperature: float | Sequence[float]) -> str:
    """In three digits; of several labels the least and the greatest."""
    if not isinstance(temperature, Sequence):
        return f"{temperature:.3g}"
    return f"{min(temperature):.3g} to {max(temperature):.3g} by label"
