"""What devices can do: one literal table, and what is known of this machine without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, final

from trimtab.errors import UsageError
from trimtab.runs.company import WORTH_TELLING, OtherPrograms
from trimtab.runs.environment import cpu_model, usable_cores, usable_memory_bytes

Products = Literal["fp32", "tf32", "bf16", "fp16"]


@final
@dataclass(frozen=True, slots=True)
class Device:
    """Ceilings of one device. Rates are a second's: floating-point operations, or bytes."""

    name: str
    kind: Literal["cuda", "cpu"]
    description: str
    memory_bytes: float
    peak: dict[str, float]
    """Products of matrices, by precision, as the data sheet says: what utilization is held against."""
    ceiling: dict[str, float]
    """Products of large square matrices, by precision, as they come out."""
    products: dict[str, float]
    """Products of a model's matrices, by precision, as they come out."""
    bytes_per_second: float
    """Read and written by kernels that do little else."""
    cache_bytes: float
    """Tensors up to this size are read from a cache, at `cache_bytes_per_second`."""
    cache_bytes_per_second: float
    attention: dict[int, float]
    """Plain causal attention in 16 bits, forward and backward, by width of a head."""
    attention_length: int | None
    """Positions at which that was measured, where shorter sequences come out lower; None where one rate serves."""
    masked_attention: float
    """The same under a mask, where the whole square is computed."""
    kernel_seconds: float
    """What each kernel takes besides its work: begin, end, and waves that are not full."""
    launch_seconds: float
    """What the host takes to start one, where no graph replays them."""
    watts: float | None
    """The most that the board draws; None where that is not known."""
    measured: str
    """Which of these were measured, and where the others are from."""
    spread: float
    """By what part of it a predicted time is off, either way, as far as that is known."""
    busy_cores: float = 0.0
    """Of a processor, how many of its cores other programs took when it was looked at."""
    cores: int | None = None

    @property
    def company(self) -> float:
        """How many times as long a step may take beside what else the machine did when it was looked at."""
        if self.cores is None or self.busy_cores < WORTH_TELLING:
            return 1.0
        return self.cores / max(self.cores - self.busy_cores, self.cores / 4)

    def attention_rate(self, head_size: int, length: int) -> float:
        """Of plain causal attention, by the next narrower head in the table, or the narrowest in proportion.

        Shorter sequences by the square root of their length, where that matters.
        """
        known = sorted(self.attention)
        shorter = 1.0 if self.attention_length is None else min(1.0, (length / self.attention_length) ** 0.5)
        if head_size < known[0]:
            return shorter * self.attention[known[0]] * head_size / known[0]
        return shorter * self.attention[max(size for size in known if size <= head_size)]


_H100: Final = Device(
    name="h100",
    kind="cuda",
    description="NVIDIA H100 80GB SXM",
    memory_bytes=80e9,
    peak={"bf16": 989e12, "fp16": 989e12, "tf32": 494e12, "fp32": 67e12},
    ceiling={"bf16": 757e12, "fp16": 757e12, "tf32": 378e12, "fp32": 54e12},
    products={"bf16": 700e12, "fp16": 700e12, "tf32": 350e12, "fp32": 50e12},
    bytes_per_second=3.03e12,
    cache_bytes=0.0,
    cache_bytes_per_second=3.03e12,
    attention={64: 249e12, 128: 306e12},
    attention_length=None,
    masked_attention=92e12,
    kernel_seconds=5e-6,
    launch_seconds=40e-6,
    watts=700.0,
    measured="bf16 products (92 % of 757 TFLOP/s), copies and attention at 1,024 tokens were measured on one H100; "
    "tf32, fp32 and longer sequences were not",
    spread=0.15,
)


def _from_data_sheet(
    name: str, description: str, *, memory: float, bf16: float, tf32: float, fp32: float, bandwidth: float, watts: float
) -> Device:
    """A GPU that was never measured here: of its data sheet's figures it reaches the part that the H100 does."""
    compute, memory_part = bf16 / _H100.peak["bf16"], _H100.bytes_per_second / 3.35e12
    peak = {"bf16": bf16, "fp16": bf16, "tf32": tf32, "fp32": fp32}
    ceiling = {key: value * _H100.ceiling[key] / _H100.peak[key] for key, value in peak.items()}
    return replace(
        _H100,
        name=name,
        description=description,
        memory_bytes=memory,
        peak=peak,
        ceiling=ceiling,
        products={key: value * _H100.products[key] / _H100.ceiling[key] for key, value in ceiling.items()},
        bytes_per_second=bandwidth * memory_part,
        cache_bytes_per_second=bandwidth * memory_part,
        attention={size: rate * compute for size, rate in _H100.attention.items()},
        masked_attention=_H100.masked_attention * compute,
        watts=watts,
        measured="nothing was measured on it: the part of the data sheet's figures that an H100 reaches",
        spread=0.3,
    )


DEVICES: Final[dict[str, Device]] = {
    "h100": _H100,
    "h200": _from_data_sheet(
        "h200",
        "NVIDIA H200 141GB SXM",
        memory=141e9,
        bf16=989e12,
        tf32=494e12,
        fp32=67e12,
        bandwidth=4.8e12,
        watts=700.0,
    ),
    "a100": _from_data_sheet(
        "a100",
        "NVIDIA A100 80GB SXM",
        memory=80e9,
        bf16=312e12,
        tf32=156e12,
        fp32=19.5e12,
        bandwidth=2.039e12,
        watts=400.0,
    ),
    "rtx4090": _from_data_sheet(
        "rtx4090",
        "NVIDIA GeForce RTX 4090",
        memory=24e9,
        bf16=165.2e12,
        tf32=82.6e12,
        fp32=82.6e12,
        bandwidth=1.008e12,
        watts=450.0,
    ),
    "cpu": Device(
        name="cpu",
        kind="cpu",
        description="2 cores of an AMD EPYC with AVX-512 and bf16 instructions",
        memory_bytes=24e9,
        peak={"bf16": 1_000e9, "fp32": 230e9},
        ceiling={"bf16": 1_000e9, "fp32": 230e9},
        products={"bf16": 960e9, "fp32": 225e9},
        bytes_per_second=40e9,
        cache_bytes=8e6,
        cache_bytes_per_second=50e9,
        attention={32: 99e9, 64: 121e9, 128: 139e9},
        attention_length=1024,
        masked_attention=40e9,
        kernel_seconds=30e-6,
        launch_seconds=0.0,
        watts=None,
        measured="products, copies and plain attention were measured on that processor, attention with one thread",
        spread=0.25,
    ),
}
"""By the name that `--device` takes. `this` is not in it: `this_machine` finds it."""

_NUMPY_SPEED: Final = 128e9
"""What numpy's product of fp32 matrices comes to with one thread on the processor of `DEVICES["cpu"]`, of 2 cores."""
_TIMED: Final = """
import time
import numpy as np
a, x = np.ones((512, 512), np.float32), np.ones(8_000_000, np.float32)
y = np.empty_like(x)
for work, amount in ((lambda: a @ a, 2 * 512**3), (lambda: np.copyto(y, x), 2 * x.nbytes)):
    best, ends, rounds = float("inf"), time.perf_counter() + 0.15, 0
    while rounds < 12 or time.perf_counter() < ends:
        begun = time.perf_counter()
        work()
        best, rounds = min(best, time.perf_counter() - begun), rounds + 1
    print(amount / best)
"""
"""The best of many, with one thread: what else the machine does hardly disturbs it."""
_GPUS: Final = {"H200": "h200", "H100": "h100", "A100": "a100", "RTX 4090": "rtx4090"}


def find_device(name: str) -> Device:
    """The device of that name; `this` is the machine that asks. Raises: UsageError for one that is not known."""
    if name == "this":
        return this_machine()
    if name not in DEVICES:
        raise UsageError(f"--device: must be {', '.join(DEVICES)} or this. Received: {name!r}")
    return DEVICES[name]


def this_machine() -> Device:
    """The GPU that nvidia-smi names first, or this processor, whose products are timed for a moment with numpy.

    Raises: UsageError for a GPU that the table does not have.
    """
    gpu = _first_gpu()
    if gpu is None:
        return _this_processor()
    label, memory_bytes, watts = gpu
    known = named(label)
    if known is None:
        raise UsageError(
            f"--device this: the ceilings of {label} are not known here",
            hint=f"name the nearest: {', '.join(DEVICES)}",
        )
    device = DEVICES[known]
    return replace(device, description=label, memory_bytes=memory_bytes, watts=watts or device.watts)


def named(label: str) -> str | None:
    """The name in the table of a GPU that calls itself `label`."""
    return next((name for part, name in _GPUS.items() if part in label), None)


def has_nvidia_driver() -> bool:
    """Whether this machine has NVIDIA's driver and a GPU, as far as that is seen without torch."""
    return any(Path("/proc/driver/nvidia/gpus").glob("*"))


def _first_gpu() -> tuple[str, float, float | None] | None:
    """Name, bytes of memory and power limit of the first GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    fields = "--query-gpu=name,memory.total,power.limit"
    command = [program, fields, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        name, memory, watts = (part.strip() for part in answer.splitlines()[0].split(","))
        limit = float(watts) if watts.replace(".", "", 1).isdigit() else None
        return name, float(memory) * 1024**2, limit
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _this_processor() -> Device:
    known = DEVICES["cpu"]
    others, own = OtherPrograms(), _seconds_of_children()
    product_speed, copying = _numpy_speeds()
    busy = max(0.0, others.cores() - (_seconds_of_children() - own) / others.seconds)
    speed = product_speed * usable_cores() / (2 * _NUMPY_SPEED)
    knows_bf16 = _has_bf16()
    precisions = ("bf16", "fp32") if knows_bf16 else ("fp32",)
    return replace(
        known,
        name="this",
        description=f"this processor: {usable_cores()} cores of {cpu_model()}",
        memory_bytes=float(usable_memory_bytes()),
        peak={key: known.peak[key] * speed for key in precisions},
        ceiling={key: known.ceiling[key] * speed for key in precisions},
        products={key: known.products[key] * speed for key in precisions},
        bytes_per_second=copying,
        cache_bytes_per_second=copying * known.cache_bytes_per_second / known.bytes_per_second,
        attention={size: rate * speed for size, rate in known.attention.items()},
        masked_attention=known.masked_attention * speed,
        measured="products of fp32 and copies were timed just now with one thread of numpy; the rest is in "
        f"proportion to the processor of --device cpu{'' if knows_bf16 else ', and it has no instructions for bf16'}",
        busy_cores=round(busy, 1),
        cores=usable_cores(),
    )


def _seconds_of_children() -> float:
    """Of the processor, in processes that this one began and waited for."""
    times = os.times()
    return times.children_user + times.children_system


def _numpy_speeds() -> tuple[float, float]:
    """Operations a second of a product, and bytes a second of a copy, with one thread of numpy.

    In a process of its own, because a library takes its number of threads when it is loaded.
    """
    one = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", _TIMED], capture_output=True, text=True, check=True, env=os.environ | one
    )
    product, copy = done.stdout.split()
    return float(product), float(copy)


def _has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(name in flags for name in ("avx512_bf16", "amx_bf16", " bf16 "))
