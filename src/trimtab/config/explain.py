"""What can be configured: one key in words, or all of them as a JSON Schema for editors."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticUndefined

from trimtab.config.dump import yaml_value
from trimtab.config.keys import Key, first_line, keys, listed_keys, tag_of
from trimtab.config.nearest import any_of, did_you_mean, nearest_keys
from trimtab.config.presets import list_presets
from trimtab.config.run import Config
from trimtab.errors import ConfigError


def explain(key: str) -> str:
    """What one key is, what it takes, and its default; apart for the variants where these differ.

    Raises:
        ConfigError: there is no such key.
    """
    section, _, name = key.rpartition(".")
    if key not in keys():
        here = [path.rpartition(".")[2] for path in keys() if path.rpartition(".")[0] == section]
        near = nearest_keys(tuple(filter(None, section.split("."))), name, here, keys())
        raise ConfigError(
            f"there is no such key. Received: {key!r}",
            hint=did_you_mean(near) or "`trimtab config show` lists all keys",
        )
    if keys()[key][0].is_tag:
        return "\n  ".join([key, *_variants(keys()[section][0])])
    pages: dict[tuple[str, ...], list[str]] = {}
    for one in keys()[key]:
        pages.setdefault(tuple(_page(one)), []).append(tag_of(one.owner) or "")
    if len(pages) == 1:
        return "\n  ".join([key, *next(iter(pages))])
    lines = [key]
    for page, tags in pages.items():
        lines += [f"  with {section}.name {any_of(tags)}:", *(f"    {line}" for line in page)]
    return "\n".join(lines)


def _page(key: Key) -> list[str]:
    lines = [key.description]
    if len(key.sections) > 1:
        return lines + _variants(key)
    lines.append(f"takes: {key.allowed}")
    if key.is_list:
        for name, section in key.entries.items():
            lines.append(f"{name}: {first_line(section)}")
            options = [one for one in listed_keys().values() if one[0].path.startswith(f"{key.path}[].")]
            own = [one for several in options for one in several if one.owner is section and not one.is_tag]
            lines += [f"  {one.name}: {one.description}" for one in own]
    if not key.sections:
        must = key.default is PydanticUndefined
        lines.append("must be given" if must else f"default: {yaml_value(key.default)}")
    return lines


def _variants(key: Key) -> list[str]:
    default = "" if key.default_name is None else f" (default: {key.default_name})"
    lines = [f"  {name}: {first_line(one)}" for name, one in key.sections.items()]
    return [f"takes one of{default}:", *lines]


def config_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a configuration file.

    A section may leave out its `name`, which then is the preset's or the default: so any variant will do.
    """
    schema = _any_variant(Config.model_json_schema())
    presets = {"enum": sorted(list_presets()), "description": "the configuration to start from"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:trimtab:config:1",
        **schema,
        "title": "trimtab configuration",
        "properties": {"preset": presets, **schema["properties"]},
    }


def _any_variant(node: Any) -> Any:
    if isinstance(node, list):
        return [_any_variant(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {
        "anyOf" if key == "oneOf" else key: _any_variant(value) for key, value in node.items() if key != "discriminator"
    }
