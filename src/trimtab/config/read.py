"""Configuration files and single values as layers: YAML and TOML, with the line of every key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from trimtab.config.layers import Given, KeyPath, Layer, put, put_tree
from trimtab.config.nearest import did_you_mean, nearest_names
from trimtab.config.problems import Problem, raise_problems

SUFFIXES = (".yaml", ".yml", ".toml")
_MOST_BYTES = 1 << 18
_DEEPEST = 32
_TAG = "tag:yaml.org,2002:"
_TYPED = {_TAG + name for name in ("null", "bool", "int", "float")}


def read_file(path: Path) -> tuple[Layer, list[Problem]]:
    """What a file gives, by its suffix YAML or TOML; and what in it is wrong though the rest can be read.

    Raises:
        ConfigError: it cannot be read, or is not a mapping of keys to values.
    """
    text = _text(path)
    if path.suffix.lower() == ".toml":
        return _read_toml(text, str(path)), []
    return read_yaml(text, lambda line: f"{path}:{line}")


def read_yaml(text: str, origin: Callable[[int], str]) -> tuple[Layer, list[Problem]]:
    """What a YAML document gives; `origin` says where a line is.

    Raises:
        ConfigError: it is not valid YAML, or is not a mapping of keys to values.
    """
    reader = _YamlReader(origin)
    root = reader.compose(text, "")
    if isinstance(root, MappingNode):
        reader.enter((), root)
    elif not reader.problems:
        received = "nothing" if root is None else repr(text.strip().partition("\n")[0][:80])
        allowed = "a mapping of keys to values, such as `training: {steps: 1000}`"
        reader.problems.append(Problem(origin(1), "", "gives no keys", received, allowed))
    if root is None or not isinstance(root, MappingNode):
        raise_problems(reader.problems)
    return reader.layer, reader.problems


def read_value(path: KeyPath, text: str, origin: str) -> tuple[Layer, list[Problem]]:
    """What `text`, a value in YAML's flow style, gives at `path`."""
    reader = _YamlReader(lambda _: origin)
    root = reader.compose(text, ".".join(path))
    if root is not None:
        reader.enter(path, root)
    elif not reader.problems:
        put(reader.layer, path, Given(None, origin))
    return reader.layer, reader.problems


@final
class _YamlReader:
    """From YAML's nodes to a layer. Problems are kept, so that all of them can be told at once."""

    def __init__(self, origin: Callable[[int], str]) -> None:
        self.layer: Layer = {}
        self.problems: list[Problem] = []
        self._origin = origin
        self._yaml = YAML(typ="safe", pure=True)
        self._seen: set[int] = set()

    def compose(self, text: str, key: str) -> Node | None:
        """The root node of the text of `key`; None when there is none, or a problem instead."""
        line, said = 1, "it is nested too deeply"
        try:
            root: Node | None = self._yaml.compose(text)
            return root
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, said = (mark.line + 1 if mark else 1), str(error.problem or error.context)
        except ReaderError as error:
            line, said = text.count("\n", 0, error.position) + 1, "a character that is not text"
        except YAMLError as error:
            said = str(error).partition("\n")[0]
        except RecursionError:
            pass
        hint = "indent with spaces, not tabs" if "\\t" in said else None
        received = repr(text[:80]) if key else None
        self._wrong(line, key, f"is not valid YAML: {said}", received, hint)
        return None

    def enter(self, path: KeyPath, node: Node) -> None:
        """Put `node` at `path`."""
        line = node.start_mark.line + 1
        if not isinstance(node, MappingNode):
            put(self.layer, path, Given(self._value(path, node), self._origin(line)))
            return
        if path:
            put(self.layer, path, Given({}, self._origin(line)))
        if not self._may_open(path, node):
            return
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self._wrong(line, ".".join(path), "a key must be a word")
                continue
            key = str(key_node.value)
            if key in lines:
                self._wrong(line, ".".join((*path, key)), f"is given twice, first in line {lines[key]}")
                continue
            lines[key] = line
            self.enter((*path, key), value_node)
            entry = self.layer[*path, key]
            self.layer[*path, key] = Given(entry.value, self._origin(line))

    def _value(self, path: KeyPath, node: Node) -> Any:
        if isinstance(node, SequenceNode):
            return [self._value(path, one) for one in node.value] if self._may_open(path, node) else []
        if isinstance(node, MappingNode):
            if not self._may_open(path, node):
                return {}
            return {str(key.value): self._value(path, value) for key, value in node.value}
        if node.tag in _TYPED:
            try:
                return self._yaml.constructor.construct_object(node)
            except (YAMLError, ValueError) as error:
                said = str(error).partition(";")[0].partition("\n")[0]
                self._wrong(node.start_mark.line + 1, ".".join(path), said, received=str(node.value)[:80])
        elif not str(node.tag).startswith(_TAG):
            self._wrong(node.start_mark.line + 1, ".".join(path), "a tag has no meaning here", str(node.tag))
        return str(node.value)

    def _may_open(self, path: KeyPath, node: Node) -> bool:
        """Whether to go into a collection: not twice (an alias may hold itself), and not without end."""
        line, key = node.start_mark.line + 1, ".".join(path)
        if id(node) in self._seen:
            self._wrong(line, key, "an alias of a section or list is not supported: write it out")
            return False
        self._seen.add(id(node))
        if len(path) > _DEEPEST:
            self._wrong(line, key[:80], f"is nested deeper than {_DEEPEST} levels")
            return False
        return True

    def _wrong(self, line: int, key: str, message: str, received: str | None = None, hint: str | None = None) -> None:
        self.problems.append(Problem(self._origin(line), key, message, received, hint=hint))


def _text(path: Path) -> str:
    where = str(path)
    try:
        if path.is_dir():
            inside = path / "config.yaml"
            hint = f"to train on text in it: `trimtab train gpt-1m data.source.name=text data.source.path={path}`"
            hint = f"it holds one: {inside}" if inside.is_file() else hint
            raise_problems([Problem(where, "", "is a folder, not a configuration file", hint=hint)])
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        near = nearest_names(path.name, [one.name for one in beside if one.suffix in SUFFIXES])
        raise_problems([Problem(where, "", "there is no such file", hint=did_you_mean(near))])
    except OSError as error:
        raise_problems([Problem(where, "", f"cannot be read: {error.strerror}")])
    if len(data) > _MOST_BYTES:
        raise_problems([Problem(where, "", "is larger than 256 KiB: hardly a configuration")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        received = f"byte 0x{data[error.start]:02x}"
        raise_problems([Problem(f"{where}:{line}", "", "is not UTF-8 text", received)])
    return text.replace("\r\n", "\n")


def _read_toml(text: str, where: str) -> Layer:
    layer: Layer = {}
    lines = _toml_lines(text)
    try:
        tree = tomllib.loads(text)
        if not tree:
            allowed = "keys and values, such as `training.steps = 1000`"
            raise_problems([Problem(f"{where}:1", "", "gives no keys", "nothing", allowed)])
        put_tree(layer, (), tree, lambda path: f"{where}:{_line_of(path, lines)}")
    except ValueError as error:
        found = re.search(r"\(at (?:line (\d+)[^)]*|end of document)\)", str(error))
        line = (found[1] if found else None) or str(text.count("\n") + 1)
        said = str(error)[: found.start()].strip() if found else str(error).partition(";")[0]
        raise_problems([Problem(f"{where}:{line}", "", f"is not valid TOML: {said}")])
    except RecursionError:
        raise_problems([Problem(where, "", "is not valid TOML: it is nested too deeply")])
    return layer


_KEY = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_TABLE = re.compile(rf"[ \t]*\[\[?[ \t]*({_DOTTED})[ \t]*\]")
_PAIR = re.compile(rf"[ \t]*({_DOTTED})[ \t]*=(.*)")


def _toml_lines(text: str) -> dict[KeyPath, int]:
    """The line of each table and key; those of inline tables are found with the key before."""
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    closing = ""
    for number, line in enumerate(text.split("\n"), 1):
        if closing:
            closing = "" if closing in line else closing
            continue
        if found := _TABLE.match(line):
            table = _toml_key(found[1])
            lines.setdefault(table, number)
        elif found := _PAIR.match(line):
            lines.setdefault(table + _toml_key(found[1]), number)
            quotes = re.search("\"\"\"|'''", found[2])
            closing = quotes[0] if quotes and found[2].count(quotes[0]) == 1 else ""
    return lines


def _toml_key(dotted: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in re.findall(_KEY, dotted))


def _line_of(path: KeyPath, lines: dict[KeyPath, int]) -> int:
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return min((line for other, line in lines.items() if other[: len(path)] == path), default=1)
