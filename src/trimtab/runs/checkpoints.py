"""Checkpoints as files: complete or not there, checked byte by byte, and never all thrown away.

A checkpoint is written under `.tmp-…`; its manifest.json comes last, with size and SHA-256 of every file and
of itself; then it is renamed to `step-00001200`. What is replaced goes by way of `.old-…`, what is deleted by
way of `.trash-…`, so that a kill at any moment leaves whole checkpoints or nothing under a step's name.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trimtab.errors import StorageError, UsageError
from trimtab.runs.directory import RunDirectory
from trimtab.runs.files import SCHEMA, check_schema, sync_folder
from trimtab.runs.record import branch_starts, read_attempts

MANIFEST = "manifest.json"
_STEP = re.compile(r"(?:\.old-)?step-(\d{8,})")


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A complete checkpoint, as its checkpoint.json describes it."""

    step: int
    branch: int
    path: Path
    metrics: Mapping[str, float]
    reason: str
    bytes: int
    created_seconds: float
    """Unix seconds."""
    abandoned: bool
    """Whether a later branch opened before this step, so that the run no longer goes through it."""
    planned: bool = True
    """Whether every rerun has it; one that a signal or a person asked for has a moment of its own."""


def step_folder(step: int) -> str:
    """The name of the checkpoint after `step` updates: step-00001200."""
    return f"step-{step:08d}"


def write_manifest(folder: Path) -> dict[str, Any]:
    """Hash and sync every file in `folder`, then write manifest.json: the checkpoint is complete.

    Raises: StorageError.
    """
    try:
        files = {}
        for name in sorted(_files(folder) - {MANIFEST}):
            with open(folder / name, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
                files[name] = {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}
        manifest: dict[str, Any] = {"schema": SCHEMA, "files": files}
        with open(folder / MANIFEST, "wb") as file:
            file.write(_manifest_bytes(manifest))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{folder}: the manifest cannot be written ({error.strerror})") from error
    for inner in [path for path in folder.rglob("*") if path.is_dir()] + [folder]:
        sync_folder(inner)
    return manifest


def commit(temporary: Path, final: Path) -> None:
    """Give the complete checkpoint in `temporary` its name, in place of an older one of that step.

    Raises: StorageError; the older one is then still there.
    """
    aside = final.with_name(f".old-{final.name}")
    try:
        if final.exists():
            # A kill between the two renames leaves .old-step-…, which counts until the name is taken again.
            if aside.exists():
                discard(aside)
            os.rename(final, aside)
        try:
            os.rename(temporary, final)
        except OSError:
            if aside.exists():
                os.rename(aside, final)
            raise
    except OSError as error:
        raise StorageError(f"{final}: cannot be put in place ({error.strerror})") from error
    sync_folder(final.parent)
    if aside.exists():
        discard(aside)


def verify(folder: Path, *, hashes: bool = True) -> list[str]:
    """What is wrong with a checkpoint, one line a problem; [] when every byte is the one that was written.

    Without `hashes` only the manifest's own hash, and the names and sizes of files: quick.
    """
    try:
        listed = _read_manifest(folder)
        sizes = {name: int(entry["bytes"]) for name, entry in listed.items()}
        digests = {name: str(entry["sha256"]) for name, entry in listed.items()}
    except OSError as error:
        return [f"{folder.name}/{MANIFEST}: cannot be read ({error.strerror})"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [f"{folder.name}/{MANIFEST}: its content does not match its own hash"]
    try:
        present = _files(folder) - {MANIFEST}
    except OSError as error:
        return [f"{folder.name}: cannot be read ({error.strerror})"]
    problems = [f"{folder.name}/{name}: is missing" for name in sorted(sizes.keys() - present)]
    problems += [f"{folder.name}/{name}: is not in the manifest" for name in sorted(present - sizes.keys())]
    for name in sorted(present & sizes.keys()):
        try:
            status = (folder / name).lstat()
            if not stat.S_ISREG(status.st_mode):
                problems.append(f"{folder.name}/{name}: is no regular file")
            elif status.st_size != sizes[name]:
                problems.append(f"{folder.name}/{name}: has {status.st_size} bytes instead of {sizes[name]}")
            elif hashes:
                with open(folder / name, "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != digests[name]:
                        problems.append(f"{folder.name}/{name}: its bytes are not those that were written")
        except OSError as error:
            problems.append(f"{folder.name}/{name}: cannot be read ({error.strerror})")
    return problems


def checkpoint_folders(run: Path) -> list[Path]:
    """The folders of the run at `run` that have a checkpoint's name, by step, damaged and abandoned ones too."""
    return [path for _, path in _folders(run)]


def list_checkpoints(run: Path, *, verified: bool = False) -> list[CheckpointInfo]:
    """The checkpoints of the run at `run`, by step, whose manifest and description are whole.

    With `verified` those whose every byte is the one that was written. A checkpoint that a later branch left
    behind is none: a run that went back to step 1000 no longer has one at 1200.
    """
    return [info for info in _described(run) if not info.abandoned and not (verified and verify(info.path))]


def latest(run: Path) -> CheckpointInfo | None:
    """The newest checkpoint that verifies, every byte."""
    return next((info for info in reversed(list_checkpoints(run)) if not verify(info.path)), None)


def newest_step(run: Path) -> int | None:
    """The step of the newest checkpoint, whole by names and sizes; None when there is none. Quick, for messages."""
    infos = reversed(list_checkpoints(run))
    return next((info.step for info in infos if not verify(info.path, hashes=False)), None)


def best(run: Path, metric: str, better: Literal["lower", "higher"]) -> CheckpointInfo | None:
    """The checkpoint with the best finite `metric` that verifies, every byte; of equals the earliest."""
    return next(iter(best_ones(run, metric, better, 1)), None)


def best_ones(run: Path, metric: str, better: Literal["lower", "higher"], most: int) -> list[CheckpointInfo]:
    """Up to `most` checkpoints with a finite `metric` that verify, the best first; of equals the earlier."""
    whole = (info for info in ranked(list_checkpoints(run), metric, better) if not verify(info.path))
    return list(itertools.islice(whole, most))


def prune(
    run: Path,
    keep_latest: int,
    keep_best: int,
    metric: str,
    better: Literal["lower", "higher"],
    *,
    every_steps: int | None = None,
    every_seconds: float | None = None,
    verified_step: int | None = None,
) -> list[int]:
    """Delete all but the newest and the best checkpoints, and what killed saves left; give the deleted steps.

    Of each stretch of `every_steps`, from the second on, and of `every_seconds` of the clock, the first stays, too.
    One that was not planned stays while it is the newest, and counts for nothing: so an interruption changes neither
    what is kept nor where a rollback goes.

    One that verifies always stays: what is kept is hashed until one does, unless `verified_step` is kept,
    which the caller has just checked. Call it when no save is under way.
    """
    clean(run)
    every = _described(run)
    current = [info for info in every if not info.abandoned]
    kept = {info.step for info in [info for info in current if info.planned][::-1][: max(keep_latest, 1)]}
    kept |= {info.step for info in current[-1:]}
    kept |= {info.step for info in ranked(current, metric, better)[:keep_best]}
    if every_steps is not None:
        planned = [info for info in current if info.planned and info.step >= every_steps]
        kept |= set(_firsts((info.step // every_steps, info.step) for info in planned))
    if every_seconds is not None:
        kept |= set(_firsts((int(info.created_seconds // every_seconds), info.step) for info in current))
    if verified_step not in kept:
        for info in sorted(every, key=lambda info: (info.step not in kept, info.abandoned, -info.step)):
            kept.add(info.step)
            if not verify(info.path):
                break
    deleted = [info for info in every if info.step not in kept]
    for info in deleted:
        discard(info.path)
    return [info.step for info in deleted]


def shared_bytes(folder: Path) -> int:
    """Of the checkpoint's bytes, those in files that another checkpoint has, too: on the disk they are there once."""
    with contextlib.suppress(OSError):
        files = [(folder / name).stat() for name in _files(folder)]
        return sum(file.st_size for file in files if file.st_nlink > 1)
    return 0


def disk_bytes(run: Path) -> int:
    """What the checkpoints of a run take together on the disk, damaged and abandoned ones, too."""
    found: dict[tuple[int, int], int] = {}
    for folder in checkpoint_folders(run):
        with contextlib.suppress(OSError):
            for file in ((folder / name).stat() for name in _files(folder)):
                found[file.st_dev, file.st_ino] = file.st_size
    return sum(found.values())


def discard(folder: Path) -> None:
    """Delete a checkpoint in such a way that half of it is never taken for one."""
    trash = folder.with_name(f".trash-{folder.name.lstrip('.')}")
    with contextlib.suppress(OSError):
        if trash.exists():
            shutil.rmtree(trash)
        os.rename(folder, trash)
        sync_folder(folder.parent)
        shutil.rmtree(trash)


def clean(run: Path) -> None:
    """Remove what killed processes left of saving and deleting, and give a replaced checkpoint its name back.

    Only the process that holds the run's lock may call it, when no save is under way.
    """
    folder = RunDirectory(run).checkpoints
    try:
        names = {entry.name for entry in os.scandir(folder)}
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            if name.startswith((".tmp-", ".trash-")):
                shutil.rmtree(folder / name)
            elif name.startswith(".old-") and name.removeprefix(".old-") in names:
                discard(folder / name)
            elif name.startswith(".old-"):
                os.rename(folder / name, folder / name.removeprefix(".old-"))


def _files(folder: Path) -> set[str]:
    """The names of all that is no directory, below `folder`, with "/" between parts."""
    return set(_walk(folder, ""))


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name


def _manifest_bytes(content: Mapping[str, Any]) -> bytes:
    """The one text of a manifest: `sha256` is the hash of the text without it (sorted keys, no spaces)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return (json.dumps({**content, "sha256": digest}, sort_keys=True, separators=(",", ":")) + "\n").encode()


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """The files of a manifest. Raises: OSError; ValueError and the like when a byte of it was changed."""
    raw = (folder / MANIFEST).read_bytes()
    content = json.loads(raw)
    if raw != _manifest_bytes({"schema": content["schema"], "files": content["files"]}):
        raise ValueError("altered")
    return dict(content["files"])


def _folders(run: Path) -> list[tuple[int, Path]]:
    """Step and folder of all that has a checkpoint's name, by step."""
    folder = RunDirectory(run).checkpoints
    try:
        names = {entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)}
    except OSError:
        return []
    # What a kill left under .old- between the two renames of `commit` is still the checkpoint of its step.
    names -= {f".old-{name}" for name in names}
    return sorted((int(match[1]), folder / name) for name in names if (match := _STEP.fullmatch(name)))


def _described(run: Path) -> list[CheckpointInfo]:
    """All whose manifest and checkpoint.json are whole, by step."""
    starts = branch_starts(read_attempts(RunDirectory(run).record))
    return [info for step, path in _folders(run) if (info := _read(path, step, starts)) is not None]


def _read(folder: Path, step: int, starts: Mapping[int, int]) -> CheckpointInfo | None:
    """What checkpoint.json says; None unless it is as the manifest has it, and of that step."""
    try:
        manifest = _read_manifest(folder)
        raw = (folder / "checkpoint.json").read_bytes()
        if hashlib.sha256(raw).hexdigest() != manifest["checkpoint.json"]["sha256"]:
            return None
        content = json.loads(raw)
        check_schema(content, folder / "checkpoint.json")
        branch = int(content["branch"])
        info = CheckpointInfo(
            step=int(content["step"]),
            branch=branch,
            path=folder,
            metrics={str(name): float(value) for name, value in content["metrics"].items()},
            reason=str(content["reason"]),
            bytes=sum(int(entry["bytes"]) for entry in manifest.values()),
            created_seconds=float(content["created_seconds"]),
            abandoned=any(later > branch and start < step for later, start in starts.items()),
            planned=bool(content.get("planned", True)),
        )
    except (UsageError, OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return info if info.step == step else None


def _firsts(steps: Iterable[tuple[int, int]]) -> Iterable[int]:
    """Of pairs of a stretch and a step, in order, the first step of each stretch."""
    first: dict[int, int] = {}
    for stretch, step in steps:
        first.setdefault(stretch, step)
    return first.values()


def ranked(infos: list[CheckpointInfo], metric: str, better: Literal["lower", "higher"]) -> list[CheckpointInfo]:
    """The best first; those without a finite value are left out."""
    sign = 1 if better == "lower" else -1
    finite = [info for info in infos if math.isfinite(info.metrics.get(metric, math.nan))]
    return sorted(finite, key=lambda info: (sign * info.metrics[metric], info.step))
