"""MLflow's file store (`mlruns/`): a folder a run, in it a file a metric, whose lines are time, value and step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from trimtab.errors import UsageError
from trimtab.runs import format
from trimtab.runs.importers.points import Point, blocks_of_points, merged
from trimtab.runs.importers.stores import choose
from trimtab.runs.importers.table import MAX_COLUMNS, Source
from trimtab.runs.printable import printable

_MAX_RUNS: Final = 10_000
_LONGEST_LINE: Final = 1 << 16
_BEGAN: Final = re.compile(r"^start_time: (\d+)", re.MULTILINE)
_FINISHED: Final = re.compile(r"^status: (?:3|FINISHED)\s*$", re.MULTILINE)
_NAME: Final = re.compile(r"^run_name: (.+)$", re.MULTILINE)


def find_runs(folder: Path) -> list[Path]:
    """The runs in `folder`: itself, those of an experiment, of a store, or of a store named `mlruns` in it."""
    if _is_run(folder):
        return [folder]
    stores = [folder / "mlruns"] if (folder / "mlruns").is_dir() else []
    for one in (folder, *stores):
        for pattern in ("*/meta.yaml", "*/*/meta.yaml"):
            runs = [found.parent for _, found in zip(range(_MAX_RUNS), one.glob(pattern), strict=False)]
            runs = [run for run in runs if _is_run(run)]
            if runs:
                return sorted(runs, key=_newest, reverse=True)
    return []


def _is_run(folder: Path) -> bool:
    return (folder / "meta.yaml").is_file() and (folder / "metrics").is_dir()


def _newest(run: Path) -> int:
    """When it began, by what was written down: a copy has other times on its files."""
    found = _BEGAN.search(_about(run))
    return int(found[1][-18:]) if found is not None else 0


def _label(run: Path) -> str:
    found = _NAME.search(_about(run))
    return f"{found[1].strip()} ({run.name})" if found is not None else run.name


def _about(run: Path) -> str:
    with open(run / "meta.yaml", "rb") as file:
        return file.read(1 << 16).decode("utf-8", "replace")


def _metrics(run: Path) -> list[Path]:
    return sorted(one for one in (run / "metrics").rglob("*") if one.is_file())[:MAX_COLUMNS]


def open_files(folder: Path, runs: list[Path]) -> Source:
    """The newest of `runs` that has metrics, as a source. Raises: DataError when none has."""
    source = Source("mlflow", iter(()))
    filled = [run for run in runs if _metrics(run)]
    chosen = choose([(str(run), _label(run)) for run in filled], None, folder, source.notes)
    run = Path(chosen)
    if source.notes:
        source.notes[-1] = source.notes[-1].rpartition(";")[0] + "; give the folder of a run to read another"
    lost: list[int] = []
    # `merged` holds every file open at once: a store has few metrics, but not always.
    files = _metrics(run)
    if len(files) <= 200:
        streams: Iterable[Point] = merged(_points(run, one, lost) for one in files)
    else:
        streams = sorted((point for one in files for point in _points(run, one, lost)), key=lambda point: point[0])
    source.blocks = _told(streams, lost, source)
    source.finished = _FINISHED.search(_about(run)) is not None
    return source


def _told(points: Iterable[Point], lost: list[int], source: Source) -> Iterator:  # type: ignore[type-arg]
    yield from blocks_of_points(points)
    if lost:
        source.notes.append(f"{format.counted(len(lost), 'line')} of metrics could not be read: left out")


def _points(run: Path, path: Path, lost: list[int]) -> Iterator[Point]:
    name = path.relative_to(run / "metrics").as_posix()
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            while line := file.readline(_LONGEST_LINE):
                parts = line.split()
                try:
                    if len(parts) not in (2, 3, 5) or not line.endswith("\n"):
                        raise ValueError
                    value = float(parts[1])
                    yield int(parts[2]) if len(parts) > 2 else 0, name, value
                except ValueError:
                    lost.append(1)
    except OSError as error:
        raise UsageError(f"{printable(str(path))}: cannot be read ({error.strerror})") from error
