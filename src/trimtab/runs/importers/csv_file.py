"""Tables in text: CSV and its like, of Lightning, Keras, Weights & Biases, TensorBoard, or made by hand."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from trimtab.errors import DataError
from trimtab.runs import format
from trimtab.runs.importers.cells import Block, add_cells, number
from trimtab.runs.importers.names import meaning
from trimtab.runs.importers.table import MAX_COLUMNS, TORN, Source
from trimtab.runs.importers.text import Lines
from trimtab.runs.printable import printable

CELLS_A_BLOCK: Final = 60_000
_DELIMITERS: Final = ",;\t|"
_BANNER: Final = 60
"""Lines among which a header is looked for."""
_EMPTY: Final = frozenset(("", "NA", "N/A", "n/a", "null", "NULL", "None", "none", "-", "--", '""'))
_TAG: Final = re.compile(r"tag[-_](.+)$")


def open_table(lines: Lines) -> Source:
    """A table as a source of blocks. Raises: DataError when there is no header over numbers."""
    try:
        return _open(lines)
    except csv.Error as error:
        raise _no_header(lines.path) from error


def _no_header(path: Path) -> DataError:
    what = "its header has a name of more than 131,072 characters, or a quote without an end"
    return DataError(f"{printable(str(path))}: {what}")


def _open(lines: Lines) -> Source:
    head = [line for line in lines.head().split("\n") if line.strip()]
    num_comments = 0
    while num_comments < len(head) - 1 and head[num_comments].startswith("#"):
        num_comments += 1
    if num_comments and (num_comments == len(head) or _is_numeric(head[num_comments])):
        num_comments -= 1
    above = _banner(head[num_comments:])
    num_comments += above
    head = head[num_comments:]
    delimiter = _delimiter(head)
    header = _header(head[0].lstrip("#").strip(), delimiter) if head else []
    name = printable(str(lines.path))
    if not header or all(not cell for cell in header):
        raise DataError(f"{name}: is empty", hint="give the log of a run that made some steps")
    if all(number(cell) is not None for cell in header):
        raise DataError(
            f"{name}: its first line has no names: {printable(head[0], limit=60)}",
            hint="put a header in front, such as step,loss",
        )
    source = Source(_dialect(header, head[1:], delimiter, lines.path), iter(()))
    if source.format == "wandb":
        _divide_runs(header, source)
    elif source.format == "tensorboard":
        tag = _TAG.search(lines.path.stem)
        source.short["Value"] = tag[1] if tag else lines.path.stem
    if above:
        source.notes.append(f"{format.counted(above, 'line')} above the header of the table: passed over")
    source.blocks = _blocks(lines, header, delimiter, num_comments, source)
    return source


def _delimiter(head: Sequence[str]) -> str:
    """The sign that divides the lines into most columns, as many in each."""
    best, most = ",", 0.0
    for sign in _DELIMITERS:
        counts = Counter(len(row) for row in csv.reader(head[:20], delimiter=sign) if row)
        if not counts:
            continue
        usual, times = counts.most_common(1)[0]
        score = times / sum(counts.values()) * min(usual, 50) if usual > 1 else 0.0
        if score > most:
            best, most = sign, score
    return best


def _banner(head: Sequence[str]) -> int:
    """How many lines stand above the header of a table: the first that holds a known name over as many numbers."""
    for at, (line, row) in enumerate(itertools.pairwise(head[:_BANNER])):
        for sign in _DELIMITERS:
            is_table = 0 < line.count(sign) == row.count(sign) < MAX_COLUMNS
            is_known = is_table and any(meaning(name) is not None for name in line.split(sign))
            if is_known and all(number(cell) is not None for cell in row.split(sign)):
                return at
    return 0


def _header(line: str, delimiter: str) -> list[str]:
    """The names of the columns, each of its own."""
    names = [cell.strip() for cell in next(iter(csv.reader([line], delimiter=delimiter)), [])]
    seen: Counter[str] = Counter()
    for index, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[index] = f"{name}.{seen[name] - 1}"
    return names


def _is_numeric(line: str) -> bool:
    cells = re.split(r"[,;\t| ]+", line.strip())
    return all(number(cell) is not None for cell in cells)


def _dialect(header: Sequence[str], rows: Sequence[str], delimiter: str, path: Path) -> str:
    """Who wrote the table, by its header."""
    if header[0] in ("Step", "_step") or any(name.endswith(("__MIN", "__MAX")) for name in header):
        return "wandb"
    if list(header[:3]) == ["Wall time", "Step", "Value"]:
        return "tensorboard"
    if {"epoch", "step"} <= set(header) and (list(header) == sorted(header) or path.name == "metrics.csv"):
        sparse = any("" in row for row in csv.reader(rows[:20], delimiter=delimiter))
        return "lightning" if sparse or path.name == "metrics.csv" else "csv"
    if header[0] == "epoch" and "step" not in header and "loss" in header and list(header[1:]) == sorted(header[1:]):
        return "keras"
    return "csv"


def _divide_runs(header: Sequence[str], source: Source) -> None:
    """Columns of Weights & Biases are `run - metric`; those of one run are read."""
    runs: dict[str, int] = {}
    for name in header:
        run, sign, metric = name.rpartition(" - ")
        if sign:
            source.short[name] = metric
        if sign and not metric.endswith(("__MIN", "__MAX")) and meaning(metric) is not None:
            runs[run] = runs.get(run, 0) + 1
    chosen = max(runs, key=lambda run: runs[run], default=None)
    for name in header:
        run, sign, metric = name.rpartition(" - ")
        extreme = name.endswith(("__MIN", "__MAX"))
        if extreme or (sign and chosen is not None and run != chosen):
            source.left_out.append(name)
    if len(runs) > 1 and chosen is not None:
        others = ", ".join(printable(run, limit=40) for run in runs if run != chosen)
        source.notes.append(
            f"it holds the columns of {len(runs)} runs: {printable(chosen, limit=40)} was read, not {others}; "
            "map their columns to read them"
        )


@dataclass(slots=True)
class _Losses:
    """Lines that are not as the header promises."""

    shorter: int = 0
    longer: int = 0
    unread: int = 0
    headers: int = 0
    last_is_short: bool = False

    def notes(self, lines: Lines) -> Iterator[str]:
        for count, what in (
            (self.shorter, "with fewer values than the header: the rest is taken for not measured"),
            (self.longer, "with more values than the header: the rest was left out"),
            (self.unread, "could not be read as CSV: left out"),
            (self.headers, "with the header once more: left out"),
            (lines.too_long, "longer than 4 MiB: left out"),
        ):
            if count:
                yield f"{format.counted(count, 'line')} {what}"


def _blocks(lines: Lines, header: list[str], delimiter: str, num_comments: int, source: Source) -> Iterator[Block]:
    if len(header) > MAX_COLUMNS:
        source.notes.append(f"only the first {MAX_COLUMNS:,} of {len(header):,} columns were read")
    losses = _Losses()
    num_rows = max(1, CELLS_A_BLOCK // len(header))
    texts = _texts(lines, num_comments)
    try:
        next(csv.reader(texts, delimiter=delimiter), None)
    except csv.Error as error:
        raise _no_header(lines.path) from error
    further: list[str] = []  # a row is held back, so that the last one of the file is known in its block
    while plain := [*further, *itertools.islice(texts, num_rows + 1 - len(further))]:
        plain, further = plain[:num_rows], plain[num_rows:]
        if (block := _plain_block(plain, header, delimiter)) is None:
            break
        if not further and not lines.ends_whole:
            source.cut_in = header[-1]
        yield block
    reader = csv.reader(itertools.chain(plain, further, texts), delimiter=delimiter, skipinitialspace=True)
    held: list[list[str]] = []
    while True:
        rows, held = held, []
        try:
            rows.extend(itertools.islice(reader, num_rows + 1 - len(rows)))
            ended = len(rows) <= num_rows
        except csv.Error:  # the rows before it are in `rows`, and the reader goes on behind it
            losses.unread += 1
            ended = False
        if not ended:
            rows, held = rows[:-1], rows[-1:]
        if rows:
            whole = _of_one_width(rows, header, losses)
            if ended and not lines.ends_whole and whole:
                if losses.last_is_short:
                    whole.pop()
                    losses.shorter -= 1
                    source.notes.append(TORN)
                else:
                    source.cut_in = header[-1]
            if whole:
                yield _block(whole, header)
        if ended:
            break
    source.notes += losses.notes(lines)


def _of_one_width(rows: list[list[str]], header: list[str], losses: _Losses) -> list[list[str]]:
    """Rows as wide as the header, without headers that come again."""
    width, first = len(header), header[0]
    losses.last_is_short = False
    if set(map(len, rows)) == {width} and all(row[0] != first for row in rows):
        return rows
    kept: list[list[str]] = []
    for row in rows:
        if not row or (len(row) == 1 and not row[0].strip()):
            continue
        if row[0].strip() == first:
            losses.headers += 1
            continue
        losses.last_is_short = len(row) < width
        if len(row) > width:
            losses.longer += 1
            row = row[:width]
        elif len(row) < width:
            losses.shorter += 1
            row = row + [""] * (width - len(row))
        kept.append(row)
    return kept


def _texts(lines: Lines, num_comments: int) -> Iterator[str]:
    """Lines with comments and blank lines in front taken away; those that cannot be a row are left out."""
    left = num_comments
    begun = False
    for block in lines.blocks():
        if begun:
            yield from block
            continue
        for line in block:
            if not begun:
                if not line.strip():
                    continue
                if left:
                    left -= 1
                    continue
                begun = True
            yield line


def _block(rows: Sequence[Sequence[str]], header: Sequence[str]) -> Block:
    block = Block(len(rows))
    everywhere = np.arange(len(rows))
    for name, cells in zip(header[:MAX_COLUMNS], zip(*rows, strict=True), strict=False):
        try:
            block.numbers[name] = everywhere, _numbers(cells)
            continue
        except ValueError:
            there = [index for index, cell in enumerate(cells) if cell not in _EMPTY]
        if there:
            add_cells(block, name, there, [cells[index] for index in there])
    return block


def _plain_block(lines: Sequence[str], header: Sequence[str], delimiter: str) -> Block | None:
    """Lines that hold nothing but numbers, a tenth of the time of any others; None when there is another among them."""
    width = len(header)
    if any(line.count(delimiter) != width - 1 for line in lines):
        return None
    text = ",".join(lines)
    numbers = _json_numbers(text if delimiter == "," else text.replace(delimiter, ","), len(lines) * width)
    if numbers is None:
        return None
    everywhere = np.arange(len(lines))
    columns = np.ascontiguousarray(numbers.reshape(-1, width).T)
    columns_by_name = zip(header[:MAX_COLUMNS], columns, strict=False)
    return Block(len(lines), {name: (everywhere, column) for name, column in columns_by_name})


def _json_numbers(text: str, num: int) -> NDArray[np.float64] | None:
    """`num` numbers with commas between them; None when it is anything else, or a spelling that JSON has not."""
    if text.strip("0123456789+-.eE,"):  # something that is no part of a number
        return None
    try:
        numbers = orjson.loads(f"[{text}]")
    except ValueError:
        return None
    return np.array(numbers, np.float64) if len(numbers) == num else None


def _numbers(cells: Sequence[str]) -> NDArray[np.float64]:
    """The cells of a column as numbers. Raises: ValueError when one of them is none."""
    numbers = _json_numbers(",".join(cells), len(cells))  # four times as quick as float
    return np.array(list(map(float, cells))) if numbers is None else numbers
