"""What is measured of a run's machine and pace while it goes on, opened for as long as an attempt lasts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self, final

import torch

from trimtab.assembly import Parts
from trimtab.config import Config
from trimtab.errors import TrimtabError
from trimtab.model import Decoder, Encoder, flops_per_token, translates
from trimtab.monitor.hardware import Gpu, GpuCounters, Host, NoCounters, Rapl, Sampler, Source, open_gpu
from trimtab.planning import DEVICES, count_model, predict
from trimtab.planning.reached import as_chosen
from trimtab.runs import RunDirectory
from trimtab.training import Progress
from trimtab.training.memory import accelerator_uuid
from trimtab.training.profiler import StepProfiler


@final
class Measuring:
    """Splits the time of steps, tells utilization, and reads the machine; all into the values of windows."""

    def __init__(
        self,
        config: Config,
        run: RunDirectory,
        parts: Parts,
        progress: Progress,
        plan: Mapping[str, Any],
        facts: Mapping[str, Any],
    ) -> None:
        self.notes: list[str] = []
        """What cannot be read here, a line each."""
        hardware, timer = config.hardware, parts.step.timer
        timer.every, timer.per_position = hardware.split_every, _rates(config, parts, plan, facts)
        self._sources: list[Source] = []
        self.gpu: Gpu | None = None
        if hardware.every_seconds:
            self._sources = [Host(run.path)]
            if (processors := Rapl.open()) is not None:
                self._sources.append(processors)
        counters: GpuCounters | NoCounters | None = None
        if parts.device.type == "cuda":
            counters = self._open_gpu(parts.device, samples=hardware.every_seconds > 0)
        self._sampler = Sampler(self._sources, hardware.every_seconds)
        self.profiler = StepProfiler(config.profile, run, parts.step, progress, counters)
        parts.windows.gauges = (timer, self._sampler)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        if self.gpu is not None:
            self._open.callback(self.gpu.session.close)
        self._open.enter_context(self._sampler)
        self._open.callback(self.profiler.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _open_gpu(self, device: torch.device, *, samples: bool) -> GpuCounters | NoCounters:
        index = torch.cuda.current_device() if device.index is None else device.index
        self.gpu, why_not = open_gpu(accelerator_uuid(index), f"gpu{index}")
        if self.gpu is None:
            self.notes += [why_not] if samples else []
            return NoCounters(why_not)
        self._sources += [self.gpu] if samples else []
        return GpuCounters(self.gpu)


def _rates(config: Config, parts: Parts, plan: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, float]:
    """Metric to what each position of a batch adds to it, a second."""
    rates: dict[str, float] = {}
    flops = flops_per_position(config, parts, facts)
    if flops and plan["peak"]["chosen"]:
        rates["mfu"] = flops / plan["peak"]["chosen"]
    # A model from outside, a precision that planning does not know; and no estimate is worth a run.
    with suppress(Exception):
        gpu = DEVICES["h100"] if parts.device.type == "cuda" else DEVICES["cpu"]  # for which ways, not for its rates
        found = predict(
            as_chosen(config, plan),
            gpu,
            compiled=plan["compile"]["chosen"],
            micro_batch_size=plan["micro_batch"]["chosen"],
        )
        if "model" not in facts.get("given", ()):
            rates["memory_bytes_per_second"] = sum(part.bytes for part in found.parts) / found.tokens_per_step
    return rates


def flops_per_position(config: Config, parts: Parts, facts: Mapping[str, Any]) -> float | None:
    """Of training, for each position of the (first) sequence, as utilization counts them; None where nobody knows."""
    model, length = parts.model, config.data.sequence_length
    if isinstance(model, Decoder | Encoder) and not translates(model):
        return flops_per_token(model, length, causal=False)["training"]
    if known := facts.get("flops_per_token"):  # a model from outside, counted by running it
        return float(known["training"])
    with suppress(TrimtabError):
        return count_model(config).training_flops(square=True) / length
    return None
