"""From a preset, a file, the environment and overrides to one checked configuration that knows its origins.

Precedence: default < preset < file < environment < override. A value is taken whole from the highest layer
that gives it; sections are merged key by key. A layer that names another variant of a section (such as
`optimizer.name`) starts that section afresh.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trimtab.config.effect import asked_for_nothing
from trimtab.config.keys import flatten, keys
from trimtab.config.layers import Given, KeyPath, Layer, lay_over, nested, put, put_tree
from trimtab.config.nearest import did_you_mean, nearest_keys, nearest_names
from trimtab.config.presets import list_presets, preset_text
from trimtab.config.problems import Problem, problems_of, raise_problems, short
from trimtab.config.run import Config
from trimtab.config.secrets import is_hidden

_PREFIX = "TRIMTAB_"
_SPELLING = "TRIMTAB_SECTION__KEY, with two underscores after each section"
_NO_SETTINGS = frozenset({"TRIMTAB_CACHE", "TRIMTAB_RESTART", "TRIMTAB_WEBHOOK_URL", "TRIMTAB_SMTP_PASSWORD"})
"""Variables that are read elsewhere; the last two are secrets, where alerts do not name others."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and where each of its values came from."""

    config: Config
    origins: dict[str, str]
    """Dotted key to 'default', 'preset NAME', 'FILE:LINE', 'environment NAME', 'override' or 'python'."""
    source: str
    """What it was loaded from, in words."""


def load_config(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """The configuration that a preset's name, a YAML or TOML file, or a mapping gives, with overrides.

    `overrides` are `section.key=value`, values as YAML; `environment` is that of the process if not given.

    Raises:
        ConfigError: all that is wrong, each with its place, key, value, what is allowed and the nearest key.
    """
    return load_with_origin(source, overrides, environment=environment).config


@contextmanager
def _without_plugins() -> Iterator[None]:
    """Inside, pydantic looks for no plugins.

    Sections are built when they are first used, and it would then look among all installed packages, which takes as
    long as building them.
    """
    name = "PYDANTIC_DISABLE_PLUGINS"
    given = os.environ.get(name)
    os.environ[name] = "__all__"
    try:
        yield
    finally:
        os.environ.pop(name)
        if given is not None:
            os.environ[name] = given


@_without_plugins()
def load_with_origin(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """`load_config`, with the origin of every value.

    Raises:
        ConfigError: as `load_config`.
    """
    problems: list[Problem] = []
    merged, said = _source_layer(source, problems)
    lay_over(merged, _environment_layer(os.environ if environment is None else environment, problems))
    lay_over(merged, _override_layer(overrides, problems))
    _whole_numbers(merged)
    problems += [_was_hidden(path, given) for path, given in merged.items() if is_hidden(given.value)]
    try:
        config = Config.model_validate(nested(merged))
    except ValidationError as error:
        raise_problems(problems + problems_of(error, merged, said))
    if problems:
        raise_problems(problems)
    origins = {}
    for key in flatten(config):
        given = merged.get(tuple(key.split(".")))
        origins[key] = "default" if given is None else given.origin
    if idle := asked_for_nothing(config, origins):
        values = flatten(config)
        raise_problems(
            [
                Problem(
                    origins[key],
                    key,
                    f"has no effect: {one.reason}",
                    short(values[key]),
                    hint=f"leave it out, or {one.remedy}",
                )
                for key, one in idle.items()
            ]
        )
    return Loaded(config, origins, said)


def _was_hidden(path: KeyPath, given: Given) -> Problem:
    key = ".".join(path)
    return Problem(
        given.origin,
        key,
        "was hidden as a secret when this configuration was written",
        short(given.value),
        hint=f"give it again: {key}=VALUE",
    )


def _source_layer(source: str | Path | Mapping[str, Any] | None, problems: list[Problem]) -> tuple[Layer, str]:
    layer: Layer = {}
    match source:
        case None:
            return layer, "defaults"
        case Mapping():
            said = "python"
            put_tree(layer, (), source, lambda _: said)
        case str() if not _is_file_name(source):
            return _preset_layer(source), f"preset {source}"
        case _:
            from trimtab.config.read import SUFFIXES, read_file

            path, said = Path(source), str(source)
            if path.suffix.lower() not in SUFFIXES and not path.is_dir():
                message = "a configuration file ends in .yaml, .yml or .toml"
                raise_problems([Problem(said, "", message, hint="a preset is called by its name alone")])
            layer, found = read_file(path)
            problems += found
    preset = layer.pop(("preset",), None)
    if preset is None:
        return layer, said
    presets = list_presets()
    if not isinstance(preset.value, str) or preset.value not in presets:
        near = did_you_mean(nearest_names(str(preset.value), presets))
        allowed = f"one of: {', '.join(presets)}"
        problem = Problem(preset.origin, "preset", "there is no such preset", str(preset.value), allowed, near)
        raise_problems([*problems, problem])
    base = _preset_layer(preset.value)
    lay_over(base, layer)
    return base, f"{said} (preset {preset.value})"


def _is_file_name(source: str) -> bool:
    """Not a preset's name, which counts even where a folder is called the same."""
    named = source.endswith((".yaml", ".yml", ".toml")) or "/" in source or os.sep in source
    return named or (source not in list_presets() and Path(source).exists())


def _preset_layer(name: str) -> Layer:
    from trimtab.config.read import read_yaml

    text = preset_text(name)
    layer, problems = read_yaml(text, lambda _: f"preset {name}")
    if problems:
        raise_problems(problems)
    return layer


def _environment_layer(environment: Mapping[str, str], problems: list[Problem]) -> Layer:
    """What variables give: `__` stands between section and key. Empty ones, and trimtab's other ones, do not count."""
    layer: Layer = {}
    for name in sorted(environment):
        if not name.startswith(_PREFIX) or name in _NO_SETTINGS or not environment[name]:
            continue
        path = tuple(name.removeprefix(_PREFIX).lower().split("__"))
        if len(path) > 1 or path[0] in Config.model_fields:
            _put_text(layer, path, environment[name], f"environment {name}", problems)
        else:
            meant = [key for key in keys() if key.replace(".", "_") == path[0]] or nearest_keys((), path[0], (), keys())
            hint = did_you_mean([_PREFIX + key.upper().replace(".", "__") for key in meant])
            problems.append(
                Problem(f"environment {name}", "", "there is no such key", repr(environment[name]), _SPELLING, hint)
            )
    return layer


def _override_layer(overrides: Sequence[str], problems: list[Problem]) -> Layer:
    layer: Layer = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(key.strip().split("."))
        allowed = "section.key=value"
        if not equals or not all(path):
            hint = "a key and its value are joined by '=', without spaces" if not equals else None
            problems.append(Problem("override", "", "is not an override", repr(override), allowed, hint))
        elif key.startswith("-"):
            hint = f"without the dashes: {override.lstrip('-')}"
            problems.append(Problem("override", "", "is not an override", repr(override), allowed, hint))
        else:
            _put_text(layer, path, text, "override", problems)
    return layer


def _put_text(layer: Layer, path: KeyPath, text: str, origin: str, problems: list[Problem]) -> None:
    """Put a value given as text: as it is where the key takes any text (unless in quotes), else as YAML."""
    several = keys().get(".".join(path), ())
    if several and all(key.takes_text for key in several) and text[:1] not in "\"'":
        put(layer, path, Given(text, origin))
        return
    from trimtab.config.read import read_value

    found, wrong = read_value(path, text, origin)
    problems += wrong
    if (*path, "name") in found:
        # A whole section replaces another variant of it that came before.
        lay_over(layer, found)
        return
    for entry, given in found.items():
        put(layer, entry, given)


def _whole_numbers(layer: Layer) -> None:
    """1e4 is a whole number where one is wanted."""
    for path, given in layer.items():
        if isinstance(given.value, float) and given.value.is_integer():
            several = keys().get(".".join(path), ())
            if several and all(key.takes_integer for key in several):
                layer[path] = Given(int(given.value), given.origin)


@_without_plugins()
def load_written(path: Path, overrides: Sequence[str] = ()) -> Config:
    """What a run was begun with, from its config.yaml, with overrides; nothing of the environment.

    An older trimtab wrote options without effect as well, which are left out here instead of being refused.

    Raises:
        ConfigError: as `load_config`; for a key that there is no more; for a secret, which no file of a run holds.
    """
    from trimtab.config.dump import dump_config
    from trimtab.config.read import read_file, read_yaml

    layer, problems = read_file(path)
    if problems:
        raise_problems(problems)
    _whole_numbers(layer)
    try:
        written = Config.model_validate(nested(layer))
    except ValidationError as error:
        raise_problems(problems_of(error, layer, str(path)))
    effective, _ = read_yaml(dump_config(written), lambda line: str(path))
    return load_config(nested(effective), overrides, environment={})
