"""fp16-without-cuda: float16 is asked for where there may be no CUDA device.

Looks for: `training.precision.name` fp16 with a device other than `cuda`.
Why: processors compute float16 slowly or by way of float32, so it costs range and gains nothing; bf16 has the
    range of float32 and needs no loss scaling.
Evidence: `training.precision`, `training.device`.
Remedy: `training.precision.name=bf16`, or fp32 on a processor.
False alarms: `device: auto` on a machine with CUDA.
Source: Micikevicius et al. 2018, arXiv 1710.03740; own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Tells of fp16 off CUDA; the fact `device` settles what `auto` leaves open."""
    device = str(facts.get("device", config.training.device))
    if config.training.precision.name == "fp16" and not device.startswith("cuda"):
        yield LintFinding(
            "fp16-without-cuda",
            "info",
            "training.precision.name",
            f"fp16 on the device {device!r}",
            "off CUDA it costs range and gains no speed; bf16 needs no loss scaling",
            "training.precision.name=bf16",
            "Micikevicius et al. 2018, arXiv 1710.03740",
        )
