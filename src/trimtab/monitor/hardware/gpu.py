"""An NVIDIA GPU, by way of NVML (the package nvidia-ml-py): utilization, memory, power, clocks, energy.

GPUs are found by the UUID that CUDA gives, so that CUDA_VISIBLE_DEVICES, in whatever form, means here what it means to
torch. Without the package, the driver or a right to ask, one line says what is missing.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any, Final, final

from trimtab.monitor.hardware.sampler import JOULES

_THROTTLES: Final = {
    "throttled_power": 0x4 | 0x80,  # the software's cap, the hardware's brake
    "throttled_heat": 0x20 | 0x40,
    "throttled_hardware": 0x8,
}
"""NVML's reasons (nvmlClocksEventReason…) by what they come to: 1 while the clocks are held down for one of them."""
_TEMPERATURE_GPU: Final = 0
_CLOCK_SM, _CLOCK_MEMORY = 1, 2


@final
class NvmlSession:
    """NVML, opened once; `close` gives it back."""

    def __init__(self, nvml: Any) -> None:
        self.nvml = nvml

    def close(self) -> None:
        """Leave it; that it fails harms nothing."""
        with suppress(self.nvml.NVMLError):
            self.nvml.nvmlShutdown()


@final
class Gpu:
    """One GPU, whose values are called `hardware/<name>/…`. What it does not tell is left out."""

    def __init__(
        self, session: NvmlSession, handle: Any, name: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.session, self.handle, self.name = session, handle, name
        self._clock, self._at = clock, clock()
        self._millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        self._watts: float | None = None

    def read(self) -> Mapping[str, float]:
        """Levels as they are; energy since the call before. Raises: NVMLError where not even memory is told."""
        values: dict[str, float] = {}
        now = self._clock()
        elapsed, self._at = now - self._at, now
        memory = self.session.nvml.nvmlDeviceGetMemoryInfo(self.handle)
        values["memory_bytes"] = float(memory.used)
        if (busy := self._ask("nvmlDeviceGetUtilizationRates")) is not None:
            values["utilization_percent"] = float(busy.gpu)
            values["memory_busy_percent"] = float(busy.memory)
        if (heat := self._ask("nvmlDeviceGetTemperature", _TEMPERATURE_GPU)) is not None:
            values["temperature_celsius"] = float(heat)
        for name, kind in (("sm_clock_mhz", _CLOCK_SM), ("memory_clock_mhz", _CLOCK_MEMORY)):
            if (clock := self._ask("nvmlDeviceGetClockInfo", kind)) is not None:
                values[name] = float(clock)
        if (reasons := self._ask("nvmlDeviceGetCurrentClocksEventReasons")) is not None:
            values |= {name: float(bool(reasons & bits)) for name, bits in _THROTTLES.items()}
        milliwatts = self._ask("nvmlDeviceGetPowerUsage")
        if milliwatts is not None:
            values["power_watts"] = milliwatts / 1e3
        found = {f"hardware/{self.name}/{name}": value for name, value in values.items()}
        return found | self._energy(values.get("power_watts"), elapsed)

    def _energy(self, watts: float | None, elapsed: float) -> dict[str, float]:
        """By the GPU's own counter, or where it has none from its power, by trapezoids."""
        before, self._millijoules = self._millijoules, self._ask("nvmlDeviceGetTotalEnergyConsumption")
        earlier, self._watts = self._watts, watts
        if before is not None and self._millijoules is not None and self._millijoules >= before:
            return {JOULES: (self._millijoules - before) / 1e3}
        if watts is None:
            return {}
        return {JOULES: elapsed * (watts + (watts if earlier is None else earlier)) / 2.0}

    def _ask(self, name: str, *arguments: Any) -> Any:
        """What NVML answers; None for what this GPU, its driver or this package does not tell."""
        nvml = self.session.nvml
        try:
            return getattr(nvml, name)(self.handle, *arguments)
        except (nvml.NVMLError, AttributeError):
            return None


def open_gpu(uuid: str, name: str, nvml: ModuleType | None = None) -> tuple[Gpu | None, str]:
    """The GPU of that UUID, as CUDA gives it, or None and a line on why its values are not read."""
    lacking = "power, clocks and counters of the GPU are not read"
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return None, f"{lacking}: nvidia-ml-py is missing; pip install 'trimtab[gpu]'"
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return None, f"{lacking}: NVML: {error}"
    session = NvmlSession(nvml)
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
        return Gpu(session, handle, name), ""
    except nvml.NVMLError as error:
        session.close()
        return None, f"{lacking}: NVML: {error} ({uuid})"
