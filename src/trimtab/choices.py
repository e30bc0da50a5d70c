"""The choices made before step 1, by measuring or by rule, which plan.json keeps; and what is said of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import torch

from trimtab.assembly import Parts
from trimtab.config import Config
from trimtab.data import LabelledTexts, PreparedData, Sequences
from trimtab.data.streamed_rows import StreamedTexts
from trimtab.model.recompute import set_recompute
from trimtab.runs import RunDirectory, format
from trimtab.runs.files import read_json
from trimtab.signals import Batch
from trimtab.training.attention import choose_attention, choose_packing
from trimtab.training.declared import captured_as_declared, require_as_declared
from trimtab.training.execution import (
    choose_activation,
    choose_capture,
    choose_compile,
    keep_freed_memory,
    set_threads,
)
from trimtab.training.memory import memory_meter
from trimtab.training.micro_batch import find_micro_batch
from trimtab.training.outside import what_applies
from trimtab.training.peak import choose_peak
from trimtab.training.procedures import held_back
from trimtab.training.recompute import least_recompute
from trimtab.training.threads import choose_threads

_LONG_SECONDS: Final = 3600.0
"""A run that will take longer is told how long, before it begins."""
BATCH: Final = {f"config.training.{name}" for name in ("micro_batch_size", "accumulation", "batch_size")}
"""Settings that say how large a step is, and how it is divided."""
_SHAPES: Final = (
    "config.model.",
    "config.data.",
    "config.optimizer.",
    "config.training.memory_budget",
    "config.logging.noise_scale.",
)
"""Settings on which memory depends."""


def choose(
    config: Config,
    run: RunDirectory,
    data: PreparedData,
    parts: Parts,
    changes: set[str],
    precision_choice: Mapping[str, Any] | None,
    report: Callable[[str, float], None],
) -> dict[str, Any]:
    """Those of plan.json, or new ones where the settings behind them are among the `changes`."""
    training, precision = config.training, parts.step.precision
    decides = [
        *(f"training.{name}" for name in ("threads", "compile", "capture", "attention", "recompute")),
        *("training.fused_activation", "training.packed_attention"),
        *("training.precision.name", "training.precision.parameters"),
        *("optimizer.name", "model.name", "task.padding"),
    ]
    stale = changes & {"device", *(f"config.{name}" for name in decides)}
    earlier = {} if stale or not run.plan.exists() else read_json(run.plan)
    if earlier.get("precision", precision.name) != precision.name:
        earlier = {}
    set_threads(earlier.get("threads", training.threads))
    micro_batch, recompute = earlier.get("micro_batch"), earlier.get("recompute", {"chosen": "none"})
    if micro_batch is None or changes & BATCH or any(change.startswith(_SHAPES) for change in changes):
        recompute, micro_batch = choose_recompute(config, data, parts, report)
    else:
        set_recompute(parts.model, recompute["chosen"])
    rows, accumulation = micro_batch["chosen"], micro_batch["accumulation"]
    if parts.device.type == "cpu":
        keep_freed_memory()
    example = data.training.batch(np.arange(rows), rows)
    kept = earlier.get("attention")
    attention = choose_attention(
        config, parts.model, precision.dtype, example, kept, accumulation=accumulation, report=report
    )
    fused = choose_activation(training, parts.model, parts.device, precision)
    packed = choose_packing(training, parts.model, parts.device, attention)
    why_not = held_back(config, parts.model, parts.step.optimizer)
    choice = earlier.get("threads_choice")
    if choice is None and "threads" in earlier:  # of a run that was begun by an earlier version
        choice = {"chosen": earlier["threads"], "reason": "as when the run was begun"}
    threads = choose_threads(training, parts.step, example, choice, report, accumulation=accumulation)
    captured = (why_not is None and earlier.get("capture")) or choose_capture(training, parts.device, why_not)
    begun = time.perf_counter()
    with captured_as_declared(parts.step, captured["chosen"]):
        compiled = choose_compile(
            training,
            parts.step,
            example,
            parts.compilable,
            earlier.get("compile"),
            report,
            accumulation=accumulation,
            captures=captured["chosen"],
        )
    require_as_declared(parts.step, example)
    if compiled["chosen"] or "compile_seconds" in compiled:
        compiled |= {"seconds": time.perf_counter() - begun}
    return {
        "device": str(parts.device),
        "threads": threads["chosen"],
        "threads_choice": threads,
        "micro_batch": micro_batch,
        "recompute": recompute,
        "precision": precision.name,
        **({} if precision_choice is None else {"precision_choice": precision_choice}),
        "parameters": {"chosen": str(precision.parameters).removeprefix("torch."), "reason": parts.parameters},
        "attention": attention,
        "packed_attention": packed,
        "activation": fused,
        "compile": compiled,
        "capture": captured,
        "peak": choose_peak(
            config.hardware.peak_flops, parts.device, precision.name, precision.dtype, earlier.get("peak")
        ),
    }


def choose_recompute(
    config: Config, data: PreparedData, parts: Parts, report: Callable[[str, float], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is computed again in backward, set on the model, and how a step is divided then; as entries of plan.json."""
    find = partial(choose_micro_batch, config, data, parts, report)
    size = config.split.micro_batch_size if config.split is not None else None
    return least_recompute(config.training.recompute, parts.model, find, size, report)


def choose_micro_batch(
    config: Config,
    data: PreparedData,
    parts: Parts,
    report: Callable[[str, float], None],
    *,
    tries: bool = False,
) -> dict[str, Any]:
    """Sequences in a micro-batch, and micro-batches in a step: as configured, or the most that memory holds; with
    `tries` that is found for a configured one, too, as far as it goes."""
    most_asked = len(data.training)
    if (split := config.split) is not None and tries:
        most_asked = min(most_asked, split.micro_batch_size)
    elif split is not None:
        given = "training.batch_size and " if config.training.batch_size is not None else ""
        reason = f"{given}training.micro_batch_size is {split.micro_batch_size}"
        return {"chosen": split.micro_batch_size, "accumulation": split.accumulation, "reason": reason}
    batch_size, most = config.sequences_per_step, most_asked
    if config.logging.noise_scale.every and split is None:
        most = max(1, min(most, batch_size // 2))  # it compares two or more
    return find_micro_batch(
        parts.step,
        lambda rows: _longest_batch(data.training, rows),
        batch_size,
        most=most,
        meter=memory_meter(parts.device),
        budget_bytes=config.training.memory_budget_bytes,
        grows=config.training.accumulation_schedule is not None or config.largest_batch is not None,
        report=report,
    )


def notes_on(config: Config, plan: Mapping[str, Any], data: PreparedData, parts: Parts) -> list[str]:
    """What is worth a line before step 1: fast ways that are not gone, a long run, text that is cut or left out."""
    notes = [*_fallbacks(plan), *_cut(data), *what_applies(parts.model, config, plan)]
    if parts.step.precision.is_emulated:
        notes.append("bf16 is slow here: this device has no instructions for it (training.precision.name=auto)")
    if parts.device.type == "cuda" and torch.version.hip is not None:
        notes.append("an AMD GPU, by way of ROCm: trimtab was never tested on one")
    return notes


def _cut(data: PreparedData) -> list[str]:
    """Lines on texts that are read in part, where these are not few, and on what cannot be used."""
    part = data.facts.get("cut_texts", 0) / len(data.training)
    longest = data.facts.get("longest_text", 0)
    longer = f"{part:.0%} of the texts are longer than data.sequence_length and are cut: the longest needs {longest:,}"
    return ([f"{longer}, with the tokens that begin and end a text"] if part > 0.01 else []) + _unusable(data)


def _unusable(data: PreparedData) -> list[str]:
    """Lines on records that were passed over (data.on_bad)."""
    named = data.facts.get("unusable", [])
    more = f"; and {len(named) - 3} more, all in facts.json" if len(named) > 3 else ""
    return [f"{len(named)} that cannot be used were left out: {'; '.join(named[:3])}{more}"] if named else []


def _fallbacks(plan: Mapping[str, Any]) -> list[str]:
    """One line for each fast way that this run does not go, though it was not told so."""
    told = [str(entry["reason"]) for entry in plan.values() if isinstance(entry, Mapping) and entry.get("fallback")]
    expected = plan["compile"].get("expected_seconds", 0.0)
    if expected > _LONG_SECONDS and "compiled_seconds" not in plan["compile"]:
        told.append(f"at the pace measured before step 1 this takes about {format.duration(expected)} in all")
    return told


def _longest_batch(sequences: Sequences, rows: int) -> Batch:
    """A micro-batch that takes as much memory as any."""
    indices = np.arange(rows)
    if isinstance(sequences, LabelledTexts | StreamedTexts):
        indices = np.argsort(sequences.lengths, kind="stable")[::-1][:rows].copy()
    return sequences.batch(indices, rows)
