"""Which file is meant when a folder is given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from trimtab.errors import UsageError
from trimtab.runs.printable import printable

_STATE: Final = "trainer_state.json"
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)")
_VERSION: Final = re.compile(r"version_(\d+)")
_GLOBAL_STEP: Final = re.compile(rb'"global_step": ?(\d+)')
_ENDINGS: Final = (".csv", ".jsonl", ".ndjson", ".json", ".tsv")
_NO_LOGS: Final = re.compile(
    r"(?:config|generation_config|tokenizer.*|vocab|special_tokens.*|added_tokens|preprocessor.*|.*index|"
    r"training_args|package|all_results|train_results|eval_results)\.json"
)


def find_log(path: Path) -> Path:
    """The log that `path` is, or that lies in it. Raises: UsageError when there is none, or more than one."""
    name = printable(str(path))
    try:
        if path.is_file():
            return path
        if not path.exists():
            raise UsageError(f"{name}: there is no such file or folder")
        if not path.is_dir():
            raise UsageError(f"{name}: is neither a file nor a folder")
        found = _state(path) or _metrics(path)
        if found is not None:
            return found
        logs = sorted(
            one
            for one in path.iterdir()
            if one.suffix in _ENDINGS and one.is_file() and not _NO_LOGS.fullmatch(one.name)
        )
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror})") from error
    if len(logs) == 1:
        return logs[0]
    if logs:
        shown = ", ".join(printable(one.name, limit=60) for one in logs[:5])
        raise UsageError(f"{name}: holds {len(logs)} files that may be logs: {shown}", hint="give one of them")
    raise UsageError(
        f"{name}: holds no log",
        hint="give a file (trainer_state.json, CSV, JSON Lines), or the output folder of transformers or Lightning",
    )


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
