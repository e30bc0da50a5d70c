"""What a trainer prints, kept as a file: dicts of Hugging Face, lines of nanoGPT, nanochat, Megatron, torchtitan,
Axolotl, Lightning, bars of Keras and tqdm, and `epoch 3 loss 0.12`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from statistics import fmean
from typing import Any, Final

from trimtab.errors import DataError
from trimtab.runs import format
from trimtab.runs.importers.cells import Block, block_of_records, number
from trimtab.runs.importers.json_lines import parse_printed
from trimtab.runs.importers.names import meaning, words
from trimtab.runs.importers.resumes import Resumes
from trimtab.runs.importers.table import MAX_COLUMNS, TORN, Source
from trimtab.runs.importers.text import Lines
from trimtab.runs.importers.text_line import EPOCH, LONGEST_LINE, STEP, cleaned, pairs_in
from trimtab.runs.importers.text_template import Templates
from trimtab.runs.importers.vocabulary import EPOCHS, SIDES, STEPS
from trimtab.runs.printable import printable
from trimtab.runs.unnamed_losses import is_loss

ROWS_A_BLOCK: Final = 10_000
_LOOKED_AT: Final = 400
_BAR: Final = re.compile(
    r"^(?:(?P<what>[^|%]{0,80}?):?\s*)?\d{1,3}%\s?\|[^|]*\|\s*(?P<done>\d+)/(?P<total>\d+)\s*\[(?P<rest>[^\]]*)"
)
_KERAS: Final = re.compile(r"^\s*(?P<done>\d+)/(?P<total>\d+)\s+(?:\[[=>.\s]*\]|[━╸╺─\s]+|-)\s*(?P<rest>.*)$")
_EPOCH_LINE: Final = re.compile(r"^\W*epoch\W{0,3}(?P<epoch>\d+)(?:\s*/\s*\d+)?\W*$", re.IGNORECASE)
_STEP_LINE: Final = re.compile(
    r"^\W*(?:global )?(?:step|iteration|iter|batch(?==))\W{0,3}(?P<step>\d+)(?:\s*/\s*\d+)?\W*$", re.IGNORECASE
)
_HEADER: Final = re.compile(r"[A-Za-z_ ]+[,;\t|][A-Za-z_ ]+")


def is_text_log(head: str, wanted: frozenset[str]) -> bool:
    """Whether some of the first lines hold a metric that is known, or `wanted`, beside its name."""
    reader = _Reader(wanted)
    first = head.split("\n", 1)[0]
    at_all = told = 0
    for line in head.split("\n")[:_LOOKED_AT]:
        if line.strip():
            at_all += 1
            told += any(_known(record) or not wanted.isdisjoint(record) for record in reader.read(line))
    told += any(_known(record) for record in reader.rest())
    if not told:
        return False
    # A table says its names once, in front of rows that hold none.
    return told >= 0.3 * at_all or not _HEADER.search(first) or bool(pairs_in(first, frozenset()).record)


def _known(record: Mapping[str, Any]) -> bool:
    return any(_is_known(name) for name in record) or sum(map(is_loss, record)) > 1


@lru_cache(maxsize=4096)
def _is_known(name: str) -> bool:
    return meaning(name) is not None


@lru_cache(maxsize=4096)
def _counts(name: str) -> str | None:
    return STEP if words(name) in STEPS else EPOCH if words(name) in EPOCHS else None


def open_text_log(lines: Lines, wanted: frozenset[str]) -> Source:
    """A printed log as a source of blocks; lines that hold `wanted` names are read, too.

    Raises: DataError when no line can be read.
    """
    source = Source("text", iter(()))
    blocks = _blocks(lines, _Reader(wanted), source)
    first = next(blocks, None)
    if first is None:
        raise DataError(
            f"{printable(str(lines.path))}: no line of it has a metric that is known, beside its number",
            hint="a log has lines such as `step 10: loss 2.5, lr 1e-3`, rows under a header, or a JSON object each",
        )
    source.blocks = _chained(first, blocks)
    return source


def _chained(first: Block, blocks: Iterator[Block]) -> Iterator[Block]:
    yield first
    yield from blocks


def _blocks(lines: Lines, reader: _Reader, source: Source) -> Iterator[Block]:
    records: list[Mapping[str, Any]] = []
    for block in lines.blocks():
        for line in block:
            for part in line.split("\b") if "\b" in line else (line,):
                records += reader.read(part)
        if len(records) >= ROWS_A_BLOCK:
            yield block_of_records(records, MAX_COLUMNS)
            records = []
    records += reader.rest()
    if not lines.ends_whole and reader.last_was_read and records:
        if any(records[-1].keys() < earlier.keys() for earlier in records[-50:-1]):
            records.pop()
            source.notes.append(TORN)
        else:
            source.cut_in = list(records[-1])[-1]
    if records:
        yield block_of_records(records, MAX_COLUMNS)
    source.resumed_at += reader.resumes.begun
    if len(reader.totals) == 1:
        source.facts.setdefault("planned_steps", next(iter(reader.totals)))
    if reader.num_passed_over:
        source.notes.append(f"{format.counted(reader.num_passed_over, 'line')} without a metric: passed over")
    if reader.num_running:
        source.notes.append(
            f"{format.counted(reader.num_running, 'line')} within an epoch, with means of the epoch so far: left out "
            "for the epoch's own"
        )
    if lines.too_long:
        source.notes.append(f"{format.counted(lines.too_long, 'line')} longer than 4 MiB: left out")


class _Reader:
    """Reads line after line; knows the epoch or step that a line of its own told, and the bar that a line waits for."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._epoch: float | None = None
        self._last_epoch: float | None = None
        self._step: float | None = None
        self._waiting: dict[str, Any] | None = None
        self._bar: tuple[int, int] | None = None
        self._bar_total: int | None = None
        self._place_of_bar: dict[str, float] = {}
        self._judged: list[dict[str, float]] = []
        self._full: dict[int, tuple[int, int]] = {}
        self._keras: dict[str, Any] | None = None
        self._templates = Templates()
        self._tagged = False
        self.resumes = Resumes()
        self.totals: set[int] = set()
        """What bars of the whole run count to."""
        self.num_passed_over = 0
        self.num_running = 0
        self.last_was_read = False

    def read(self, line: str) -> list[dict[str, Any]]:
        """The records that are complete with this line."""
        self.last_was_read = False
        if len(line) > LONGEST_LINE:
            line = line[:LONGEST_LINE]
        if not line or line.isspace():
            return []
        if "%|" in line:
            out = self._of_bar(cleaned(line) if "\x1b" in line else line)
            if out is not None:
                return out
        self._tagged = self.resumes.hears(line)
        if self._tagged and not self._is_row(line):
            return []
        if "{" in line and (printed := _printed(line)) is not None:
            return self._of_dict(printed)
        key, record, seen = self._templates.read(line)
        if seen:
            if record is None:
                self.num_passed_over += 1
                return []
            return [self._placed(record)]
        text = cleaned(line)
        if "/" in text and (found := _KERAS.match(text)) is not None:
            return self._of_keras(int(found["done"]), int(found["total"]), found["rest"])
        return self._of_pairs(text, key, line)

    def _is_row(self, line: str) -> bool:
        told = pairs_in(cleaned(line), self._wanted)
        return told.is_measured and STEP in told.record and "checkpoint" not in line.lower()

    def rest(self) -> list[dict[str, Any]]:
        """What waited for a later line."""
        out = [one for one in (self._waiting, self._keras) if one is not None]
        if self._waiting is not None:
            self._place(self._waiting, self._bar)
        self._waiting = self._keras = None
        return out

    def _of_bar(self, text: str) -> list[dict[str, Any]] | None:
        """A bar of tqdm: it tells the step of the dict before it, or has metrics of its own."""
        found = _BAR.match(text.strip())
        if found is None:
            return None
        done, total = int(found["done"]), int(found["total"])
        rest, what = found["rest"].partition(",")[2], found["what"] or ""
        if "=" in rest and (told := pairs_in(rest, self._wanted)).is_measured:
            self.last_was_read = True
            if any(SIDES.get(word, "train") != "train" for word in words(what).split("_")):
                return self._of_judged_bar(done, total, told.record)
            record = {**pairs_in(what, frozenset()).record, **told.record}
            # A bar of one epoch counts its batches; one of the whole run counts what other lines call steps.
            if EPOCH in record:
                self._place_of_bar = {"batch": float(done), EPOCH: record[EPOCH]}
                return [{"batch": float(done), **record}]
            passes = self._passes(done, total)
            (self.totals.discard if passes else self.totals.add)(total)
            self._place_of_bar = {STEP: float(passes * total + done)}
            return [{**self._place_of_bar, **record}]
        if what.strip():
            return []
        bar = done, total
        out = []
        if self._waiting is not None:
            if self._bar_total is None:
                self._bar_total = total
            self._place(self._waiting, bar)
            out, self._waiting = [self._waiting], None
        if self._bar_total in (None, total):
            self._bar = bar
        return out

    def _of_judged_bar(self, done: int, total: int, record: Mapping[str, float]) -> list[dict[str, Any]]:
        """A bar of an evaluation has one value, the mean of what it showed, at the step where training stood."""
        named = {name if name.startswith("val") else f"val_{name}": value for name, value in record.items()}
        self._judged.append({name: value for name, value in named.items() if _is_known(name)})
        if done < total or not self._place_of_bar:
            return []
        shown, self._judged = self._judged, []
        names = dict.fromkeys(name for one in shown for name in one)
        means = {name: fmean(one[name] for one in shown if name in one) for name in names}
        return [{**self._place_of_bar, **means}] if means else []

    def _passes(self, done: int, total: int) -> int:
        """Bars of so many batches that came to their ends before this one: epochs, where no line counts these."""
        last, passes = self._full.get(total, (0, 0))
        if done < last and last >= 0.8 * total and done <= 0.2 * total:
            passes += 1
        self._full[total] = done, passes
        return passes

    def _place(self, record: dict[str, Any], bar: tuple[int, int] | None) -> None:
        if bar is not None and (self._bar_total is None or bar[1] == self._bar_total) and STEP not in record:
            record[STEP] = float(bar[0])
        elif self._bar is not None and STEP not in record:
            record[STEP] = float(self._bar[0])

    def _of_dict(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        self.last_was_read = True
        if "train_runtime" in record:
            return self._release()
        if any(_counts(name) == STEP for name in record):
            return [*self._release(), record]
        out = self._release()
        self._waiting = record
        return out

    def _release(self) -> list[dict[str, Any]]:
        if self._waiting is None:
            return []
        self._place(self._waiting, self._bar)
        out, self._waiting = [self._waiting], None
        return out

    def _of_keras(self, done: int, total: int, rest: str) -> list[dict[str, Any]]:
        told = pairs_in(rest, self._wanted)
        record = told.record
        if not told.is_measured:
            return []
        if done < total:
            self.num_running += 1
            return []
        for name in [name for name in record if name in ("ETA", STEP)]:
            del record[name]
        epoch = self._epoch if self._epoch is not None else 1.0
        if self._keras is not None and self._keras[EPOCH] == epoch:
            self._keras |= record
            return []
        out = [self._keras] if self._keras is not None else []
        self._keras = {EPOCH: epoch, **record}
        return out

    def _of_pairs(self, text: str, key: str, line: str) -> list[dict[str, Any]]:
        if (found := _EPOCH_LINE.match(text)) is not None:
            self._epoch, self._step = float(found["epoch"]), None
            return []
        if (found := _STEP_LINE.match(text)) is not None:
            self._step = float(found["step"])
            return []
        told = pairs_in(text, self._wanted)
        record = told.record
        placed = STEP in record or EPOCH in record or "batch" in record or self._step is not None
        if not (told.is_measured or (placed and _known(record)) or not self._wanted.isdisjoint(record)):
            self._templates.keep(key, line, None)
            self.num_passed_over += 1
            return []
        self._templates.keep(key, line, told)
        return [self._placed(record)]

    def _placed(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record with the step or epoch that an earlier line told."""
        if self._step is not None and STEP not in record:
            record[STEP] = self._step
        if STEP in record:
            self.resumes.row(record[STEP], self._tagged)
        if EPOCH in record:
            self._last_epoch = record[EPOCH]
        elif self._epoch is not None:
            record[EPOCH] = self._epoch
        elif STEP not in record and self._last_epoch is not None:
            record[EPOCH] = self._last_epoch
        self.last_was_read = True
        return record


def _printed(text: str) -> dict[str, Any] | None:
    """The dict in a line, if it holds numbers under names of metrics."""
    begin, end = text.find("{"), text.rfind("}")
    if end < begin:
        return None
    content = parse_printed(text[begin : end + 1])
    if content is None or not any(
        isinstance(name, str) and (_is_known(name) or _counts(name) == EPOCH) and number(value) is not None
        for name, value in content.items()
    ):
        return None
    return dict(content)
