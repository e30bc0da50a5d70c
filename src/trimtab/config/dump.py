"""A configuration as YAML, every key with its description; loading it back gives one of the same effect."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trimtab.config.base import Section
from trimtab.config.effect import idle_keys
from trimtab.config.idle import Idle
from trimtab.config.keys import Key, first_line, keys, plain, tag_of
from trimtab.config.run import Config
from trimtab.config.secrets import hidden

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_RESERVED = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_NOTE_WIDTH = 100


def yaml_value(value: Any) -> str:
    """One value in YAML's flow style, on one line."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float() if not math.isfinite(value):
            return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        case int() | float():
            return repr(value)
        case str():
            return _text(value)
        case Section():
            return yaml_value(dict(value))
        case Mapping():
            return "{" + ", ".join(f"{_text(str(k))}: {yaml_value(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(yaml_value, value)) + "]"
        case _:
            return _text(str(value))


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    if character.isprintable():
        return character
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def dump_config(config: Config, notes: Mapping[str, Sequence[str]] | None = None) -> str:
    """The whole configuration as YAML with comments, for `load_config` to read back; `notes` stand above their keys.

    A key without effect stands there as a comment that says why, as `load_config` would refuse it. Secrets are `***`,
    which `load_config` refuses, too: whoever goes on gives them again.
    """
    header = f"# {first_line(Config)} Written by trimtab; it loads as it is."
    return "\n".join([header, *_lines(config, "", "", idle_keys(config), remarks(config), notes or {})]) + "\n"


def remarks(config: Config) -> dict[str, str]:
    """What follows from several keys together, by the key that a reader would look at."""
    if config.rate_scale == 1.0:
        return {}
    rule = config.optimizer.batch_scaling.name.replace("_", " ")
    applied = f"applied: {config.full_rate:.4g}, {config.rate_scale:.4g} times it"
    return {
        "optimizer.learning_rate": f"{applied}, as {config.sequences_per_step} sequences are an update ({rule} scaling)"
    }


def _lines(
    section: Section,
    prefix: str,
    indent: str,
    idle: Mapping[str, Idle],
    remarked: Mapping[str, str],
    notes: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        (key,) = (one for one in keys()[prefix + name] if one.owner is type(section))
        yield from (f"{indent}# {line}" for note in notes.get(key.path, ()) for line in _wrapped(note))
        if isinstance(value, Section):
            below = list(_lines(value, f"{prefix}{name}.", indent + "  ", idle, remarked, notes))
            empty = " {}" if all(line.lstrip().startswith("#") for line in below) else ""
            yield f"{indent}{name}:{empty}{_comment(key, value)}"
            yield from below
        elif key.path in idle:
            yield f"{indent}# {name}: without effect: {idle[key.path].reason}"
        else:
            remark = f"; {remarked[key.path]}" if key.path in remarked else ""
            yield f"{indent}{name}: {yaml_value(hidden(plain(value), name))}{_comment(key, value)}{remark}"


def _comment(key: Key, value: Any) -> str:
    """What the key is; in a section with a `name` that line says it."""
    told_below = isinstance(value, Section) and tag_of(type(value)) is not None
    description = key.field.description if told_below else key.description
    return f"  # {description}" if description else ""


def _wrapped(note: str) -> list[str]:
    """A note as lines of a comment: whatever it holds, none of it is a setting."""
    printed = "".join(character if character.isprintable() else " " for character in note)
    return textwrap.wrap(printed, _NOTE_WIDTH, break_long_words=False, break_on_hyphens=False)
