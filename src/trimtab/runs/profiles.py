"""Profiles as they lie in a run: what they say for programs, and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from trimtab.runs import format
from trimtab.runs.directory import RunDirectory
from trimtab.runs.printable import printable

PROFILE: Final = "profile"
"""The name of the artifact that tells of one."""
FOLDER: Final = "profiles"
SUMMARY, TABLE, MEMORY = "profile.json", "operators.txt", "memory.json"
TRACE: Final = "rank0.pt.trace.json.gz"
"""As TensorBoard's plugin for profiles looks for it, with each folder as a run."""

INPUT_BOUND: Final = 0.1
"""Waiting for data, of a step: from here on the doctor mentions it, too."""
LAUNCH_BOUND: Final = 0.75
"""Time in which something computes, of a step, below which it is the host that is waited for."""
OPTIMIZER_HEAVY: Final = 0.25
HALF: Final = 0.5
_PRODUCTS: Final = ("matmul", "attention")
_MEMORY_KINDS: Final = ("elementwise", "normalization", "reduction", "copy", "embedding", "loss", "optimizer")


def bottleneck(
    *,
    step_seconds: float,
    parts: Mapping[str, float],
    busy_seconds: float,
    kinds: Mapping[str, float],
    calls: float,
    on_device: bool,
) -> dict[str, Any]:
    """What the steps are bound by: a code, a sentence with its numbers, and the shares that decided it.

    All are of a mean step. In this order: input-bound (waiting for data is a tenth of the step), launch-bound
    (something computes in less than three quarters of it), optimizer-heavy (the update is a quarter of it); else by
    what is half of the time in which something computes: matmul-bound (products and attention), memory-bound (kernels
    that move more than they compute), or mixed.
    """
    step = max(step_seconds, 1e-12)
    computing = max(sum(kinds.values()), 1e-12)
    waited = parts.get("data", 0.0) / step
    busy = min(1.0, busy_seconds / step)
    update = (parts.get("optimizer", 0.0) + parts.get("update", 0.0)) / step
    products = sum(kinds.get(kind, 0.0) for kind in _PRODUCTS) / computing
    moving = sum(kinds.get(kind, 0.0) for kind in _MEMORY_KINDS) / computing
    device, each = "the GPU" if on_device else "the processor", "kernel" if on_device else "operator"
    first = max(kinds, key=lambda kind: kinds[kind], default="")
    if waited >= INPUT_BOUND:
        code = "input-bound"
        text = f"{_percent(waited)} of a step goes by waiting for data: prepare more ahead (data.prefetch)"
    elif busy < LAUNCH_BOUND:
        code = "launch-bound"
        length = busy_seconds / max(calls, 1.0)
        text = (
            f"{device} computes in only {_percent(busy)} of a step, in {format.count(round(calls))} {each}s of "
            f"{1e6 * length:.0f} µs on average; the rest it waits for Python to start them: larger micro-batches, "
            "training.compile, and on CUDA training.capture"
        )
    elif update >= OPTIMIZER_HEAVY:
        code = "optimizer-heavy"
        text = (
            f"the update is {_percent(update)} of a step: larger batches (training.accumulation) share it among more "
            "tokens; adamw is the quickest rule here"
        )
    elif products >= HALF:
        code = "matmul-bound"
        text = (
            f"products of matrices and attention are {_percent(products)} of the time in which {device} computes, as "
            "they should be: only narrower numbers (training.precision), or a smaller model, are faster"
        )
    elif moving >= HALF:
        code = "memory-bound"
        text = (
            f"{_percent(moving)} of the time in which {device} computes goes to {each}s that move more than they "
            f"compute, {first} first: training.compile joins them, 16-bit numbers halve what they move"
        )
    else:
        code = "mixed"
        text = (
            f"no kind of work is half of the time: {first} is the most, {_percent(kinds.get(first, 0.0) / computing)}"
        )
    shares = {"data": waited, "computing": busy, "update": update, "products": products, "moving": moving}
    return {"code": code, "text": f"{code}: {text}", "shares": shares}


def list_profiles(run: RunDirectory) -> list[dict[str, Any]]:
    """What every profile of a run says, by step; without those that were cut off. Raises: StorageError."""
    return [
        dict(run.read_json(path)) | {"path": path.parent.relative_to(run.path).as_posix()}
        for path in sorted((run.artifacts / FOLDER).glob(f"step-*/{SUMMARY}"))
    ]


def render_profiles(profiles: Sequence[Mapping[str, Any]], run: str) -> str:
    """All of them as text; it ends with where to look further."""
    if not profiles:
        return (
            f"{printable(run)} has no profile: train with profile.steps=100..110, or put a file PROFILE into the run "
            "while it goes on"
        )
    texts = [render_profile(profile) for profile in profiles]
    where = f"{printable(run)}/{profiles[-1]['path']}"
    texts.append(
        f"traces: open {where}/{TRACE} in https://ui.perfetto.dev, or all of them in TensorBoard with its plugin for "
        "profiles (torch-tb-profiler)"
    )
    return "\n\n".join(texts)


def render_profile(profile: Mapping[str, Any], rows: int = 12) -> str:
    """One profile: steps, parts, kinds, the first operators, memory, counters, and what it is bound by."""
    first, last = profile["first_step"], profile["last_step"]
    steps = f"step {format.count(first)}" + ("" if first == last else f" to {format.count(last)}")
    lines = [f"{steps}: {format.step_time(profile['step_seconds'])} a step, while it was profiled", ""]
    lines += _wrapped("bound by", profile["bottleneck"]["text"])
    step = profile["step_seconds"]
    lines += _wrapped("a step", _shares(profile["parts"], step))
    lines += _wrapped("computing", _shares(profile["kinds"], sum(profile["kinds"].values())))
    if counters := profile.get("counters"):
        lines += _wrapped(
            "counters",
            ", ".join(
                f"{name.removesuffix('_percent').replace('_', ' ')} {value:.0f} %" for name, value in counters.items()
            ),
        )
    if memory := profile.get("memory"):
        parts = sorted(memory["categories"].items(), key=lambda item: -item[1])
        told = ", ".join(f"{name} {format.size(value)}" for name, value in parts if value)
        lines += _wrapped("memory", f"{format.size(memory['peak_bytes'])} at most, in {memory['part']}: {told}")
    for note in profile.get("notes", ()):
        lines += _wrapped("note", str(note))
    return "\n".join([*lines, "", operators_table(profile["operators"][:rows], step)])


def operators_table(operators: Sequence[Mapping[str, Any]], step_seconds: float) -> str:
    """The operators as a table, in milliseconds and calls of a mean step."""
    rows = [("ms a step", "share", "calls", "kind", "operator")]
    for one in operators:
        share = one["seconds"] / step_seconds if step_seconds > 0 else 0.0
        name = printable(str(one["name"]), limit=80)
        rows.append((f"{1e3 * one['seconds']:.3f}", _percent(share), f"{one['calls']:g}", str(one["kind"]), name))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
        lines.append("  ".join([*cells, row[3].ljust(widths[3]), row[4]]))
    return "\n".join(lines)


def _shares(parts: Mapping[str, float], whole: float) -> str:
    some = sorted(((name, value) for name, value in parts.items() if value > 0), key=lambda item: -item[1])
    return ", ".join(f"{name.replace('_', ' ')} {_percent(value / whole)}" for name, value in some)


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %" if part < 0.0995 else f"{100 * part:.0f} %"


def _wrapped(label: str, text: str) -> list[str]:
    from trimtab.runs.summary import wrapped

    return [f"  {label if not index else '':<11} {line}" for index, line in enumerate(wrapped(text))]
