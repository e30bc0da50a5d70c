"""What a model costs to use: parameters, arithmetic, time, memory, and the part of the peak that is reached."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, final

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from trimtab.errors import UsageError
from trimtab.evaluation.device import device_of
from trimtab.model import EncoderDecoder, Outside, as_output, evaluating, parameter_counts, translates
from trimtab.planning import DEVICES, has_nvidia_driver
from trimtab.planning.devices import named, this_machine
from trimtab.signals import ModelOutput

_NARROW: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


@final
@dataclass(frozen=True, slots=True)
class Efficiency:
    """One forward pass of a batch, head included, in eval mode without gradients."""

    parameters: int
    trainable_parameters: int
    parameter_bytes: int
    batch_size: int
    sequence_length: int
    device: str
    precision: str
    flops: float
    """Of the pass: matrix products alone, 2 for each multiply-add, the whole square of an attention."""
    flops_per_token: float
    latency_seconds: float
    """Median over repeats."""
    latency_p90_seconds: float
    tokens_per_second: float
    flops_per_second: float
    peak_flops_per_second: float | None
    """Of the device in this precision, as given or as planning knows it."""
    model_flops_utilization: float | None
    """flops_per_second / peak_flops_per_second."""
    memory_bytes: int
    """Most allocated on the device during a pass, weights included; on a processor the resident set of the process."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def calculate_model_efficiency(
    model: nn.Module,
    input_size: int | Sequence[int] | None = None,
    device: torch.device | str | None = None,
    *,
    sequence_length: int | None = None,
    batch_size: int = 1,
    inputs: Mapping[str, Tensor] | None = None,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    repeats: int = 20,
    warmup: int = 3,
    peak_flops_per_second: float | None = None,
) -> Efficiency:
    """What a pass of `batch_size` texts of `sequence_length` tokens through `model` costs, where it is.

    `input_size` says both in one: (texts, tokens), or the tokens of one text. `device` may name where the model is; it
    is not moved. `inputs` are keyword arguments in place of tokens that are all 0, for a module that takes something
    else; `precision` is that of autocast; with fp32 there is none, and then what is told is the precision of the
    weights. The peak is that of a known GPU, or of this processor in proportion to a timed product, if not given; None
    where it is not known. Waits for the device after each pass. Modes are restored.
    Source: utilization as in Chowdhery et al. 2022, arXiv 2204.02311, appendix B, of a forward pass.

    Raises:
        UsageError: sizes, `repeats` or `warmup` out of range, sizes given twice or not at all; a model that is not on
            `device`.
    """
    batch_size, sequence_length = _sizes(input_size, sequence_length, batch_size)
    if min(sequence_length, batch_size, repeats) < 1 or warmup < 0:
        raise UsageError(
            "sequence_length, batch_size and repeats are at least 1, and warmup at least 0. Received: "
            f"{sequence_length}, {batch_size}, {repeats}, {warmup}"
        )
    device = device_of(model, device)
    tokens_BT = torch.zeros(batch_size, sequence_length, dtype=torch.int64, device=device)
    given: dict[str, Tensor] = {name: tensor.to(device) for name, tensor in (inputs or {}).items()}
    told = _precision_of(model) if precision == "fp32" else precision
    dtype = _NARROW.get(precision)

    def run() -> None:
        with torch.autocast(device.type, dtype) if dtype is not None else nullcontext():
            if given:
                output = model(**given)
            elif isinstance(model, EncoderDecoder):
                output = model(tokens_BT, None, tokens_BT)
            elif isinstance(model, Outside) and translates(model):
                output = model(tokens_BT, None, None, tokens_BT)
            else:
                output = model(tokens_BT)
            read = as_output(output)
            if isinstance(read, ModelOutput):
                read.head(read.features)

    is_cuda = device.type == "cuda"
    seconds = np.empty(repeats)
    with evaluating(model):
        # The counter knows the products of plain attention, but not every fused kernel.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run()
        for _ in range(warmup):
            run()
        if is_cuda:
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
        for number in range(repeats):
            begun = time.perf_counter()
            run()
            if is_cuda:
                torch.cuda.synchronize(device)
            seconds[number] = time.perf_counter() - begun
    peak = peak_flops_per_second if peak_flops_per_second is not None else _peak(device, told)
    flops, median, counts = float(counter.get_total_flops()), float(np.median(seconds)), parameter_counts(model)
    tokens = batch_size * sequence_length
    return Efficiency(
        parameters=counts["total"],
        trainable_parameters=counts["total"] - counts["frozen"],
        parameter_bytes=sum(parameter.nbytes for parameter in model.parameters()),
        batch_size=batch_size,
        sequence_length=sequence_length,
        device=torch.cuda.get_device_name(device) if is_cuda else device.type,
        precision=told,
        flops=flops,
        flops_per_token=flops / tokens,
        latency_seconds=median,
        latency_p90_seconds=float(np.quantile(seconds, 0.9)),
        tokens_per_second=tokens / median,
        flops_per_second=flops / median,
        peak_flops_per_second=peak,
        model_flops_utilization=None if peak is None else flops / median / peak,
        memory_bytes=torch.cuda.max_memory_allocated(device) if is_cuda else psutil.Process().memory_info().rss,
    )


def _sizes(input_size: int | Sequence[int] | None, sequence_length: int | None, batch_size: int) -> tuple[int, int]:
    """Texts, and tokens of each."""
    given = (input_size, sequence_length)
    if (input_size is None) == (sequence_length is None) or (input_size is not None and batch_size != 1):
        raise UsageError(
            "either input_size or sequence_length, and with it batch_size, says how large a pass is. Received: "
            f"{given[0]}, {given[1]}, batch_size {batch_size}"
        )
    if input_size is None:
        assert sequence_length is not None
        return batch_size, sequence_length
    sizes = (1, input_size) if isinstance(input_size, int) else tuple(input_size)
    if len(sizes) != 2:
        raise UsageError(
            f"input_size is (texts, tokens), or the tokens of one text. Received: {input_size}",
            hint="a module that takes something else: sequence_length=1, batch_size=1, inputs={NAME: TENSOR}",
        )
    return sizes[0], sizes[1]


def _precision_of(model: nn.Module) -> Literal["fp32", "bf16", "fp16"]:
    """That of most floating weights; of others, and of none, fp32."""
    numbers: Counter[torch.dtype] = Counter()
    for parameter in model.parameters():
        if parameter.is_floating_point():
            numbers[parameter.dtype] += parameter.numel()
    most = max(numbers, key=lambda dtype: numbers[dtype], default=torch.float32)
    return "bf16" if most == torch.bfloat16 else "fp16" if most == torch.float16 else "fp32"


def _peak(device: torch.device, precision: str) -> float | None:
    if device.type == "cuda":
        known = named(torch.cuda.get_device_name(device))
        return None if known is None else DEVICES[known].peak.get(precision)
    # Where there is a GPU, this machine means that one.
    return None if device.type != "cpu" or has_nvidia_driver() else this_machine().peak.get(precision)
