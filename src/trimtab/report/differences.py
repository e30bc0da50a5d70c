"""What a run's settings are beside the preset of its name, or the defaults: the little that somebody set."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from trimtab.config import flatten, list_presets, load_config
from trimtab.config.adopted import with_metrics_of_task
from trimtab.errors import TrimtabError

PRIVATE: Final = "alerts."
"""Settings that say who is told, and nothing of the run."""


def differences_of(settings: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, Any, Any], ...]]:
    """What was set otherwise than in the preset of the run's name, or than by default."""
    if not settings:
        return "", ()
    name = settings.get("name")
    is_preset = isinstance(name, str) and name in list_presets()
    before = dict(_settings_of(name if is_preset else None)) | _of_the_task(settings)
    changed = tuple(
        (key, before.get(key), value)
        for key, value in settings.items()
        if key != "name" and not key.startswith(PRIVATE) and _plain(before.get(key)) != _plain(value)
    )
    return f"the preset {name}" if is_preset else "the defaults", changed


def _of_the_task(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What chooses checkpoints where nobody says: it follows from the task, and is not set."""
    rooms = {
        room: {key.removeprefix(f"{room}."): value for key, value in settings.items() if key.startswith(f"{room}.")}
        for room in ("task", "averaging")
    }
    said = with_metrics_of_task(rooms)
    return {f"{room}.metric": said[room]["metric"] for room in ("checkpoint", "stopping")}


@cache
def _settings_of(preset: str | None) -> Mapping[str, Any]:
    """All settings of a preset, or the defaults; empty where they need something that is not given."""
    try:
        return flatten(load_config(preset, environment={}))
    except TrimtabError:
        return {}


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
