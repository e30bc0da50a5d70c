"""The energy of processors, from Linux's RAPL counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

from trimtab.monitor.hardware.sampler import JOULES

FOLDER: Final = Path("/sys/class/powercap")
_MICRO: Final = 1e-6


@dataclass(slots=True)
class _Package:
    counter: Path
    range_joules: float
    """Where the counter begins anew."""
    before: float


@final
class Rapl:
    """The energy of all packages together: `joules` and, from them, `hardware/cpu_power_watts`."""

    def __init__(self, packages: list[_Package], clock: Callable[[], float]) -> None:
        self._packages, self._clock = packages, clock
        self._at = clock()

    @classmethod
    def open(cls, folder: Path = FOLDER, *, clock: Callable[[], float] = time.monotonic) -> Self | None:
        """What can be read there; None in most virtual machines, and where only root may."""
        packages = []
        # intel-rapl:0 is a package (AMD's, too); intel-rapl:0:0, a part of it, would count twice.
        for one in sorted(folder.glob("intel-rapl:*")):
            if one.name.count(":") == 1:
                with suppress(OSError, ValueError):
                    if (one / "name").read_text().strip().startswith("package"):
                        reach = _joules(one / "max_energy_range_uj")
                        packages.append(_Package(one / "energy_uj", reach, _joules(one / "energy_uj")))
        return cls(packages, clock) if packages else None

    def read(self) -> Mapping[str, float]:
        """Since the call before. Raises: OSError, ValueError."""
        now, joules = self._clock(), 0.0
        for package in self._packages:
            value = _joules(package.counter)
            joules += value - package.before + (package.range_joules if value < package.before else 0.0)
            package.before = value
        elapsed, self._at = now - self._at, now
        return {JOULES: joules} | ({"hardware/cpu_power_watts": joules / elapsed} if elapsed > 0 else {})


def _joules(path: Path) -> float:
    return int(path.read_text()) * _MICRO
