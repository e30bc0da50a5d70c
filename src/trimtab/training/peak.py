"""The peak that utilization is held against: declared, of a data sheet, or that of a large product, measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import torch

from trimtab.planning.devices import DEVICES, named
from trimtab.training.execution import synchronizer

_SIZES: Final = {"cpu": 512, "cuda": 8192}
_SECONDS: Final = 0.05


def choose_peak(
    declared: float | None, device: torch.device, precision: str, dtype: torch.dtype, earlier: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Floating-point operations a second, and where they are from; as the entry of plan.json.

    `precision` as the step's, `dtype` that of its products. `earlier` is what plan.json holds: what was measured when
    the run began stays, so that utilization means the same to its end.
    """
    if declared is not None:
        return {"chosen": declared, "reason": "hardware.peak_flops", "precision": precision}
    if device.type == "cuda":
        label = torch.cuda.get_device_name(device)
        # Of 8-bit products the table says nothing; the rest of a step in fp8 is in bf16.
        peaks = DEVICES[known].peak if (known := named(label)) is not None else {}
        if (peak := peaks.get("bf16" if precision == "fp8" else precision)) is not None:
            return {"chosen": peak, "reason": f"the data sheet of {label}", "precision": precision}
    if earlier is not None and earlier.get("measured") and earlier.get("precision") == precision:
        return dict(earlier)
    reason = "the best of some large products, measured before step 1"
    return {"chosen": _measure(device, dtype), "reason": reason, "precision": precision, "measured": True}


def _measure(device: torch.device, dtype: torch.dtype) -> float:
    """Of a product of square matrices, with torch's threads: the best of twentieths of a second."""
    size, wait = _SIZES.get(device.type, 512), synchronizer(device)
    a = torch.ones(size, size, dtype=dtype, device=device)
    best, ends = float("inf"), time.perf_counter() + _SECONDS
    with torch.no_grad():
        while time.perf_counter() < ends or best == float("inf"):
            wait()
            begun = time.perf_counter()
            a @ a
            wait()
            best = min(best, time.perf_counter() - begun)
    return 2.0 * size**3 / best
