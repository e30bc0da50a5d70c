"""Running out of memory: how it is told from other errors, what there is, and what a program took at its peak."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol, final

import torch

from trimtab.errors import ResourceError

_CPU_PART: Final = 0.8
_CUDA_PART: Final = 0.9
"""Of what is free when the search begins: evaluation, checkpoints and fragmentation need the rest."""
_TEXTS: Final = ("can't allocate memory", "not enough memory", "bad_alloc", "ALLOC_FAILED", "CUDA error: out of memory")
"""What errors without a class of their own say, of a CPU's allocator and of CUDA's libraries."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return type(error) is RuntimeError and any(text in str(error) for text in _TEXTS)


def first_line(error: BaseException) -> str:
    """What `error` says, in a line."""
    lines = str(error).splitlines()
    return lines[0] if lines else "the system gave no more"


_HALVE: Final = (
    "halve training.micro_batch_size and double training.accumulation: the result is the same; or take a smaller model"
)


@contextmanager
def out_of_memory_explained(where: str = "", hint: str = _HALVE) -> Iterator[None]:
    """Turn every form of running out of memory into a ResourceError that says `where`, and what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(f"out of memory{where and ' ' + where}: {first_line(error)}", hint=hint) from error


def free_memory(device: torch.device) -> None:
    """Give back what nothing holds any longer."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


class MemoryMeter(Protocol):
    """Measures what a program takes at its peak, and says how much there is for it."""

    @property
    def is_exact(self) -> bool:
        """Whether an allocation beyond what there is fails, and does no harm."""
        ...

    def start(self) -> float:
        """Begin anew; gives the bytes in use now."""
        ...

    def peak(self) -> float:
        """Bytes at the highest point since `start`."""
        ...

    def budget(self) -> float:
        """Bytes that may be used, what is in use now included."""
        ...


@final
class ProcessMemory:
    """The resident memory of this process. Without Linux's /proc the highest point is that of its whole life."""

    is_exact = False

    def start(self) -> float:
        """Begin anew."""
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        return _resident_bytes()

    def peak(self) -> float:
        """From the kernel's own mark."""
        with suppress(OSError, StopIteration, ValueError):
            lines = Path("/proc/self/status").read_text().splitlines()
            return float(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
        try:
            import resource
        except ImportError:  # Windows
            return _resident_bytes()
        unit = 1 if sys.platform == "darwin" else 1024
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit

    def budget(self) -> float:
        """Eight tenths of what is free and in use here, within the limit of a container."""
        import psutil

        there = float(psutil.virtual_memory().available) + _resident_bytes()
        with suppress(OSError, ValueError):
            there = min(there, float(Path("/sys/fs/cgroup/memory.max").read_text()))
        return _CPU_PART * there


@final
class CudaMemory:
    """What torch allocates on a CUDA device."""

    is_exact = True

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def start(self) -> float:
        """Begin anew."""
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        return float(torch.cuda.memory_allocated(self._device))

    def peak(self) -> float:
        """Waits for the device."""
        torch.cuda.synchronize(self._device)
        return float(torch.cuda.max_memory_allocated(self._device))

    def budget(self) -> float:
        """Nine tenths of what is free and held here."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return _CUDA_PART * float(free + torch.cuda.memory_reserved(self._device))


def memory_meter(device: torch.device) -> MemoryMeter:
    """What measures `device`."""
    return CudaMemory(device) if device.type == "cuda" else ProcessMemory()


def _resident_bytes() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss)


def accelerator_uuid(index: int) -> str:
    """The UUID of a CUDA device, whatever CUDA_VISIBLE_DEVICES makes its number."""
    return str(torch.cuda.get_device_properties(index).uuid)
