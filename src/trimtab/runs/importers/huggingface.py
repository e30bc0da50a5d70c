"""What is peculiar to `trainer_state.json`: its last entry, its filter of NaN, and what else it and its folder tell."""

from __future__ import annotations

import contextlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from trimtab.runs.history import History, Series
from trimtab.runs.importers.cells import number

_TOLD: Final = (
    "max_steps",
    "num_train_epochs",
    "train_batch_size",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "global_step",
    "best_metric",
    "best_global_step",
    "num_input_tokens_seen",
    "total_flos",
)
_SUMMARY: Final = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "train_loss")
_FILTER: Final = (
    "cannot exclude NaN: logging_nan_inf_filter, which is on unless it was turned off, puts the mean of the steps "
    "before in place of a loss that is NaN"
)
_LARGEST_HEADER_BYTES: Final = 32 << 20
"""Of all parts together."""
_LARGEST_VOCABULARY: Final = 1 << 31
_LANGUAGE_MODELS: Final = ("ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForConditionalGeneration", "ForPreTraining")


def note_filter(notes: list[str]) -> None:
    """Say what the filter hides."""
    notes.append(_FILTER)


def divide_summary(entries: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], dict[str, Any]]:
    """Entries of steps, and the one that Trainer writes at the end, whose loss is the mean over the whole run."""
    steps, summary = [], {}
    for entry in entries:
        if "train_runtime" in entry:
            summary = {name: entry[name] for name in _SUMMARY if name in entry}
        else:
            steps.append(entry)
    return steps, summary


def facts_of(
    state: Mapping[str, Any], summary: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What a state tells of the run."""
    told: dict[str, Any] = {name: state[name] for name in _TOLD if number(state.get(name)) is not None}
    facts: dict[str, Any] = {
        "log": told | {name: value for name, value in summary.items() if number(value) is not None}
    }
    planned = number(state.get("max_steps"))
    if planned is not None and 0 < planned < 1 << 53:
        facts["planned_steps"] = int(planned)
    for entry in reversed(entries):
        epoch, step = number(entry.get("epoch")), number(entry.get("step"))
        if epoch and step and planned and math.isfinite(epoch * planned) and step > 0:
            facts["epochs"] = epoch / step * planned
            break
    return facts


def restore_filtered(history: History, notes: list[str]) -> None:
    """Read a loss of exactly 0 as NaN where Trainer writes it for a window of nothing but NaN."""
    loss, norm = history.get("train/loss"), history.get("grad_norm")
    if loss is None or loss.width > 1:
        return
    steps, values = loss.steps, loss.mean
    zero = values == 0.0
    if not zero.any() or zero.all():
        return
    suspicious = np.zeros(len(values), bool)
    if norm is not None and norm.width == 1:
        suspicious = zero & np.isin(steps, norm.steps[norm.bad > 0])
    tail = len(values) - int(np.argmin(zero[::-1]))  # zero from here to the end
    if tail < len(values) and abs(float(np.nan_to_num(values[tail - 1]))) > 0.05:
        suspicious[tail:] = True
    if suspicious.any():
        values = np.where(suspicious, np.nan, values)
        restored = Series()
        restored.append(steps, values)
        history.replace("train/loss", restored)
        notes.append(
            f"a loss of exactly 0 from step {steps[suspicious][0]} on was read as NaN: that is what "
            "logging_nan_inf_filter leaves of steps that are all NaN"
        )


def facts_of_folder(folder: Path) -> dict[str, Any]:
    """What a checkpoint's folder tells of the model: its vocabulary or classes, and how many parameters it has."""
    facts: dict[str, Any] = {}
    config = _config(folder / "config.json")
    kinds = config.get("architectures")
    kind = str(kinds[0]) if isinstance(kinds, list) and kinds else ""
    size = config.get("vocab_size")
    if kind.endswith(_LANGUAGE_MODELS) and isinstance(size, int) and 1 < size < _LARGEST_VOCABULARY:
        facts["tokenizer"] = {"vocabulary_size": size}
    labels = config.get("id2label")
    if kind.endswith("ForSequenceClassification") and isinstance(labels, dict) and len(labels) > 1:
        facts["num_classes"] = len(labels)
    total, room = 0, _LARGEST_HEADER_BYTES
    for part in sorted(folder.glob("model*.safetensors"))[:1000]:
        header = _header(part, room) if part.is_file() else b""
        room -= len(header)
        total += _parameters(header)
    if 0 < total < 1 << 53:
        facts["parameters"] = {"total": total}
    return facts


def _config(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if path.is_file() and path.stat().st_size < 1 << 20:  # a pipe of that name would be waited for
            content = json.loads(path.read_bytes())
            return content if isinstance(content, dict) else {}
    return {}


def _header(path: Path, room: int) -> bytes:
    """The header of a safetensors file, where it has at most `room` bytes."""
    with contextlib.suppress(OSError, struct.error), open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        if size <= room:
            return file.read(size)
    return b""


def _parameters(header: bytes) -> int:
    """Numbers in a safetensors file, by its header."""
    with contextlib.suppress(ValueError, RecursionError, TypeError, AttributeError, KeyError):
        shapes = [tensor["shape"] for name, tensor in json.loads(header).items() if name != "__metadata__"]
        sizes = (size for shape in shapes for size in shape)
        if all(len(shape) <= 16 for shape in shapes) and all(isinstance(one, int) and one >= 0 for one in sizes):
            return sum(map(math.prod, shapes))
    return 0
