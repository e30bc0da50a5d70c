"""Whether a processor's 16-bit products are worth their casts, at the sizes of a model: measured once a run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from trimtab.config import Config, TransformerShape
from trimtab.config.training import AutoPrecision
from trimtab.errors import ConfigError
from trimtab.planning import ModelCounts, count_model
from trimtab.planning.reached import as_chosen
from trimtab.training.precision import computes_in_bf16

_WORTH: Final = 0.9
"""fp32 is taken when it takes at most this part of bf16's time: the measure is noisy, and bf16 the rule."""
_LEAST_ROUNDS: Final = 5
_SECONDS: Final = 0.2
_MOST_ROWS: Final = 512


def choose_precision(
    config: Config,
    device: torch.device,
    earlier: Mapping[str, Any] | None,
    compare: Callable[[ModelCounts, int], float] | None = None,
) -> tuple[Config, dict[str, Any] | None]:
    """`config` as it is to be trained, and the choice with its reason; None where nothing was to be chosen.

    Of training.precision=auto on a processor with instructions for bf16: that, unless fp32 is clearly quicker in the
    products of this model, as in tiny ones, whose casts take longer than what they save. `earlier` is the choice in
    plan.json, which a resumed run keeps. `compare` gives how long bf16 takes as a part of fp32.
    """
    asked = config.training.precision
    if not isinstance(asked, AutoPrecision) or device.type != "cpu" or not computes_in_bf16(device):
        return config, None
    if asked.parameters == "bf16" or not isinstance(config.model, TransformerShape):
        return config, None
    choice = dict(earlier) if earlier is not None else _measured(config, compare or _products_compared)
    return as_chosen(config, {"precision_choice": choice}), choice


def _measured(config: Config, compare: Callable[[ModelCounts, int], float]) -> dict[str, Any]:
    try:
        counts = count_model(config)
    except ConfigError:  # transformers reads tokenizers of which nothing is counted without building them
        return {"chosen": "bf16", "reason": "not measured: there is no tokenizer.json to count the vocabulary of"}
    rows = min(_MOST_ROWS, counts.tokens * (1 if config.split is None else config.split.micro_batch_size))
    ratio = compare(counts, rows)
    chosen = "fp32" if ratio * _WORTH > 1.0 else "bf16"
    return {"chosen": chosen, "reason": f"measured: products in bf16 take {ratio:.2f} of the time in fp32"}


def _products_compared(counts: ModelCounts, rows: int) -> float:
    """The time of one product of each size with its casts, in bf16 as a part of fp32: the best of each, in turn.

    With one thread: what else the machine does then only adds, so that the best say the same from run to run.
    """
    sizes = {(product.inputs, product.outputs) for product in counts.products}
    pairs = [(torch.ones(rows, inputs), torch.ones(outputs, inputs)) for inputs, outputs in sizes]

    def seconds(dtype: torch.dtype) -> float:
        begun = time.perf_counter()
        for x_ND, weight in pairs:
            _product(x_ND.to(dtype), weight.to(dtype))
        return time.perf_counter() - begun

    best = {torch.bfloat16: float("inf"), torch.float32: float("inf")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ends = time.perf_counter() + _SECONDS
        for number in itertools.count():
            if number >= _LEAST_ROUNDS and time.perf_counter() > ends:
                break
            for dtype in best:
                best[dtype] = min(best[dtype], seconds(dtype))
    finally:
        torch.set_num_threads(threads)
    return best[torch.bfloat16] / best[torch.float32]


def _product(x_ND: Tensor, weight_FD: Tensor) -> Tensor:
    return x_ND @ weight_FD.t()
