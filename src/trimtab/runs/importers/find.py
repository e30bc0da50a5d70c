"""Which file is meant when a folder is given."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from trimtab.errors import UsageError
from trimtab.runs.importers.mlflow_files import find_runs
from trimtab.runs.importers.parquet_file import parts_of
from trimtab.runs.importers.tensorboard_events import event_files
from trimtab.runs.printable import printable

_STATE: Final = "trainer_state.json"
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)")
_VERSION: Final = re.compile(r"version_(\d+)")
_GLOBAL_STEP: Final = re.compile(rb'"global_step": ?(\d+)')
_ENDINGS: Final = (".csv", ".jsonl", ".ndjson", ".json", ".tsv", ".log", ".txt", ".out", ".db", ".parquet", ".wandb")
_PRINTED: Final = (".log", ".txt", ".out")
_STORES: Final = (".db", ".sqlite", ".sqlite3", ".parquet")
_NO_LOGS: Final = re.compile(
    r"(?:config|generation_config|tokenizer.*|vocab|special_tokens.*|added_tokens|preprocessor.*|.*index|"
    r"training_args|package|all_results|train_results|eval_results)\.json"
    r"|(?:requirements|vocab|merges|README|LICENSE)\.txt|debug(?:-\w+)?\.log|.+_(?:configs|system|traces|alerts)\.parquet"
)


@dataclass(frozen=True, slots=True)
class Found:
    """What is to be read."""

    path: Path
    kind: Literal["file", "events", "mlruns"] = "file"
    """A file, or a folder of TensorBoard or MLflow."""
    run: str | None = None
    """Of a store with several runs, the one that was asked for."""


def find_log(path: Path) -> Found:
    """The log that `path` is, or that lies in it. Raises: UsageError when there is none, or more than one."""
    name = printable(str(path))
    try:
        if path.is_file():
            return Found(path)
        if not path.exists():
            if path.parent.suffix in _STORES and path.parent.is_file():
                return Found(path.parent, run=path.name)
            raise UsageError(f"{name}: there is no such file or folder", hint=_nearest(path))
        if not path.is_dir():
            raise UsageError(f"{name}: is neither a file nor a folder")
        return _in_folder(path, name)
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{name}: cannot be read ({what})") from error


def _nearest(path: Path) -> str | None:
    """What lies beside a name that is not there and is spelt nearly so."""
    from difflib import get_close_matches

    beside = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, beside, n=2, cutoff=0.75)
    return f"did you mean {' or '.join(printable(str(path.with_name(one))) for one in near)}?" if near else None


def _in_folder(path: Path, name: str) -> Found:
    found = _state(path) or _metrics(path)
    if found is not None:
        return Found(found)
    if (run := _offline_run(path)) is not None:
        return Found(run)
    if find_runs(path):
        return Found(path, "mlruns")
    logs = sorted(
        one for one in path.iterdir() if one.suffix in _ENDINGS and one.is_file() and not _NO_LOGS.fullmatch(one.name)
    )
    if len(logs) > 1 and len({parts_of(one)[0] for one in logs}) == 1:  # one export in parts
        logs = logs[:1]
    if len(logs) > 1:
        stores = {one.with_suffix("") for one in logs if one.suffix == ".db"}
        logs = [one for one in logs if one.suffix != ".parquet" or one.with_suffix("") not in stores]
    exact = [one for one in logs if one.suffix not in _PRINTED]
    logs = exact or logs
    if not exact and event_files(path):  # which hold more than what was printed
        return Found(path, "events")
    if len(logs) == 1:
        return Found(logs[0])
    if event_files(path):
        return Found(path, "events")
    if logs:
        shown = ", ".join(printable(one.name, limit=60) for one in logs[:5])
        raise UsageError(f"{name}: holds {len(logs)} files that may be logs: {shown}", hint="give one of them")
    raise UsageError(
        f"{name}: holds no log",
        hint="give a file, or the folder of a run; docs/how-to/other-trainers.md lists what can be read",
    )


def _offline_run(folder: Path) -> Path | None:
    """The file of a run of Weights & Biases: in its folder, or the newest below."""
    found = [*folder.glob("*.wandb"), *folder.glob("offline-run-*/*.wandb"), *folder.glob("wandb/*run-*/*.wandb")]
    return max((one for one in found if one.is_file()), key=lambda one: one.parent.name, default=None)


def _state(folder: Path) -> Path | None:
    """The state that has come furthest: the folder's own, or that of its newest checkpoint."""
    own = folder / _STATE
    numbered = [
        (int(found[1]), one / _STATE)
        for one in folder.iterdir()
        if (found := _CHECKPOINT.fullmatch(one.name)) is not None and (one / _STATE).is_file()
    ]
    newest = max(numbered, default=None)
    if not own.is_file():
        return newest[1] if newest is not None else None
    return newest[1] if newest is not None and newest[0] > _global_step(own) else own


def _global_step(path: Path) -> int:
    with open(path, "rb") as file:
        found = _GLOBAL_STEP.search(file.read(1 << 16))
    return int(found[1]) if found is not None else -1


def _metrics(folder: Path) -> Path | None:
    """`metrics.csv` of Lightning's CSVLogger: here, or in the newest version."""
    for parent in (folder, folder / "lightning_logs"):
        if (parent / "metrics.csv").is_file():
            return parent / "metrics.csv"
        if not parent.is_dir():
            continue
        versions = [
            (int(found[1]), one / "metrics.csv")
            for one in parent.iterdir()
            if (found := _VERSION.fullmatch(one.name)) is not None and (one / "metrics.csv").is_file()
        ]
        if versions:
            return max(versions)[1]
    return None
