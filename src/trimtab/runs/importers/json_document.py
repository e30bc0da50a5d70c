"""One JSON document: `trainer_state.json` of Hugging Face, a list of objects, or an object of lists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from trimtab.errors import DataError
from trimtab.runs import format
from trimtab.runs.importers.cells import Block, add_cells, block_of_records
from trimtab.runs.importers.huggingface import divide_summary, facts_of, note_filter
from trimtab.runs.importers.json_lines import parse
from trimtab.runs.importers.table import MAX_COLUMNS, Source
from trimtab.runs.importers.text import Lines
from trimtab.runs.printable import printable

LARGEST_WHOLE_BYTES: Final = 16 << 20
ROWS_A_BLOCK: Final = 10_000
_LONGEST_OBJECT: Final = 1 << 20
_OBJECT: Final = re.compile(r"\{[^{}]*\}")
_SCALAR: Final = re.compile(r'^ {0,2}"(\w+)": (-?[\d.eE+-]+),?$', re.MULTILINE)


def open_document(lines: Lines) -> Source:
    """A document as a source of blocks. Raises: DataError when there is nothing in it that could be a log."""
    if lines.path.stat().st_size <= LARGEST_WHOLE_BYTES:
        text = "\n".join(line for block in lines.blocks() for line in block)
        content = parse(text)
        if content is not None:
            return _whole(content, lines)
        return _salvaged(lines, "the file is damaged or cut off: only whole entries were read")
    return _salvaged(lines, "the file is large: its entries were read one by one")


def _whole(content: Any, lines: Lines) -> Source:
    if isinstance(content, dict) and isinstance(content.get("log_history"), list):
        entries: list[Mapping[str, Any]] = [entry for entry in content["log_history"] if isinstance(entry, dict)]
        source = Source("huggingface", iter(()))
        if len(entries) < len(content["log_history"]):
            source.notes.append(f"{len(content['log_history']) - len(entries)} entries are no objects: left out")
        entries, summary = divide_summary(entries)
        source.finished = bool(summary)
        source.facts = facts_of(content, summary, entries)
        note_filter(source.notes)
        source.blocks = _in_blocks(entries)
        return source
    found = _longest(content)
    if isinstance(found, list):
        return Source("json", _in_blocks(found))
    if isinstance(found, dict):
        return _of_lists(found)
    if isinstance(content, dict):
        return Source("json", _in_blocks([content]))
    raise DataError(
        f"{printable(str(lines.path))}: holds no entries of a log",
        hint="a log in JSON is a list of objects, an object of lists, or Hugging Face's trainer_state.json",
    )


def _in_blocks(records: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    for begin in range(0, len(records), ROWS_A_BLOCK):
        yield block_of_records(records[begin : begin + ROWS_A_BLOCK], MAX_COLUMNS)


def _longest(content: Any, depth: int = 0) -> list[dict[str, Any]] | dict[str, list[Any]] | None:
    """The longest list of objects, or object of lists, in a document."""
    if isinstance(content, list):
        records = [entry for entry in content if isinstance(entry, dict)]
        return records if records and len(records) > 0.5 * len(content) else None
    if not isinstance(content, dict) or depth > 3:
        return None
    lists = {
        name: value
        for name, value in content.items()
        if isinstance(value, list) and value and not any(isinstance(cell, dict | list) for cell in value)
    }
    inner = [found for value in content.values() if (found := _longest(value, depth + 1)) is not None]
    size = max(map(len, lists.values()), default=0)
    best = max(inner, key=_length, default=None)
    return best if best is not None and _length(best) > size else lists or None


def _length(found: list[dict[str, Any]] | dict[str, list[Any]]) -> int:
    return len(found) if isinstance(found, list) else max(map(len, found.values()))


def _of_lists(columns: Mapping[str, list[Any]]) -> Source:
    longest = max(map(len, columns.values()))
    block = Block(longest)
    shorter = [name for name, cells in columns.items() if len(cells) < longest]
    for name, cells in list(columns.items())[:MAX_COLUMNS]:
        rows = [row for row, cell in enumerate(cells) if cell is not None]
        if len(rows) < len(cells):
            block.nulls.add(name)
        if rows:
            add_cells(block, name, rows, [cells[row] for row in rows])
    source = Source("json", iter((block,)))
    if shorter:
        source.notes.append(
            f"the lists have different lengths ({printable(', '.join(shorter[:4]), limit=100)} are shorter): each was "
            "counted from 1"
        )
    return source


def _salvaged(lines: Lines, why: str) -> Source:
    head = lines.head()
    is_state = '"log_history"' in head or '"global_step"' in head
    source = Source("huggingface" if is_state else "json", iter(()), [why])
    if is_state:
        note_filter(source.notes)
    source.blocks = _objects(lines, source, is_state)
    return source


def _objects(lines: Lines, source: Source, is_state: bool) -> Iterator[Block]:
    """The innermost objects of a document, as far as they are whole."""
    rest, lost = "", 0
    records: list[Mapping[str, Any]] = []
    scalars: dict[str, Any] = {}
    for block in lines.blocks():
        text = rest + "\n".join(block)
        end = 0
        for found in _OBJECT.finditer(text):
            end = found.end()
            entry = parse(found[0])
            if not isinstance(entry, dict) or (is_state and "step" not in entry):
                lost += not isinstance(entry, dict)
                continue
            records.append(entry)
            if len(records) >= ROWS_A_BLOCK:
                yield _finish(records, source, is_state)
                records = []
        if is_state:
            scalars |= {name: parse(value) for name, value in _SCALAR.findall(text)[:200]}
        rest = text[end:]
        if len(rest) > _LONGEST_OBJECT:
            rest = ""
    if is_state:
        source.facts = facts_of(scalars, {}, records) | source.facts
    if records:
        yield _finish(records, source, is_state)
    if lost:
        source.notes.append(f"{format.count(lost)} {'entry' if lost == 1 else 'entries'} could not be read")


def _finish(records: list[Mapping[str, Any]], source: Source, is_state: bool) -> Block:
    if is_state:
        kept, summary = divide_summary(records)
        if summary:
            source.finished = True
        records = list(kept)
    return block_of_records(records, MAX_COLUMNS)
