"""Choices made by measuring, once per run, and kept in plan.json."""

from __future__ import annotations

import copy
import ctypes
import gc
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal

import torch
from torch import nn

from trimtab.config import TrainingConfig
from trimtab.errors import ConfigError
from trimtab.model import Transformer, fuses_activation
from trimtab.planning import COMPILE_PAYS_AFTER_SECONDS
from trimtab.runs.environment import usable_cores
from trimtab.signals import Batch
from trimtab.training.capture import capture
from trimtab.training.checkpoint.model_state import modules_with_extra_state
from trimtab.training.precision import Precision, computes_in_bf16
from trimtab.training.step import Step

_COMPILE_PAYS_AFTER_SECONDS: Final = COMPILE_PAYS_AFTER_SECONDS
_WHOLE_PAYS_AFTER_SECONDS: Final = 900.0
"""On CUDA: the model in one takes 12 s more to compile than block by block, and gains 2 %."""
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


def gpu_name() -> str | None:
    """What the GPU is called; None where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def synchronizer(device: torch.device) -> Callable[[], None]:
    """Waits for all that is queued on `device`; a CPU queues nothing."""
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None


def set_threads(threads: int | Literal["auto"]) -> int:
    """Set torch's CPU threads: `threads`, or for 0 what torch takes, never more than the usable cores; gives them.

    For auto as for 0: what is quickest is known when there is a step to measure (threads.py).
    """
    chosen = threads if threads and threads != "auto" else min(torch.get_num_threads(), usable_cores())
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


def processor_speed() -> float:
    """Floating-point operations a second in the products of a small model's step, with torch's threads.

    In bf16 where the processor has it, as `training.precision=auto` computes. Takes a third of a second.
    """
    dtype = torch.bfloat16 if computes_in_bf16(torch.device("cpu")) else torch.float32
    a, b = torch.ones(1024, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)
    best, ends = float("inf"), time.perf_counter() + 0.3
    while time.perf_counter() < ends or best == float("inf"):
        begun = time.perf_counter()
        for _ in range(4):
            a @ b
        best = min(best, (time.perf_counter() - begun) / 4)
    return 2 * 1024 * 256 * 1024 / best


def choose_capture(config: TrainingConfig, device: torch.device, held_back: str | None) -> dict[str, Any]:
    """Whether the step is captured, and why; `held_back` names the part that does not allow it."""
    if config.capture == "off":
        return {"chosen": False, "reason": "training.capture is off"}
    if device.type != "cuda":
        return {"chosen": False, "reason": "graphs are for CUDA"}
    if held_back is not None:
        return {"chosen": False, "reason": f"not captured: {held_back}", "fallback": True}
    return {"chosen": True, "reason": "every part allows it"}


def choose_compile(
    config: TrainingConfig,
    step: Step,
    batch: Batch,
    compilable: bool,
    earlier: Mapping[str, Any] | None,
    report: Callable[[str, float], None] = lambda what, fraction: None,
    *,
    accumulation: int,
    captures: bool = False,
) -> dict[str, Any]:
    """Whether the model is compiled, and why; compiles it when it is. Weights and randomness stay untouched.

    With `captures` the step is captured, too, and what is measured are replays. `earlier` is the choice in plan.json,
    which a resumed run keeps.
    """
    if earlier is not None:
        if earlier["chosen"]:
            _compile(step.model, earlier.get("scope", "whole"))
        _ready(step, batch, accumulation, captures)
        return dict(earlier)
    if config.compile == "off":
        _ready(step, batch, accumulation, captures)
        return {"chosen": False, "reason": "training.compile is off"}
    if config.compile in ("on", "whole"):
        scope = _scope(step.model, config.compile)
        report("compiling the model", 0.0)
        begun = time.perf_counter()
        _compile(step.model, scope)
        _ready(step, batch, accumulation, captures)
        micro_batch_seconds(step, batch, 1)
        seconds = time.perf_counter() - begun
        reason = f"training.compile is {config.compile}"
        return {"chosen": True, "scope": scope, "reason": reason, "compile_seconds": seconds}
    if not compilable:
        _ready(step, batch, accumulation, captures)
        return {
            "chosen": False,
            "reason": "a model from outside, or one that is quantized, is compiled only with training.compile=on",
        }
    on_host = step.device.type == "cpu"
    # On CUDA a part of the batch says enough, and takes no memory that the compiled step does not need.
    part = batch if on_host else part_of(batch, 8)
    _ready(step, part, accumulation, captures)
    micro_batch_seconds(step, part, 1)
    eager_seconds = micro_batch_seconds(step, part, 3) * batch.tokens_BT.shape[0] / part.tokens_BT.shape[0]
    total_seconds = eager_seconds * accumulation * config.steps
    choice: dict[str, Any] = {"eager_seconds": eager_seconds, "expected_seconds": total_seconds}
    threshold = _COMPILE_PAYS_AFTER_SECONDS[step.device.type]
    if total_seconds < threshold:
        why = f"eager takes about {total_seconds:.0f} s in all; compiling is tried from {threshold:.0f} s on"
        _ready(step, batch, accumulation, captures and not on_host)
        return {"chosen": False, "reason": why, **choice}
    report("compiling, to measure it (training.compile=off leaves it)", 0.0)
    whole = on_host or total_seconds > _WHOLE_PAYS_AFTER_SECONDS
    choice["scope"] = scope = _scope(step.model, "whole" if whole else "on")
    begun = time.perf_counter()
    try:
        _compile(step.model, scope)
        _ready(step, batch, accumulation, captures)
        micro_batch_seconds(step, batch, 1)
        choice["compile_seconds"] = time.perf_counter() - begun
        choice["compiled_seconds"] = micro_batch_seconds(step, batch, 3)
    except Exception as error:  # the compiler and its back-ends raise errors of many kinds
        _uncompile(step.model)
        _ready(step, batch, accumulation, captures)
        return {
            "chosen": False,
            "reason": f"torch.compile failed: {type(error).__name__}: {error}"[:300],
            "fallback": True,
            **choice,
        }
    if not on_host:
        return {"chosen": True, "reason": f"training takes more than {threshold:.0f} s, so that it pays", **choice}
    gain = 1.0 - choice["compiled_seconds"] / eager_seconds
    if choice["compiled_seconds"] > _COMPILE_GAIN * eager_seconds:
        _uncompile(step.model)
        _ready(step, batch, accumulation, captures)
        return {"chosen": False, "reason": f"measured: compiled code is only {gain:.0%} faster", **choice}
    return {"chosen": True, "reason": f"measured: {gain:.0%} less time a micro-batch", **choice}


def choose_activation(
    config: TrainingConfig, model: nn.Module, device: torch.device, precision: Precision
) -> dict[str, Any]:
    """Whether the activation is computed within products of matrices, and why. Choose before anything is compiled."""
    if config.fused_activation == "off":
        return {"chosen": "apart", "reason": "training.fused_activation is off"}
    if (why_not := fuses_activation(model, device, precision.parameters)) is not None:
        return {"chosen": "apart", "reason": why_not}
    return {"chosen": "fused", "reason": "gelu_tanh with weights of 16 bits on CUDA"}


@contextmanager
def garbage_rests() -> Iterator[None]:
    """Within it what exists already is not searched for garbage, and the rest seldom: a search stops the host.

    What the program has frozen itself stays so.
    """
    gc.collect()
    freezes = gc.get_freeze_count() == 0
    if freezes:
        gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if freezes:
            gc.unfreeze()


def micro_batch_seconds(step: Step, batch: Batch, repeats: int) -> float:
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


def _ready(step: Step, batch: Batch, accumulation: int, captures: bool) -> None:
    """Capture what is to be measured, and kept."""
    if captures:
        step.captured = capture(step, batch, in_parts=accumulation > 1)


def part_of(batch: Batch, divisor: int) -> Batch:
    """The first rows of `batch`."""
    rows = max(1, batch.tokens_BT.shape[0] // divisor)
    return batch.each(lambda tensor: tensor[:rows])


def _scope(model: nn.Module, asked: str) -> str:
    """`blocks` where one compiled block serves for all, else `whole`."""
    return "blocks" if asked == "on" and isinstance(model, Transformer) else "whole"


def _compile(model: nn.Module, scope: str) -> None:
    if scope == "blocks" and isinstance(model, Transformer):
        for block in model.all_blocks:
            block.compile(dynamic=False)
    else:
        model.compile(dynamic=False)


def _uncompile(model: nn.Module) -> None:
    # nn.Module.compile keeps the compiled call here; without it the module runs as written.
    for module in (model, *(model.all_blocks if isinstance(model, Transformer) else ())):
        module._compiled_call_impl = None
