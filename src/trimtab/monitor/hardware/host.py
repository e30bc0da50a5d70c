"""The host: processor, memory, swap, disk and network."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import final

import psutil


@final
class Host:
    """Reads what psutil tells; what this system does not tell is left out."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`folder` lies on the disk whose free space is told."""
        self._folder, self._clock = folder, clock
        self._process = psutil.Process()
        self._before: dict[str, float] = {}
        self._at = clock()
        self.read()

    def read(self) -> Mapping[str, float]:
        """Levels as they are; rates since the call before."""
        now = self._clock()
        elapsed, self._at = now - self._at, now
        values: dict[str, float] = {}
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        values["hardware/memory_available_bytes"] = float(memory.available)
        values["hardware/swap_bytes"] = float(swap.used)
        with suppress(OSError, AttributeError):
            values["hardware/load"] = os.getloadavg()[0]
        with suppress(OSError, psutil.Error):
            values["hardware/process_memory_bytes"] = float(self._process.memory_info().rss)
        with suppress(OSError):
            values["hardware/disk_free_bytes"] = float(psutil.disk_usage(str(self._folder)).free)
        spent = self._spent()
        gone = {name: value - self._before[name] for name, value in spent.items() if name in self._before}
        self._before = spent
        if (whole := gone.pop("all", 0.0)) > 0:
            values["hardware/cpu_percent"] = 100.0 * min(1.0, max(0.0, 1.0 - gone.pop("idle") / whole))
        gone.pop("idle", None)
        if elapsed > 0:
            if (busy := gone.pop("process", None)) is not None:
                values["hardware/process_cpu_percent"] = 100.0 * max(0.0, busy) / elapsed
            values |= {name: max(0.0, amount) / elapsed for name, amount in gone.items() if name != "process"}
        return values

    def _spent(self) -> dict[str, float]:
        """Counters that only rise."""
        times = psutil.cpu_times()
        spent = {
            # What guests of this machine used is in user and nice already.
            "all": sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0),
            "idle": times.idle + getattr(times, "iowait", 0.0),
        }
        with suppress(OSError, psutil.Error):
            own = self._process.cpu_times()
            spent["process"] = own.user + own.system
        with suppress(OSError, RuntimeError):
            if (disk := psutil.disk_io_counters()) is not None:
                spent["hardware/disk_read_bytes_per_second"] = float(disk.read_bytes)
                spent["hardware/disk_written_bytes_per_second"] = float(disk.write_bytes)
        with suppress(OSError, RuntimeError):
            if (network := psutil.net_io_counters()) is not None:
                spent["hardware/network_received_bytes_per_second"] = float(network.bytes_recv)
                spent["hardware/network_sent_bytes_per_second"] = float(network.bytes_sent)
        return spent
