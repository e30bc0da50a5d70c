"""What the machine does while a run goes on: processor, memory, disk, network, GPU and energy, read by a thread."""

from trimtab.monitor.hardware.counters import GpuCounters, NoCounters
from trimtab.monitor.hardware.gpu import Gpu, NvmlSession, open_gpu
from trimtab.monitor.hardware.host import Host
from trimtab.monitor.hardware.rapl import Rapl
from trimtab.monitor.hardware.sampler import Sampler, Source

__all__ = ["Gpu", "GpuCounters", "Host", "NoCounters", "NvmlSession", "Rapl", "Sampler", "Source", "open_gpu"]
