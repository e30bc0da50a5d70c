"""Configurations to start from: one YAML file each, whose first line says what it is for."""

from __future__ import annotations

from importlib.resources import files

from trimtab.config.nearest import did_you_mean, nearest_names
from trimtab.errors import ConfigError

__all__ = ["list_presets", "preset_text"]


def _texts() -> dict[str, str]:
    found = {
        entry.name.removesuffix(".yaml"): entry.read_text("utf-8")
        for entry in files(__name__).iterdir()
        if entry.name.endswith(".yaml")
    }
    return dict(sorted(found.items()))


def list_presets() -> dict[str, str]:
    """Every preset, and in one line what it is for."""
    return {name: text.partition("\n")[0].lstrip("# ") for name, text in _texts().items()}


def preset_text(name: str) -> str:
    """The YAML of a preset.

    Raises:
        ConfigError: there is no such preset.
    """
    texts = _texts()
    if name not in texts:
        raise ConfigError(
            f"there is no preset of that name, and a file ends in .yaml, .yml or .toml. Received: {name!r}\n"
            f"Presets: {', '.join(texts)}",
            hint=did_you_mean(nearest_names(name, texts)) or "`trimtab config presets` says what each is for",
        )
    return texts[name]
