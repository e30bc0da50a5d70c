"""Every key of a configuration: where it is, what it takes, and its value in a given configuration."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from trimtab.config.base import Section
from trimtab.config.run import Config


@dataclass(frozen=True, slots=True)
class Key:
    """One key, as one variant of its section declares it."""

    path: str
    """Dotted: 'optimizer.learning_rate'; of a section in a list 'sinks[].points'."""
    owner: type[Section]
    field: FieldInfo
    sections: Mapping[str, type[Section]]
    """What it may hold, by `name`; '' for a section without variants; empty when it holds a value."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def entries(self) -> Mapping[str, type[Section]]:
        """What a mapping may hold under each of its names, or a list in each place, as `sections` of a key.

        Empty for everything else.
        """
        kinds = [one for one in _types(self.field.annotation) if get_origin(one) in (dict, tuple)]
        return _sections(get_args(kinds[0])[-1 if get_origin(kinds[0]) is dict else 0]) if kinds else {}

    @property
    def is_list(self) -> bool:
        """Whether `entries` stand in a list, and not under names."""
        return any(get_origin(one) is tuple for one in _types(self.field.annotation))

    @property
    def default(self) -> Any:
        """The value when none is given; `PydanticUndefined` when one must be."""
        return self.field.get_default(call_default_factory=True)

    @property
    def default_name(self) -> str | None:
        """Which of several variants it holds when none is named."""
        return tag_of(type(self.default)) if len(self.sections) > 1 else None

    @property
    def is_tag(self) -> bool:
        """Whether it tells the variants of its section apart."""
        return self.name == "name" and tag_of(self.owner) is not None

    @property
    def description(self) -> str:
        """One line, or ''."""
        if self.field.description is not None:
            return self.field.description
        if self.is_tag:
            return first_line(self.owner)
        return first_line(type(self.default)) if isinstance(self.default, Section) else ""

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it takes, when these are all it takes."""
        literal = get_origin(self.field.annotation) is Literal
        return tuple(map(str, get_args(self.field.annotation))) if literal else ()

    @property
    def takes_text(self) -> bool:
        """Whether any text will do, so that none need be quoted."""
        return self.field.annotation is str

    @property
    def takes_integer(self) -> bool:
        """Whether it is a whole number, and no other number will do."""
        kinds = set(_types(self.field.annotation))
        return int in kinds and float not in kinds

    @property
    def allowed(self) -> str:
        """What it takes, in words."""
        if set(self.entries) == {""}:
            return f"a mapping of names to sections with some of the keys: {', '.join(self.entries[''].model_fields)}"
        if self.entries and self.is_list:
            return f"a list of names, or of sections whose name is one of: {', '.join(self.entries)}"
        if self.entries:
            return f"a mapping of names to sections whose name is one of: {', '.join(self.entries)}"
        if not self.sections:
            return _in_words(self.owner.model_json_schema()["properties"][self.name])
        if len(self.sections) > 1:
            text = f"a section whose name is one of: {', '.join(self.sections)}"
        else:
            (section,) = self.sections.values()
            text = f"a section with some of the keys: {', '.join(section.model_fields)}"
        return text if self.default is not None else f"{text}; or null"


def first_line(section: type[Section]) -> str:
    """The first line of a section's docstring."""
    return (section.__doc__ or "").strip().partition("\n")[0]


def tag_of(section: type) -> str | None:
    """The `name` that tells a variant from the others, or None."""
    field = section.model_fields.get("name") if issubclass(section, Section) else None
    if field is None or get_origin(field.annotation) is not Literal:
        return None
    return str(get_args(field.annotation)[0])


def _types(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is a choice of."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _types(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _types(part)
    else:
        yield annotation


def _sections(annotation: Any) -> dict[str, type[Section]]:
    return {tag_of(one) or "": one for one in _types(annotation) if isinstance(one, type) and issubclass(one, Section)}


def _walk(section: type[Section], prefix: str) -> Iterator[Key]:
    for name, field in section.model_fields.items():
        key = Key(prefix + name, section, field, _sections(field.annotation))
        yield key
        for variant in key.sections.values():
            yield from _walk(variant, f"{key.path}.")


@cache
def keys() -> Mapping[str, tuple[Key, ...]]:
    """All keys by dotted path, parents first; several where variants of a section share one."""
    found: dict[str, list[Key]] = {}
    for key in _walk(Config, ""):
        several = found.setdefault(key.path, [])
        if all(key.owner is not other.owner for other in several):
            several.append(key)
    return {path: tuple(several) for path, several in found.items()}


@cache
def listed_keys() -> Mapping[str, tuple[Key, ...]]:
    """The keys of sections that stand in lists, as 'sinks[].points'.

    They are none of `keys`: a list is given whole.
    """
    found: dict[str, list[Key]] = {}
    for several in keys().values():
        for holder in several:
            for section in holder.entries.values() if holder.is_list else ():
                for key in _walk(section, f"{holder.path}[]."):
                    found.setdefault(key.path, []).append(key)
    return {path: tuple(several) for path, several in found.items()}


_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "greater than",
    "exclusiveMaximum": "less than",
}


def _range(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    return " and".join(f" {word} {schema[bound]}" for bound, word in _BOUNDS.items() if bound in schema)


def _in_words(schema: Mapping[str, Any]) -> str:
    """What a JSON Schema lets through."""
    if "anyOf" in schema:
        return ", or ".join(_in_words(one) for one in schema["anyOf"])
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return f"one of: {', '.join(map(str, schema['enum']))}"
    note = f" ({schema['description']})" if "title" not in schema and "description" in schema else ""
    match schema.get("type"):
        case "integer":
            return f"a whole number{_range(schema)}{note}"
        case "number":
            return f"a number{_range(schema)}{note}"
        case "boolean":
            return "true or false"
        case "null":
            return "null"
        case "array":
            items = schema.get("items", {})
            if "enum" in items:
                what = f"a list of {', '.join(map(str, items['enum']))}"
            else:
                what = "a list of texts" if items.get("type") == "string" else f"a list, each {_in_words(items)}"
            return f"{what}, not empty" if schema.get("minItems") else what
        case "object":
            return "a mapping of names to values"
        case _ if "examples" in schema:
            return f"text such as {' or '.join(map(repr, schema['examples']))}"
        case _ if "pattern" in schema:
            return f"text that matches {schema['pattern']}"
        case _:
            return "text, not empty" if schema.get("minLength") else "text"


def flatten(config: Section, prefix: str = "") -> dict[str, Any]:
    """Every value by its dotted key; a section that is not there counts as the value None."""
    values: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Section):
            values |= flatten(value, f"{prefix}{name}.")
        else:
            values[prefix + name] = plain(value)
    return values


def plain(value: Any) -> Any:
    """A mapping to sections, or a list of them, as one of mappings, for whoever compares or writes it."""
    if isinstance(value, tuple):
        return tuple(_name_first(one.model_dump()) if isinstance(one, Section) else one for one in value)
    if isinstance(value, Mapping):
        return {key: one.model_dump() if isinstance(one, Section) else one for key, one in value.items()}
    return value


def _name_first(values: dict[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key in sorted(values, key=lambda key: key != "name")}


def difference(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """(key, old value, new value) for every key whose value differs; None where one side has no such key.

    1 and 1.0 differ: as a span, they are one step and the whole run.
    """
    before, after = flatten(old), flatten(new)
    pairs = ((key, before.get(key), after.get(key)) for key in before | after)
    return [(key, a, b) for key, a, b in pairs if (type(a), a) != (type(b), b)]
