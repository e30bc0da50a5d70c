"""Layers of settings: what one source gives, key by key, and how a higher layer lies over a lower one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.config.keys import keys

KeyPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """A value and where it was given. A section is the value {}: its keys are entries of their own."""

    value: Any
    origin: str

    @property
    def is_section(self) -> bool:
        """Whether keys may follow below it."""
        return isinstance(self.value, dict)


Layer = dict[KeyPath, Given]
"""Path of keys to what is given there; a section stands before its keys."""


def put(layer: Layer, path: KeyPath, given: Given) -> None:
    """Set one entry: a value takes the place of a section and all below it, a section that of a value."""
    for length in range(1, len(path)):
        if path[:length] not in layer or not layer[path[:length]].is_section:
            layer[path[:length]] = Given({}, given.origin)
    if not given.is_section and path in layer and layer[path].is_section:
        _drop_below(layer, path)
    layer[path] = given


def put_tree(layer: Layer, path: KeyPath, value: Any, origin: Callable[[KeyPath], str]) -> None:
    """Set an entry and, when it is a mapping, all below it."""
    if path:
        put(layer, path, Given({} if isinstance(value, Mapping) else value, origin(path)))
    if isinstance(value, Mapping):
        for key, below in value.items():
            put_tree(layer, (*path, str(key)), below, origin)


def _drop_below(layer: Layer, path: KeyPath) -> None:
    for other in [other for other in layer if len(other) > len(path) and other[: len(path)] == path]:
        del layer[other]


def lay_over(base: Layer, above: Layer) -> None:
    """Put all of `above` into `base`.

    Where `above` names another variant of a section, that section starts afresh: what the lower layers gave
    for the other variant is dropped. So are the arguments of a third party's part when its target changes.
    """
    for path, given in above.items():
        *section, last = path
        if last == "name":
            unions = [key for key in keys().get(".".join(section), ()) if len(key.sections) > 1]
            default = next((key.default_name for key in unions if key.default_name is not None), None)
            if unions and given.value != (base[path].value if path in base else default):
                _drop_below(base, tuple(section))
        elif last == "target" and path in base and given.value != base[path].value:
            _drop_below(base, (*section, "arguments"))
    for path, given in above.items():
        put(base, path, given)


def nested(layer: Layer) -> dict[str, Any]:
    """The tree of values; a section with variants that does not say its `name` gets the default's."""
    tree: dict[str, Any] = {}
    for path in sorted(layer, key=len):
        node = tree
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = {} if layer[path].is_section else layer[path].value
    for dotted, several in keys().items():
        default = next((key.default_name for key in several if key.default_name is not None), None)
        found: Any = tree
        for part in dotted.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if default is not None and isinstance(found, dict):
            found.setdefault("name", default)
    return tree
