"""Choices made by measuring, once per run, and kept in plan.json."""

from __future__ import annotations

import copy
import ctypes
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal

import torch
from torch import nn

from trimtab.config import TrainingConfig
from trimtab.errors import ConfigError, ResourceError
from trimtab.runs.environment import usable_cores
from trimtab.signals import Batch
from trimtab.training.checkpoint.model_state import modules_with_extra_state
from trimtab.training.step import Step

_COMPILE_PAYS_AFTER_SECONDS: Final = {"cpu": 600.0, "cuda": 120.0}
"""Of eager training: compiling takes a minute on a CPU, seconds on a GPU, and gains a part of the rest."""
_COMPILE_GAIN: Final = 0.97
"""Compiled code is kept when it takes less than this part of the eager time."""


def choose_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to train on. Raises: ConfigError when CUDA is asked for and not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "training.device: torch sees no CUDA device. Received: 'cuda'",
            hint="training.device=auto takes what is there; a GPU needs torch's CUDA build and a driver",
        )
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def synchronizer(device: torch.device) -> Callable[[], None]:
    """Waits for all that is queued on `device`; a CPU queues nothing."""
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None


def set_threads(threads: int) -> int:
    """Set torch's CPU threads: `threads`, or for 0 what torch takes, never more than the usable cores; gives them."""
    chosen = threads or min(torch.get_num_threads(), usable_cores())
    torch.set_num_threads(chosen)
    return chosen


def keep_freed_memory() -> bool:
    """Tell the C library's allocator to keep freed memory, instead of giving it back after every step; whether it took.

    On a CPU a step frees and asks for the same hundreds of megabytes again and again, and the kernel zeroes every
    page anew: on two cores this cost a third of the time of a small model's step (docs/benchmarks.md).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        # M_MMAP_MAX: nothing by mmap, which is unmapped when freed. M_TRIM_THRESHOLD: the heap's end stays.
        return bool(library.mallopt(-4, 0)) and bool(library.mallopt(-1, 2**31 - 1))
    except (OSError, AttributeError):  # another C library
        return False


def choose_compile(
    config: TrainingConfig,
    step: Step,
    batch: Batch,
    compilable: bool,
    earlier: Mapping[str, Any] | None,
    report: Callable[[str, float], None] = lambda what, fraction: None,
) -> dict[str, Any]:
    """Whether the model is compiled, and why; compiles it when it is. Weights and randomness stay untouched.

    `earlier` is the choice in plan.json, which a resumed run keeps.
    """
    if earlier is not None:
        if earlier["chosen"]:
            _compile(step.model)
        return dict(earlier)
    if config.compile == "off":
        return {"chosen": False, "reason": "training.compile is off"}
    if config.compile == "on":
        report("compiling the model", 0.0)
        _compile(step.model)
        return {
            "chosen": True,
            "reason": "training.compile is on",
            "compile_seconds": _seconds(step, batch, 1),
        }
    if not compilable:
        return {"chosen": False, "reason": "a model from outside is compiled only with training.compile=on"}
    _seconds(step, batch, 1)
    eager_seconds = _seconds(step, batch, 3)
    total_seconds = eager_seconds * config.accumulation * config.steps
    choice: dict[str, Any] = {"eager_seconds": eager_seconds, "expected_seconds": total_seconds}
    threshold = _COMPILE_PAYS_AFTER_SECONDS[step.device.type]
    if total_seconds < threshold:
        why = f"eager takes about {total_seconds:.0f} s in all; compiling is tried from {threshold:.0f} s on"
        return {"chosen": False, "reason": why, **choice}
    report("compiling, to measure it (training.compile=off leaves it)", 0.0)
    begun = time.perf_counter()
    try:
        _compile(step.model)
        _seconds(step, batch, 1)
        choice["compile_seconds"] = time.perf_counter() - begun
        choice["compiled_seconds"] = _seconds(step, batch, 3)
    except Exception as error:  # the compiler and its back-ends raise errors of many kinds
        _uncompile(step.model)
        return {
            "chosen": False,
            "reason": f"torch.compile failed: {type(error).__name__}: {error}"[:300],
            **choice,
        }
    gain = 1.0 - choice["compiled_seconds"] / eager_seconds
    if choice["compiled_seconds"] > _COMPILE_GAIN * eager_seconds:
        _uncompile(step.model)
        return {"chosen": False, "reason": f"measured: compiled code is only {gain:.0%} faster", **choice}
    return {"chosen": True, "reason": f"measured: {gain:.0%} less time a micro-batch", **choice}


@contextmanager
def out_of_memory_explained() -> Iterator[None]:
    """Turn every form of running out of memory into a ResourceError that says what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        texts = ("can't allocate memory", "not enough memory")  # a CPU's allocator has no class of its own
        if type(error) is RuntimeError and not any(text in str(error) for text in texts):
            raise
        raise ResourceError(
            f"out of memory: {str(error).splitlines()[0] if str(error) else 'the system gave no more'}",
            hint="halve training.micro_batch_size and double training.accumulation: the result is the same; "
            "or take a smaller model",
        ) from error


def _seconds(step: Step, batch: Batch, repeats: int) -> float:
    """Seconds of one micro-batch. Sums and gradients change, which the next step empties; the rest is put back."""
    batch = batch.to(step.device)
    keepers = modules_with_extra_state(step.model).values()
    kept = [copy.deepcopy(module.get_extra_state()) for module in keepers]
    buffers = [(buffer, buffer.clone()) for buffer in step.model.buffers()]
    begun = time.perf_counter()
    for _ in range(repeats):
        step.begin()
        step.accumulate(batch)
    step.begin()
    synchronizer(step.device)()
    seconds = time.perf_counter() - begun
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    for module, state in zip(keepers, kept, strict=True):
        module.set_extra_state(state)
    return seconds / repeats


def _compile(model: nn.Module) -> None:
    model.compile(dynamic=False)


def _uncompile(model: nn.Module) -> None:
    # nn.Module.compile keeps the compiled call here; without it the module runs as written.
    model._compiled_call_impl = None
