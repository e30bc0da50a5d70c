"""Reads a foreign log: finds the file, tells its format by its content, and assembles the history."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from trimtab.errors import DataError
from trimtab.events import RunEnded
from trimtab.runs.importers import database, parquet_file, wandb_file
from trimtab.runs.importers.assemble import Assembled, assemble
from trimtab.runs.importers.clocks import durations
from trimtab.runs.importers.csv_file import open_table
from trimtab.runs.importers.find import Found, find_log
from trimtab.runs.importers.huggingface import facts_of_folder, restore_filtered
from trimtab.runs.importers.imported import Imported
from trimtab.runs.importers.json_document import open_document
from trimtab.runs.importers.json_lines import are_json_lines, open_json_lines
from trimtab.runs.importers.meter import Progress
from trimtab.runs.importers.mlflow_files import find_runs, open_files
from trimtab.runs.importers.names import evaluation_seconds
from trimtab.runs.importers.plan import check_mapping
from trimtab.runs.importers.printed import settings_in
from trimtab.runs.importers.table import Source
from trimtab.runs.importers.tensorboard_events import event_files, is_event_file, open_events
from trimtab.runs.importers.text import Lines, first_bytes, open_lines
from trimtab.runs.importers.text_log import is_text_log, open_text_log
from trimtab.runs.importers.trainers import Trainer, trainer_of
from trimtab.runs.printable import printable

_LIST: Final = re.compile(r"\[\s*(?:[{\[\]]|$)")
_NOTHING: Mapping[str, str] = MappingProxyType({})


def read_foreign(path: Path, mapping: Mapping[str, str] = _NOTHING, progress: Progress | None = None) -> Imported:
    """The log of another trainer at `path`: a file, a checkpoint, or an output folder.

    `mapping` names columns that are not known, theirs to ours, and goes before what is known. `progress` hears how far
    a file of text, event files, or a file of Weights & Biases are read.

    Raises: DataError when nothing can be read as a log; UsageError when there is no file, or the mapping is wrong.
    """
    check_mapping(mapping)
    found = find_log(path)
    file = found.path
    name = printable(str(file))
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # whatever numbers they wrote
            source = _open(found, frozenset(mapping), progress)
            assembled = assemble(source, mapping, name)
    except MemoryError as error:
        raise DataError(f"{name}: is too large to be read") from error
    history, notes = assembled.history, assembled.notes
    facts: dict[str, Any] = dict(source.facts)
    if source.format == "huggingface":
        restore_filtered(history, notes)
        facts |= facts_of_folder(file.parent)
    timed = ((evaluation_seconds(name.removeprefix("user/")), name) for name in history.series)
    for factor, name_of_seconds in timed:
        if factor is not None:
            judged = history.get("validation/loss")
            seconds = factor * history.series[name_of_seconds].finite()[1]
            history.evaluation_seconds.extend(durations(seconds, judged.finite()[1] if judged else seconds).tolist())
            break
    history.total_steps = _planned(facts, assembled)
    if assembled.num_epochs is not None:
        of_plan = (history.total_steps or history.last_step) / max(history.last_step, 1)
        facts.setdefault("epochs", assembled.num_epochs * of_plan)
    if source.finished:
        history.ended = RunEnded(history.last_step, "finished", "the trainer wrote its summary", None, None, None, 0.0)
    return Imported(
        history,
        source.format,
        file,
        assembled.names,
        tuple(assembled.unused),
        tuple(dict.fromkeys(notes)),
        _target(source, assembled),
        facts,
    )


def _planned(facts: dict[str, Any], assembled: Assembled) -> int | None:
    """The steps of the whole run, by what was said before it began. A log that goes further counts something else.

    The last row may come a little earlier, where rows are some steps apart: such a run is over.
    """
    planned, history = facts.pop("planned_steps", None), assembled.history
    if planned is None or assembled.axis.kind != "step" or planned < history.last_step:
        return None
    loss = history.get("train/loss")
    apart = int(np.median(np.diff(loss.steps))) if loss is not None and len(loss) > 1 else 1
    facts["planned_steps"] = history.last_step if planned - history.last_step < apart else planned
    return int(facts["planned_steps"])


def _open(found: Found, wanted: frozenset[str], progress: Progress | None) -> Source:
    """The source of what was found: stores by what they are, files by their first bytes."""
    path = found.path
    if found.kind == "events":
        return open_events(event_files(path), path, progress)
    if found.kind == "mlruns":
        return open_files(path, find_runs(path))
    first = first_bytes(path, 1 << 10)
    if first.startswith(database.MARK):
        return database.open_database(path, found.run)
    if first.startswith(parquet_file.MARK):
        return parquet_file.open_parquet(path, found.run)
    if first.startswith(wandb_file.MARK):
        return wandb_file.open_wandb(path, progress)
    if is_event_file(path, first):
        return open_events([path], path.parent, progress)
    return _open_text(open_lines(path, progress), wanted)


def _open_text(lines: Lines, wanted: frozenset[str]) -> Source:
    head = lines.head().lstrip()
    if are_json_lines(head) or lines.path.suffix in (".jsonl", ".ndjson"):
        return _with_settings(open_json_lines(lines), head)
    if head.startswith("{") or _LIST.match(head):
        return open_document(lines)
    if is_text_log(head, wanted):
        return _with_settings(open_text_log(lines, wanted), head)
    try:
        return _with_trainer(open_table(lines), head)
    except DataError:
        if not wanted and lines.path.suffix in (".csv", ".tsv"):
            raise
        # A long banner may stand before the first line with a metric, or only --map knows its name.
        try:
            return _with_settings(open_text_log(lines, wanted), head)
        except DataError:
            pass
        raise


def _with_settings(source: Source, head: str) -> Source:
    source.facts |= settings_in(head)
    return _with_trainer(source, head)


def _with_trainer(source: Source, head: str) -> Source:
    source.trainer = trainer_of(head)
    return source


def _target(source: Source, assembled: Assembled) -> Trainer | Literal["text"]:
    """Whose trainer it was: told by the format, or by columns that only it writes."""
    columns: Sequence[str] = assembled.columns
    of_format: Mapping[str, Trainer] = {"huggingface": "huggingface", "lightning": "lightning", "keras": "keras"}
    if source.trainer is not None or source.format in of_format:
        return source.trainer or of_format[source.format]
    if any(name in ("train/global_step", "eval/samples_per_second", "eval_samples_per_second") for name in columns):
        return "huggingface"
    if "trainer/global_step" in columns:
        return "lightning"
    return "text"
