"""Where the parts of a run lie, and what state it is in."""

from __future__ import annotations

import contextlib
import difflib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, final

from trimtab.errors import StorageError, TrimtabError, UsageError
from trimtab.runs.files import read_json, write_json, write_text
from trimtab.runs.lock import live_holder
from trimtab.runs.printable import printable
from trimtab.runs.record import decode_line, lines_backwards, read_attempts

Status = Literal["finished", "stopped", "interrupted", "failed", "running", "killed", "new"]
Trainer = Literal["trimtab", "huggingface", "lightning", "text"]
Source = Literal["config", "python", "huggingface", "lightning", "loop"]
"""What a run was begun from: the command line can build the first alone; "loop" is one of the user's own."""
_SOURCES: Final[Mapping[str, Source]] = {
    "python": "python",
    "huggingface": "huggingface",
    "lightning": "lightning",
    "loop": "loop",
}
_SIGNS = ("config.yaml", "record.jsonl", "environment.json", "lock.json")
_OURS = ("environment.json", "facts.json", "lock.json")
"""A directory with one of these is a run; with lock.json alone, one that was killed before it began."""
_ENDS: dict[str, Status] = {
    "finished": "finished",
    "stopped": "stopped",
    "interrupted": "interrupted",
    "failed": "failed",
}


@final
@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One run; its parts may not exist yet."""

    path: Path

    @classmethod
    def create(cls, parent: Path, name: str) -> Self:
        """Make `<parent>/<YYYYmmdd-HHMMSS>-<name>`, with a number behind it when that is taken.

        Raises: StorageError when it cannot be made.
        """
        stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
        for number in range(1, 1000):
            path = parent / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if not parent.is_dir():
                    raise StorageError(f"{parent}: is no directory, so no run can be made in it") from None
            except OSError as error:
                raise StorageError(f"{path}: cannot be created ({error.strerror})") from error
            else:
                return cls(path)
        raise StorageError(f"{parent / stem}: a thousand runs of this name and second exist")

    @classmethod
    def create_at(cls, path: Path) -> Self:
        """Make a new run at `path`, which must not exist or be an empty directory.

        Raises: UsageError when there is something else; StorageError when it cannot be made.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            occupied = any(path.iterdir())
        except OSError as error:
            raise StorageError(f"{path}: cannot be created ({error.strerror})") from error
        if occupied:
            raise UsageError(
                f"{path}: a new run needs a directory that is empty or not there yet",
                hint="give another directory, or an existing run to go on with it",
            )
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The run at `path`. Raises: UsageError when there is none, naming the nearest."""
        if cls.is_run(path):
            return cls(path)
        what = "is not a run: it has neither config.yaml nor record.jsonl"
        if not path.exists():
            what = "there is no such directory"
        hint = _nearest(path)
        if path.is_file():
            hint = "`trimtab doctor PATH` and `trimtab compare A B` read the logs of other trainers"
        raise UsageError(f"{printable(str(path))}: {what}", hint=hint)

    @staticmethod
    def is_run(path: Path) -> bool:
        """Whether there is a run at `path`."""
        return any((path / sign).is_file() for sign in _SIGNS)

    @classmethod
    def path_of(cls, path: Path) -> Path:
        """The run whose record is at `path`, where beside it lies what makes it a run of ours; else `path` itself."""
        of_ours = path.name == "record.jsonl" and path.is_file() and any((path.parent / one).is_file() for one in _OURS)
        return path.parent if of_ours else path

    @property
    def name(self) -> str:
        """The directory's own name."""
        return self.path.resolve().name if self.path.name in ("", "..") else self.path.name

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, git, hardware, seed."""
        return self.path / "environment.json"

    @property
    def plan(self) -> Path:
        """Choices that were measured."""
        return self.path / "plan.json"

    @property
    def facts(self) -> Path:
        """What was computed before step 1."""
        return self.path / "facts.json"

    @property
    def record(self) -> Path:
        """The events, of rank 0."""
        return self.path / "record.jsonl"

    def record_of_rank(self, rank: int) -> Path:
        """The events of a process of the run; of rank 0 `record`."""
        return self.record if rank == 0 else self.path / f"record.rank-{rank:05d}.jsonl"

    @property
    def rollback(self) -> Path:
        """What a rollback keeps, from its decision until it is saved."""
        return self.path / "rollback.json"

    @property
    def statistics(self) -> Path:
        """The folder of per-layer values."""
        return self.path / "statistics"

    @property
    def examinations(self) -> Path:
        """What examinations read of layers."""
        return self.statistics / "examinations"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def quantized(self) -> Path:
        """The quantized model, where the run was trained for one."""
        return self.path / "quantized"

    @property
    def calibration(self) -> Path:
        """The temperature of its answers, where one was fitted."""
        return self.path / "calibration.json"

    @property
    def details(self) -> Path:
        """Where its model is wrong on the validation set, where that was looked at."""
        return self.artifacts / "evaluation.json"

    @property
    def artifacts(self) -> Path:
        """The folder of samples, pictures, profiles and stacks."""
        return self.path / "artifacts"

    @property
    def captures(self) -> Path:
        """The folder of what modules gave, as it was."""
        return self.artifacts / "captures"

    @property
    def modules(self) -> Path:
        """The tree of the model's modules, with shapes."""
        return self.artifacts / "modules.json"

    @property
    def lock(self) -> Path:
        """Who writes in the run."""
        return self.path / "lock.json"

    @property
    def notes(self) -> Path:
        """Tags and archive, by people."""
        return self.path / "notes.json"

    @property
    def diagnosis(self) -> Path:
        """The doctor's verdict."""
        return self.path / "diagnosis.json"

    @property
    def alerts(self) -> Path:
        """What rules of `alerts` were met, a line of JSON each."""
        return self.path / "alerts.jsonl"

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.path / "report.html"

    def read_json(self, path: Path) -> dict[str, Any]:
        """The object in one of the run's JSON files. Raises: StorageError, UsageError."""
        return read_json(path)

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write one of the run's JSON files, whole or not at all. Raises: StorageError."""
        write_json(path, content)

    def write_text(self, path: Path, text: str) -> None:
        """Write one of the run's text files, whole or not at all. Raises: StorageError."""
        write_text(path, text)

    @property
    def source(self) -> Source:
        """What it was begun from: a configuration, objects in Python, or another trainer with our callback in it."""
        with contextlib.suppress(TrimtabError):
            source = self.read_json(self.environment).get("source") if self.environment.exists() else None
            return _SOURCES.get(str(source), "config")
        return "config"

    @property
    def trainer(self) -> Trainer:
        """Who made the steps: trimtab, another trainer with our callback, or ("text") a loop with our logger."""
        match self.source:
            case "config" | "python":
                return "trimtab"
            case "loop":
                return "text"
            case other:
                return other

    def refuse_foreign(self) -> None:
        """Raises: UsageError when another trainer made this run, so that only that can build its model."""
        names = {"huggingface": "transformers' Trainer", "lightning": "lightning.Trainer", "text": "a loop of its own"}
        name = names.get(self.trainer)
        if name is not None:
            raise UsageError(
                f"{printable(str(self.path))} was made by {name}: its model and checkpoints are not trimtab's",
                hint="train and load it there; trimtab's show, doctor, report and runs read it",
            )

    def attempts(self) -> list[dict[str, Any]]:
        """The RunStarted lines of the record: one for each attempt, and one for each rollback."""
        return read_attempts(self.record)

    def check_writable(self) -> None:
        """Write and remove a file. Raises: StorageError naming the directory."""
        probe = self.path / f".writable-{os.getpid()}"
        try:
            with open(probe, "wb") as file:
                file.write(b"\0" * 4096)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be written ({error.strerror})",
                hint="free space, change the directory's permissions, or give another one with --run",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()

    def status(self) -> Status:
        """How the newest attempt ended; "running" with a live writer, "killed" when it wrote no end."""
        if live_holder(self.lock) is not None:
            return "running"
        try:
            with open(self.record, "rb") as file:
                for raw, _ in lines_backwards(file):
                    line = decode_line(raw) or {}
                    if line.get("event") == "RunEnded":
                        return _ENDS.get(str(line.get("status")), "failed")
                    if line.get("event") in ("RunStarted", "StepsEnded"):
                        return "killed"
        except OSError:
            pass
        return "new"


def list_runs(parent: Path) -> list[RunDirectory]:
    """The runs in `parent`, by name, which is by time for names that trimtab made."""
    try:
        names = sorted(entry.name for entry in os.scandir(parent) if entry.is_dir())
    except OSError:
        return []
    return [RunDirectory(parent / name) for name in names if RunDirectory.is_run(parent / name)]


def _nearest(path: Path) -> str:
    inside = [run.name for run in list_runs(path)]
    if inside:
        return f"it holds runs; the newest is {printable(str(path / inside[-1]))}"
    parents = list(dict.fromkeys([path.parent, Path("runs")]))
    names = {run.name: run.path for parent in parents for run in list_runs(parent)}
    wanted = path.name
    near = [name for name in reversed(names) if wanted and wanted in name]
    near += [name for name in difflib.get_close_matches(wanted, names, n=3, cutoff=0.6) if name not in near]
    if near:
        return "did you mean " + " or ".join(printable(str(names[name])) for name in near[:3]) + "?"
    return "`trimtab runs [DIR]` lists the runs"
