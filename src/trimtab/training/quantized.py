"""The quantized model of a run: `quantized/` in its directory, beside the float one, with the loss of both."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from trimtab.config import Config, Fp32, NoQuantization
from trimtab.events import RunEnded
from trimtab.model.quantize import QuantizedConfig, quantized_copy, quantized_tensors, without_quantization
from trimtab.runs import RunDirectory
from trimtab.training.checkpoint import load_model
from trimtab.training.checkpoint.files import write_snapshot
from trimtab.training.checkpoint.snapshot import Snapshot
from trimtab.training.trained import choose_of

Judge = Callable[[nn.Module], Mapping[str, float]]
"""The metrics of a model, computed in fp32."""


def in_fp32(config: Config) -> Config:
    """`config` in fp32, so that float and quantized model differ in their weights and inputs alone."""
    return config.model_copy(update={"training": config.training.model_copy(update={"precision": Fp32()})})


def write_quantized(
    run: RunDirectory, model: nn.Module, config: QuantizedConfig, judge: Judge, step: int, weights: str = "plain"
) -> dict[str, Any]:
    """Quantize the prepared `model` as it stands, judge both, and write the quantized one; gives what was found.

    `weights` says which it holds: plain ones, or the kind of an average.
    Raises: StorageError when the disk does not take it; what an earlier attempt wrote is then untouched.
    """
    with without_quantization(model):
        floating = dict(judge(model))
    small = quantized_copy(model, config)
    metrics = dict(judge(small))
    tensors = quantized_tensors(small)
    found = {
        "step": step,
        "weights": weights,
        "quantization": config.model_dump(),
        "layers": [name.split("/")[1].removesuffix(".weight") for name in tensors if name.endswith("/scale")],
        "bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "float_bytes": sum(parameter.nbytes for parameter in model.parameters()),
        "metrics": metrics,
        "float_metrics": floating,
    }
    temporary = run.checkpoints / f".tmp-quantized-{os.getpid()}"  # where a kill's remains are removed
    write_snapshot(Snapshot(tensors, {}), temporary, run.quantized, found)
    return found


def quantize_kept(run: RunDirectory, config: Config, ended: RunEnded, judge: Judge) -> tuple[nn.Module, dict[str, Any]]:
    """What `write_quantized` does, for a run that ended so: of the weights that it was left with, as it saved them.

    Gives the float model, too. Raises: UsageError when they are not kept; CheckpointError, StorageError.
    """
    quantize = config.training.quantize
    if isinstance(quantize, NoQuantization):
        raise ValueError("the run is not trained for a quantized model")
    step = ended.step if ended.restored_step is None else ended.restored_step
    chosen = choose_of(run, config, str(step))
    model = chosen.build()
    load_model(model, chosen.tensors())
    return model, write_quantized(run, model, quantize, judge, step, chosen.weights)


def in_words(found: Mapping[str, Any]) -> str:
    """The losses of both, and what it saves."""
    name, part = found["quantization"]["name"], found["bytes"] / max(1, found["float_bytes"])
    losses = (found[which].get("validation/loss") for which in ("float_metrics", "metrics"))
    before, after = ("not measured" if loss is None else f"{loss:.4f}" for loss in losses)
    return f"{name}: validation loss {before} in float, {after} quantized; {part:.0%} of the bytes"
