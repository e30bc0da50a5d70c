"""What a GPU's own performance counters (NVML's GPM, since Hopper) say of a stretch of time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, final

from trimtab.monitor.hardware.gpu import Gpu

_METRICS: Final = {2: "sm_busy_percent", 3: "sm_occupancy_percent", 5: "tensor_percent", 10: "dram_bandwidth_percent"}
"""NVML_GPM_METRIC_… SM_UTIL, SM_OCCUPANCY, ANY_TENSOR_UTIL, DRAM_BW_UTIL."""


@final
class GpuCounters:
    """Two samples, and what lies between them."""

    def __init__(self, gpu: Gpu) -> None:
        self._nvml, self._handle = gpu.session.nvml, gpu.handle
        self._first: Any = None

    def begin(self) -> str:
        """Take the first sample; gives "", or a line on why there will be no values."""
        self._first = None
        try:
            if not self._nvml.nvmlGpmQueryDeviceSupport(self._handle).isSupportedDevice:
                return "GPU counters: this GPU has none that NVML gives (GPM is Hopper's and newer)"
            self._first = self._sample()
        except (self._nvml.NVMLError, AttributeError) as error:
            return f"GPU counters are not read: {error}"
        return ""

    def end(self) -> tuple[Mapping[str, float], str]:
        """Values in percent since `begin`, or a line on why there are none."""
        first, self._first = self._first, None
        if first is None:
            return {}, ""
        nvml, last = self._nvml, None
        try:
            last = self._sample()
            asked = nvml.c_nvmlGpmMetricsGet_t()
            asked.version = nvml.NVML_GPM_METRICS_GET_VERSION
            asked.numMetrics = len(_METRICS)
            asked.sample1, asked.sample2 = first, last
            for index, number in enumerate(_METRICS):
                asked.metrics[index].metricId = number
            nvml.nvmlGpmMetricsGet(asked)
            answers = zip(_METRICS.values(), asked.metrics, strict=False)
            found = {name: float(one.value) for name, one in answers if one.nvmlReturn == nvml.NVML_SUCCESS}
            # Over too short a stretch some are not a number.
            finite = {name: value for name, value in found.items() if math.isfinite(value)}
            return finite, "" if finite else "GPU counters: the steps were over before any was counted"
        except (nvml.NVMLError, AttributeError) as error:
            return {}, f"GPU counters are not read: {error}"
        finally:
            for sample in (first, last):
                if sample is not None:
                    nvml.nvmlGpmSampleFree(sample)

    def _sample(self) -> Any:
        sample = self._nvml.nvmlGpmSampleAlloc()
        try:
            self._nvml.nvmlGpmSampleGet(self._handle, sample)
        except self._nvml.NVMLError:
            self._nvml.nvmlGpmSampleFree(sample)
            raise
        return sample


@final
class NoCounters:
    """Where there are none, and why."""

    def __init__(self, why: str) -> None:
        self._why = why

    def begin(self) -> str:
        """Gives the reason."""
        return self._why

    def end(self) -> tuple[Mapping[str, float], str]:
        """Nothing."""
        return {}, ""
