"""What is wrong with a configuration: where, which key, what was received, what is allowed, what is near."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trimtab.config.base import Section
from trimtab.config.dump import yaml_value
from trimtab.config.keys import Key, keys, plain, tag_of
from trimtab.config.layers import KeyPath, Layer
from trimtab.config.nearest import any_of, did_you_mean, nearest_keys, nearest_names, remark, squash
from trimtab.config.run import Config
from trimtab.config.secrets import hide
from trimtab.errors import ConfigError

_LONGEST_VALUE = 80
_MOST_TOLD = 40
_OF_TORCH = ("RMSprop", "Adagrad", "NAdam", "RAdam", "Rprop")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    where: str
    """'my.yaml:12', 'override', 'environment TRIMTAB_…'."""
    key: str
    """Dotted; '' for the whole."""
    message: str
    received: str | None = None
    allowed: str | None = None
    hint: str | None = None

    def lines(self) -> list[str]:
        """The hint apart, as a reader wants it."""
        place = ": ".join(filter(None, (self.where, _cut(_visible(self.key)), self.message)))
        received = None if self.received is None else f"Received: {self.received}"
        allowed = None if self.allowed is None else f"Allowed: {self.allowed}"
        return [line for line in (place, received, allowed) if line is not None]


def short(value: Any) -> str:
    """A value as the user would write it, without secrets, cut when it is long."""
    return _cut(hide(yaml_value(plain(value)), assigned=True))


def _visible(text: str) -> str:
    """`text` on one line, with what a terminal would not show as escapes."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def raise_problems(problems: Sequence[Problem]) -> NoReturn:
    """One ConfigError that lists all of them.

    Raises:
        ConfigError: always.
    """
    if len(problems) == 1:
        (one,) = problems
        hint = one.hint or (f"`trimtab config explain {one.key}` says more" if one.key in keys() else None)
        raise ConfigError("\n  ".join(one.lines()), hint=hint)
    lines = [f"{len(problems)} problems in the configuration"]
    for one in problems[:_MOST_TOLD]:
        first, *rest = one.lines()
        lines += [f"  {first}", *(f"    {line}" for line in rest)]
        if one.hint is not None:
            lines.append(f"    hint: {one.hint}")
    if len(problems) > _MOST_TOLD:
        lines.append(f"  … and {len(problems) - _MOST_TOLD} more")
    raise ConfigError("\n".join(lines), hint="`trimtab config explain SECTION.KEY` says what a key takes")


def problems_of(error: ValidationError, layer: Layer, source: str) -> list[Problem]:
    """The errors of pydantic by key and by place in `layer`; `source` is the place of what is not there."""
    errors = sorted(error.errors(include_url=False), key=lambda one: _line(_locate(one["loc"])[0], layer))
    # A value that fits none of several kinds is told once for each of them.
    # A value that is left with too few entries, as one of them is wrong, is told of that one.
    errors = [one for one in errors if one["type"] != "too_short" or not _has_inside(one, errors)]
    found = [problem for one in errors[:_MOST_TOLD] for problem in (_problem(one, layer, source), *_beside(one, layer))]
    told = list(dict.fromkeys(found))
    return told + [Problem("", "", str(one["type"])) for one in errors[_MOST_TOLD:]]


def _has_inside(error: ErrorDetails, errors: Iterable[ErrorDetails]) -> bool:
    """Whether another error is of a part of its value."""
    place = error["loc"]
    return any(len(one["loc"]) > len(place) and one["loc"][: len(place)] == place for one in errors)


def _beside(error: ErrorDetails, layer: Layer) -> Iterator[Problem]:
    """Keys beside a wrong name that no choice has: nothing is known of the others before the name is right."""
    path, _, key = _locate(error["loc"])
    if error["type"] != "union_tag_invalid" or key is None or key.entries or not key.sections:
        return
    near = nearest_names(str(error["input"]["name"]), key.sections)
    section = key.sections[near[0]] if near else next(iter(key.sections.values()))
    known = {name for one in key.sections.values() for name in one.model_fields}
    given = dict.fromkeys(one[: len(path) + 1] for one in layer if len(one) > len(path) and one[: len(path)] == path)
    for one in given:
        if one[-1] not in known:
            value = layer[one].value if one in layer else {}
            yield _unknown(one, section, _where(one, layer, ""), value)


def _line(path: KeyPath, layer: Layer) -> int:
    found = re.search(r":(\d+)$", _where(path, layer, ""))
    return int(found[1]) if found else 0


def _locate(location: Iterable[int | str]) -> tuple[KeyPath, type[Section] | None, Key | None]:
    """The path without pydantic's marks for variants, the section that holds its last key, and that key.

    What lies inside a value (an entry of a list) is located at the value, unless it is a mapping to sections.
    """
    path: list[str] = []
    inside: Mapping[str, type[Section]] = {"": Config}
    owner: type[Section] | None = None
    key: Key | None = None
    for part in map(str, location):
        if len(inside) > 1 and part in inside:
            inside = {"": inside[part]}
        elif inside:
            path.append(part)
            (owner,) = inside.values()
            key = next((one for one in keys().get(".".join(path), ()) if one.owner is owner), None)
            inside = key.sections if key is not None else {}
        elif key is not None and key.entries and part not in key.entries:
            path.append(part)
    return tuple(path), owner, key


def _where(path: KeyPath, layer: Layer, source: str) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in layer:
            return layer[path[:length]].origin
    return source


def _problem(error: ErrorDetails, layer: Layer, source: str) -> Problem:
    path, owner, key = _locate(error["loc"])
    where, received, kind = _where(path, layer, source), short(error["input"]), error["type"]
    said = str(error.get("ctx", {}).get("error", error["msg"]))
    if kind == "value_error" and (key is None or key.sections):
        return _combination(path, said, layer, where)
    if key is None:
        return _unknown(path, owner or Config, where, error["input"])
    if kind == "missing" and not (key.entries and len(path) > len(key.path.split("."))):
        return Problem(where, key.path, f"must be given: {key.description}", allowed=key.allowed)
    if key.entries and len(path) > len(key.path.split(".")):
        return _in_an_entry(key, path, error, where)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        name = error["input"]["name"] if kind == "union_tag_invalid" else None
        return _unnamed((*path, "name"), key, name, layer, source)
    if key.sections:
        return _not_a_section(key, error["input"], where)
    message = said if kind == "value_error" else f"must be {key.allowed}"
    hint = did_you_mean(nearest_names(str(error["input"]).lower(), key.choices))
    if key.takes_text and isinstance(error["input"], int | float):
        hint = f"put it in quotes: '{received}'"
    return Problem(where, key.path, message, received, key.allowed if kind == "value_error" else None, hint)


def _in_an_entry(key: Key, path: KeyPath, error: ErrorDetails, where: str) -> Problem:
    """What is wrong with a section that stands in a mapping under a name of the user's."""
    inside = path[len(key.path.split(".")) :]
    place = ".".join((key.path, *inside))
    received = short(error["input"])
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        given = error["type"] == "union_tag_invalid"
        name = error["input"]["name"] if given else ""
        message = "there is no such choice" if given else "must be given"
        hint = did_you_mean(nearest_names(str(name), key.entries))
        allowed = f"one of: {', '.join(key.entries)}"
        return Problem(where, f"{place}.name", message, short(name) if given else None, allowed, hint)
    if error["type"] == "extra_forbidden":
        chosen = key.entries.get("") or next(
            one for part in map(str, error["loc"]) if (one := key.entries.get(part)) is not None
        )
        allowed = ", ".join(chosen.model_fields)
        hint = did_you_mean(nearest_names(inside[-1], chosen.model_fields))
        return Problem(where, place, "there is no such key", received, allowed, hint)
    if error["type"] == "missing":
        return Problem(where, place, "must be given")
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "must")
    if error["type"] == "too_short":
        least = error["ctx"]["min_length"]
        message = f"must have {least} {'entry' if least == 1 else 'entries'} or more"
    if error["type"] == "model_attributes_type":
        message = "must be a section, not a value"
    return Problem(where, place, message, received)


def _not_a_section(key: Key, value: Any, where: str) -> Problem:
    hint = _from_outside(key, value)
    if hint is None and (choice := _choice(key, value)) is not None:
        name = key.path.rpartition(".")[2]
        said = f"{key.path}.name={choice}" if where == "override" else f"`{name}: {{name: {choice}}}`"
        hint = f"did you mean {said}?"
    return Problem(where, key.path, "must be a section, not a value", short(value), key.allowed, hint)


def _choice(key: Key, value: Any) -> str | None:
    """The variant that `value` most likely names."""
    near = nearest_names(str(value), key.sections) if len(key.sections) > 1 else []
    return near[0] if near else None


def _from_outside(key: Key, name: Any) -> str | None:
    """How an optimizer comes in that is not one of ours."""
    if key.path != "optimizer" or _choice(key, name) not in (None, "custom"):
        return None
    of_torch = next((one for one in _OF_TORCH if squash(one) == squash(str(name))), _OF_TORCH[0])
    return (
        f"any class of torch.optim comes in as optimizer.name=custom optimizer.target=torch.optim:{of_torch}, "
        "and from Python as make_optimizer="
    )


def _unknown(path: KeyPath, section: type[Section], where: str, value: Any) -> Problem:
    *above, name = path
    received = short(value)
    here = list(section.model_fields)
    allowed = ", ".join(here)
    variants = [tag for one in keys().get(".".join(path), ()) if (tag := tag_of(one.owner)) is not None]
    if variants:
        parent = ".".join(above)
        message = f"has no effect: {parent} is {tag_of(section)!r}, which has no such key"
        has_it = f"{parent}.name={any_of(variants)} has it"
        return Problem(where, ".".join(path), message, received, allowed, has_it)
    prefix = "".join(f"{part}." for part in above)
    if elsewhere := _variants_with(path):
        *outer, _ = above
        has_it = f"{'.'.join(outer)}.name={any_of(elsewhere)} has it"
        return Problem(where, ".".join(path), "there is no such key", received, allowed, has_it)
    near = nearest_keys(tuple(above), name, here, keys())
    at_top = bool(above) and any("." not in one for one in near)
    # Beside a key of no section one of this section needs its path.
    shorten = {one: one.removeprefix(prefix) for one in near if not at_top and one.removeprefix(prefix) in here}
    hint = did_you_mean([shorten.get(one, one) for one in near])
    if hint is not None and at_top:
        hint = f"{hint} It stands at the top, in no section."
    meant = [key for one in near[:1] for key in keys()[one]]
    if where == "override" and meant and (choice := _choice(meant[0], value)) is not None:
        hint = f"did you mean {near[0]}.name={choice}?"
    hint = " ".join(filter(None, (hint, remark(name)))) or None
    return Problem(where, ".".join(path), "there is no such key", received, allowed, hint)


def _variants_with(path: KeyPath) -> list[str]:
    """The variants of the section around that of `path` in which it has this key, where it differs between them."""
    owners = {key.owner for key in keys().get(".".join(path), ())}
    around = keys().get(".".join(path[:-1]), ())
    found = [tag_of(key.owner) for key in around if owners.intersection(key.sections.values())]
    return [tag for tag in found if tag is not None]


def _unnamed(path: KeyPath, key: Key, name: Any, layer: Layer, source: str) -> Problem:
    allowed = f"one of: {', '.join(key.sections)}"
    where = _where(path, layer, source)
    if name is None:
        return Problem(where, ".".join(path), "must be given", None, allowed)
    hint = _from_outside(key, name) or did_you_mean(nearest_names(str(name), key.sections))
    return Problem(where, ".".join(path), "there is no such choice", short(name), allowed, hint)


def _combination(section: KeyPath, message: str, layer: Layer, where: str) -> Problem:
    """Values that do not go together: the places and values of all keys that the message names."""
    named = dict.fromkeys(re.findall(r"[a-z_]+(?:\.[a-z_]+)*", message))
    paths = dict.fromkeys(
        path
        for word in named
        for path in ((*section, *word.split(".")), tuple(word.split(".")))
        if path in layer and not layer[path].is_section
    )
    places = dict.fromkeys(layer[path].origin for path in paths)
    received = ", ".join(f"{'.'.join(path)}: {short(layer[path].value)}" for path in paths)
    return Problem(", ".join(places) or where, ".".join(section), message, received or None)
