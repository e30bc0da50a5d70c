"""JSON Lines: one object a line, flat or nested, whatever its keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from trimtab.runs import format
from trimtab.runs.importers.cells import Block, block_of_records
from trimtab.runs.importers.table import MAX_COLUMNS, Source
from trimtab.runs.importers.text import Lines

ROWS_A_BLOCK: Final = 10_000
CHARACTERS_A_BLOCK: Final = 8 << 20
_LOOKED_AT: Final = 20


def are_json_lines(head: str) -> bool:
    """Whether most of the first lines are objects of their own."""
    lines = [line.strip() for line in head.split("\n")[:_LOOKED_AT] if line.strip()]
    objects = [line for line in lines if line.startswith("{") and (line.endswith("}") or line is lines[-1])]
    if len(lines) == 1:
        content = parse(lines[0])
        return isinstance(content, dict) and not _has_list(content, 0)
    return len(objects) > 0.5 * len(lines)


def _has_list(content: Mapping[str, Any], depth: int) -> bool:
    return any(
        isinstance(value, list) or (isinstance(value, dict) and depth < 3 and _has_list(value, depth + 1))
        for value in content.values()
    )


def open_json_lines(lines: Lines) -> Source:
    """JSON Lines as a source of blocks."""
    source = Source("jsonl", iter(()))
    source.blocks = _blocks(lines, source)
    return source


def parse(text: str | bytes) -> Any:
    """JSON, also with NaN and Infinity in it; None when it is none."""
    try:
        return orjson.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def parse_printed(line: str) -> Mapping[str, Any] | None:
    """An object in JSON, or a dict as Python prints it; None when it is neither."""
    content = None
    if line.startswith("{'"):
        content = parse(line.replace("'", '"').replace(": nan", ": NaN").replace(": inf", ": Infinity"))
    content = parse(line) if content is None else content
    return content if isinstance(content, dict) else None


def _blocks(lines: Lines, source: Source) -> Iterator[Block]:
    records: list[Mapping[str, Any]] = []
    lost, size, last_lost = 0, 0, False
    for block in lines.blocks():
        for text in block:
            line = text.strip()
            if not line:
                continue
            record = parse_printed(line.removesuffix(","))
            last_lost = record is None
            if record is None:
                lost += 1
                continue
            records.append(record)
            size += len(line)
            if len(records) >= ROWS_A_BLOCK or size >= CHARACTERS_A_BLOCK:
                yield block_of_records(records, MAX_COLUMNS)
                records, size = [], 0
    if records:
        yield block_of_records(records, MAX_COLUMNS)
    if last_lost and not lines.ends_whole:
        lost -= 1
        source.notes.append("the last line is torn: it was left out")
    if lost:
        source.notes.append(f"{format.counted(lost, 'line')} without a JSON object: left out")
    if lines.too_long:
        source.notes.append(f"{format.counted(lines.too_long, 'line')} longer than 4 MiB: left out")
