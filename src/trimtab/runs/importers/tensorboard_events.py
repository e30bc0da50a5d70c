"""TensorBoard's event files, read without the package: records of TFRecord, each an Event of scalars.

Source: tensorboard/compat/proto/{event,summary,tensor}.proto
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from trimtab.errors import UsageError
from trimtab.runs import format
from trimtab.runs.importers.checksum import masked_crc32c
from trimtab.runs.importers.meter import Progress, meter_of
from trimtab.runs.importers.names import meaning, words
from trimtab.runs.importers.points import Point, blocks_of_points, merged, on_one_axis
from trimtab.runs.importers.protobuf import (
    EIGHT_BYTES,
    FOUR_BYTES,
    MalformedError,
    fields,
    float32,
    float64,
    inner,
    signed,
    text,
)
from trimtab.runs.importers.table import Source
from trimtab.runs.importers.vocabulary import SIDES
from trimtab.runs.printable import printable

MARK: Final = "tfevents"
_LARGEST_RECORD: Final = 1 << 26
_LONGEST_CHECKED: Final = 1 << 12
"""Records of scalars are shorter; longer ones hold pictures and histograms, which are passed over."""
_RECORDS_AT_ONCE: Final = 4096
_FLOAT: Final = struct.Struct("<f")
_HEAD: Final = struct.Struct("<QI")
_SIMPLE_VALUE: Final = 0x15
_MOST_KNOWN: Final = 10_000
_MAX_FILES: Final = 10_000
_DEEPEST: Final = 4


def is_event_file(path: Path, first: bytes) -> bool:
    """Whether its name or its first record says so."""
    return MARK in path.name or (len(first) > 30 and b"brain.Event:" in first[12:60])


def event_files(folder: Path) -> list[Path]:
    """The event files in a folder and below it, by folder and then by time, which their names begin with."""
    found: list[Path] = []
    for depth in range(_DEEPEST + 1):
        pattern = "*/" * depth + "*" + MARK + "*"
        found += [one for one in itertools.islice(folder.glob(pattern), _MAX_FILES) if one.is_file()]
    return sorted(found[:_MAX_FILES], key=lambda one: (str(one.parent), one.name))


def open_events(files: Sequence[Path], root: Path, progress: Progress | None = None) -> Source:
    """Event files, those of one folder one after the other, as a source; tags get the name of a folder below `root`.

    Of several runs the newest is read, and that is said.
    """
    source = Source("tensorboard", iter(()))
    files, root = _of_one_run(files, root, source)
    source.meter = meter_of(progress, files)
    folders: dict[str, list[Path]] = {}
    for file in files:
        folders.setdefault(file.parent.relative_to(root).as_posix() if file.parent != root else "", []).append(file)
    others: list[str] = []
    streams = [on_one_axis(_of_folder(prefix, paths, source), others.append) for prefix, paths in folders.items()]
    source.blocks = _told(blocks_of_points(streams[0] if len(streams) == 1 else merged(streams)), others, source)
    if len(files) > 1:
        source.notes.append(f"{format.count(len(files))} event files were read")
    return source


def _of_one_run(files: Sequence[Path], root: Path, source: Source) -> tuple[Sequence[Path], Path]:
    """The files of the newest run, and its folder. Folders beside each other are one run where they are named for what
    they hold, as `train` and `validation` are."""
    runs: dict[Path, list[Path]] = {}
    for file in files:
        folder = file.parent
        is_part = folder != root and (words(folder.name) in SIDES or meaning(folder.name) is not None)
        runs.setdefault(folder.parent if is_part else folder, []).append(file)
    if len(runs) < 2:
        return next(iter(runs.items()), (root, files))[1], next(iter(runs), root)
    chosen = max(runs, key=lambda run: max(file.name for file in runs[run]))
    names = [printable(run.name, limit=60) for run in runs if run != chosen]
    source.notes.append(
        f"it holds {len(runs)} runs: the newest, {printable(chosen.name, limit=60)}, was read, not "
        f"{', '.join(names[:4])}{' …' if len(names) > 4 else ''}; give the folder of a run to read another"
    )
    return runs[chosen], chosen


def _told(blocks: Iterable[object], others: list[str], source: Source) -> Iterator:  # type: ignore[type-arg]
    yield from blocks
    if others:
        names = ", ".join(printable(name, limit=60) for name in others[:5])
        source.notes.append(
            f"{names} are not counted in the steps of the others: they were put where these were at that time"
        )


def _of_folder(prefix: str, paths: Sequence[Path], source: Source) -> Iterator[Point]:
    for path in paths:
        for step, tag, value in _scalars(path, source):
            yield step, f"{prefix}/{tag}" if prefix else tag, value


def _scalars(path: Path, source: Source) -> Iterator[Point]:
    name = printable(path.name, limit=80)
    records = _records(path, source)
    damaged = unread = 0
    known: dict[bytes, str] = {}  # what stands between step and number, in an event of one scalar
    while group := [record for _, record in zip(range(_RECORDS_AT_ONCE), records, strict=False)]:
        checked = [(data, told) for data, told in group if len(data) <= _LONGEST_CHECKED]
        good = masked_crc32c([data for data, _ in checked]) == np.array([told for _, told in checked], np.uint32)
        for (data, _), is_good in zip(checked, good.tolist(), strict=True):
            if not is_good:
                damaged += 1
                continue
            begin = _after_step(data)
            if begin and (tag := known.get(data[begin:-4])) is not None:
                yield _step_at(data), tag, _FLOAT.unpack_from(data, len(data) - 4)[0]
                continue
            try:
                points = list(_event(data))
            except MalformedError:
                unread += 1
                continue
            yield from points
            if begin and len(points) == 1 and data[-5] == _SIMPLE_VALUE and len(known) < _MOST_KNOWN:
                step, tag, value = points[0]
                if step == _step_at(data) and value == _FLOAT.unpack_from(data, len(data) - 4)[0]:
                    known[data[begin:-4]] = tag
        if source.meter is not None:
            source.meter.add(sum(16 + len(data) for data, _ in group))
        del group
    if damaged:
        source.notes.append(f"{name}: {format.counted(damaged, 'record')} with a wrong checksum: left out")
    if unread:
        source.notes.append(f"{name}: {format.counted(unread, 'record')} that tells no event: left out")


def _records(path: Path, source: Source) -> Iterator[tuple[bytes, int]]:
    """The data of each record and the checksum it was written with."""
    name = printable(path.name, limit=80)
    try:
        with open(path, "rb", buffering=1 << 20) as file:
            size = path.stat().st_size
            at = 0
            while head := file.read(12):
                length, told = _HEAD.unpack(head) if len(head) == 12 else (0, 0)
                ends_early = len(head) < 12 or (length <= _LARGEST_RECORD and at + 16 + length > size)
                if ends_early and (len(head) < 12 or masked_crc32c([head[:8]])[0] == told):
                    source.notes.append(f"{name}: the last record is torn: it was left out")
                    return
                if (length > _LONGEST_CHECKED or at == 0 or ends_early) and int(masked_crc32c([head[:8]])[0]) != told:
                    source.notes.append(
                        f"{name}: is damaged from byte {at:,} on: the rest, {format.count(size - at)} bytes, is lost"
                    )
                    return
                if length > _LONGEST_CHECKED:
                    file.seek(length + 4, 1)
                    if source.meter is not None:
                        source.meter.add(16 + length)
                else:
                    body = file.read(length + 4)
                    if len(body) < length + 4:
                        source.notes.append(f"{name}: the last record is torn: it was left out")
                        return
                    yield body[:length], int.from_bytes(body[length:], "little")
                at += 16 + length
    except OSError as error:
        raise UsageError(f"{printable(str(path))}: cannot be read ({error.strerror})") from error


def _after_step(data: bytes) -> int:
    """Where an event that begins with its time and its step goes on; 0 for any other."""
    if len(data) < 20 or data[0] != 0x09 or data[9] != 0x10:
        return 0
    at = 10
    while data[at] >= 0x80 and at < 15:
        at += 1
    return at + 1


def _step_at(data: bytes) -> int:
    """The step of such an event: a varint from byte 10 on."""
    step = shift = 0
    for byte in data[10:16]:
        step |= (byte & 0x7F) << shift
        if byte < 0x80:
            return step
        shift += 7
    return step


def _event(data: bytes) -> Iterator[Point]:
    step, summaries = 0, []
    for number, _, value in fields(data):
        if number == 2:
            step = signed(value)
        elif number == 5:
            summaries.append(inner(value))
    for summary in summaries:
        for number, _, value in fields(summary):
            if number == 1:
                tag, scalar = _value(inner(value))
                if tag is not None and scalar is not None:
                    yield step, tag, scalar


def _value(data: bytes) -> tuple[str | None, float | None]:
    tag, scalar = None, None
    for number, kind, value in fields(data):
        if number == 1:
            tag = text(value)
        elif number == 2 and kind == FOUR_BYTES:
            scalar = float32(value)
        elif number == 8:
            scalar = _tensor(inner(value))
    return tag, scalar


def _tensor(data: bytes) -> float | None:
    """The number in a TensorProto that holds one."""
    content, kind, found, dims = b"", 0, None, 1
    for number, wire, value in fields(data):
        if number == 1:
            kind = signed(value)
        elif number == 2:
            for place, _, dim in fields(inner(value)):
                if place == 2:
                    dims *= max(0, sum(signed(size) for at, _, size in fields(inner(dim)) if at == 1))
        elif number == 4:
            content = inner(value)
        elif number == 5:
            found = float32(value)
        elif number == 6:
            found = float64(value)
        elif number in (7, 10) and wire not in (FOUR_BYTES, EIGHT_BYTES):
            found = float(signed(value)) if isinstance(value, int) else float(value[0]) if value else None
    if dims != 1:
        return None
    if content:
        shape = {1: "<f", 2: "<d", 3: "<i", 9: "<q"}.get(kind)
        if shape is None or len(content) != struct.calcsize(shape):
            return None
        return float(struct.unpack(shape, content)[0])
    return found if found is not None else 0.0 if kind in (1, 2, 3, 9) and math.isfinite(dims) else None
