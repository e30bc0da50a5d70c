"""Where the time of a step went, and what the machine did meanwhile: means over a run, and in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from trimtab.events import StepsEnded
from trimtab.runs import format
from trimtab.runs.history import Series

_PREFIXES: Final = ("time/", "hardware/")
_NAMES: Final = ("mfu", "memory_bytes_per_second", "step_seconds", "data_seconds")
_ENERGY: Final = "hardware/energy_wh"
_WARMUP: Final = 2
"""First steps, which compile, capture and fill caches."""
_WORTH_SAYING: Final = 0.05
"""Of the readings with clocks held down."""


def means_of(windows: Iterable[StepsEnded]) -> dict[str, float]:
    """Each metric of pace and machine, as the mean of a step; energy as the sum. {} where nothing was measured."""
    totals: dict[str, float] = {}
    weights: dict[str, float] = {}
    for window in windows:
        steps = window.last_step - window.first_step + 1
        if (spent := window.values.get(_ENERGY)) is not None:
            totals[_ENERGY] = totals.get(_ENERGY, 0.0) + spent
        if window.last_step <= _WARMUP:
            continue
        found = dict(window.values) | {
            name: float(np.mean(window.per_step[name])) for name in _NAMES if name in window.per_step
        }
        for name, value in found.items():
            if name != _ENERGY and _belongs(name) and np.isfinite(value):
                totals[name] = totals.get(name, 0.0) + steps * value
                weights[name] = weights.get(name, 0.0) + steps
    return {name: total / weights.get(name, 1.0) for name, total in totals.items()}


def means_of_series(series: Mapping[str, Series]) -> dict[str, float]:
    """The same of a history, whose values have the weight of one each."""
    means: dict[str, float] = {}
    for name, one in series.items():
        if not _belongs(name) or not len(one):
            continue
        if name == _ENERGY:
            means[name] = float(one.columns.total.sum())
            continue
        late = one.steps > _WARMUP
        number = float((one.columns.samples - one.bad)[late].sum())
        if number:
            means[name] = float(one.columns.total[late].sum()) / number
    return means


def parts_of(means: Mapping[str, float]) -> dict[str, float]:
    """Seconds of a mean step by part, the longest first, `data` and `other` among them; {} where none was split."""
    parts = {name[5:-8]: value for name, value in means.items() if name.startswith("time/")}
    step = means.get("step_seconds", 0.0)
    if step <= 0 or not {"forward", "accumulate"} & set(parts):
        return {}
    parts["data"] = means.get("data_seconds", 0.0)
    parts["other"] = max(0.0, step - sum(parts.values()))
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


def describe_parts(means: Mapping[str, float]) -> str:
    """Where the time of a step goes, in a line: `backward 60 %, forward 31 %, …`; "" where it was not split."""
    parts = parts_of(means)
    whole = sum(parts.values())
    told = [
        f"{name.replace('_', ' ')} {100 * value / whole:.{0 if value >= 0.0995 * whole else 1}f} %"
        for name, value in parts.items()
        if value >= 0.0005 * whole
    ]
    return ", ".join(told)


def describe_machine(means: Mapping[str, float]) -> str:
    """What the machine did, in a line: utilization, processor, memory, GPUs, energy; "" where nothing was read."""
    told: list[str] = []
    if (utilization := means.get("mfu")) is not None:
        told.append(f"MFU {100 * utilization:.1f} %")
    if (moved := means.get("memory_bytes_per_second")) is not None:
        told.append(f"about {format.size(moved)}/s of memory traffic (counted)")
    if (cpu := means.get("hardware/process_cpu_percent")) is not None:
        told.append(f"{cpu / 100:.1f} cores busy here")
    if (memory := means.get("hardware/process_memory_bytes")) is not None:
        told.append(f"{format.size(memory)} of memory")
    gpus = dict.fromkeys(name.split("/")[1] for name in means if name.startswith("hardware/gpu"))
    told += [_gpu(gpu, means) for gpu in gpus]
    if (energy := means.get(_ENERGY)) is not None:
        each = means.get("hardware/tokens_per_wh")
        told.append(f"{energy:.3g} Wh" + (f", {format.short(each)} tokens/Wh" if each else ""))
    return ", ".join(told)


def _gpu(gpu: str, means: Mapping[str, float]) -> str:
    def value(name: str) -> float | None:
        return means.get(f"hardware/{gpu}/{name}")

    told = []
    for name, unit in (
        ("utilization_percent", " % busy"),
        ("power_watts", " W"),
        ("temperature_celsius", " °C"),
        ("sm_clock_mhz", " MHz"),
    ):
        if (found := value(name)) is not None:
            told.append(f"{found:.0f}{unit}")
    for name, why in (("throttled_power", "power"), ("throttled_heat", "heat"), ("throttled_hardware", "the board")):
        if (part := value(name)) is not None and part >= _WORTH_SAYING:
            told.append(f"clocks held down by {why} in {100 * part:.0f} % of the readings")
    return f"{gpu} ({', '.join(told)})"


def _belongs(name: str) -> bool:
    return name in _NAMES or name.startswith(_PREFIXES)
