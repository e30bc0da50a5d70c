"""modules.json: the tree of a run's model, with shapes, as a file and as text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from trimtab.errors import UsageError
from trimtab.runs.directory import RunDirectory
from trimtab.runs.files import read_json
from trimtab.runs.printable import printable

Module = Mapping[str, Any]


def read_modules(run: RunDirectory) -> dict[str, Any]:
    """What the run wrote of its model before step 1. Raises: UsageError where it has not come to that; StorageError."""
    if not (path := run.modules).exists():
        raise UsageError(f"{printable(str(run.path))} has no {path.name}: it did not come to its first step")
    return read_json(path)


def render_modules(told: Mapping[str, Any]) -> str:
    """A line for each module: what it is, its parameters, the shapes of its weights and of what it gives.

    Neighbours of one class and shape stand in one line: `blocks.0 … blocks.11 (12)`.
    """
    modules: Sequence[Module] = told["modules"]
    children: dict[str, list[Module]] = {}
    for module in modules:
        if module["name"]:
            children.setdefault(module["name"].rpartition(".")[0], []).append(module)
    lines: list[tuple[str, str, str, str]] = []

    def content(module: Module) -> tuple[Any, ...]:
        """All that is to be seen of it, but its name."""
        below = tuple(content(child) for child in children.get(module["name"], []))
        return module["class"], str(module["weights"]), str(module["output"]), module["parameters"], below

    def add(alike: Sequence[Module], depth: int) -> None:
        first, last = alike[0], alike[-1]
        name = first["name"].rpartition(".")[2] or "model"
        if len(alike) > 1:
            name = f"{name} … {last['name'].rpartition('.')[2]} ({len(alike)})"
        weights = ", ".join(f"{key} {_shape(weight['shape'])}" for key, weight in first["weights"].items())
        if any(not weight["trained"] for weight in first["weights"].values()):
            weights += " (frozen)"
        num = f"{first['parameters']:,}" if first["parameters"] else ""
        output = "" if first["output"] is None else _shape(first["output"])
        lines.append((f"{'  ' * depth}{name}: {first['class']}", num, weights, output))
        for _, group in groupby(children.get(first["name"], []), content):
            add(list(group), depth + 1)

    if modules:
        add(modules[:1], 0)
    table = [("module", "parameters", "weights", "gives"), *lines]
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    shown = [
        f"{name:<{widths[0]}}  {num:>{widths[1]}}  {weights:<{widths[2]}}  {output}".rstrip()
        for name, num, weights, output in table
    ]
    given = ", ".join(f"{key} {_shape(shape)}" for key, shape in told["inputs"].items())
    title = f"{told['class']}: {told['parameters']:,} parameters, {told['trained']:,} of them trained; given {given}"
    if told.get("why_no_outputs"):
        title += f"\nwhat modules give is not known: {told['why_no_outputs']}"
    return printable("\n".join([title, "", *shown]), lines=True)


def _shape(shape: Any) -> str:
    return re.sub(r"[' ]", "", str(shape)).replace(",", ", ")
