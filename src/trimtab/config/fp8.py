"""What training in fp8 does not go with, told before torch is imported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from trimtab.config.model import TransformerShape
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.config.training import Fp8, NoQuantization

if TYPE_CHECKING:
    from trimtab.config.run import Config

FP8_MULTIPLE: Final = 16
"""Of which the widths of an fp8 product are."""


def not_in_fp8(config: Config) -> Iterator[str]:
    """Each choice of `config` that fp8 cannot be with, in words; nothing in another precision."""
    training, model = config.training, config.model
    if not isinstance(training.precision, Fp8):
        return
    asked = "training.precision.name fp8"
    if training.device == "cpu":
        yield (
            f"{asked} is for NVIDIA GPUs since Ada and Hopper, and training.device is cpu; "
            "training.precision.name=auto takes bf16 where the device has instructions for it, else fp32"
        )
    if not isinstance(training.quantize, NoQuantization):
        yield f"{asked} narrows bf16 weights, and training.quantize {training.quantize.name} rounds fp32 ones"
    for key, one in config.named_optimizers.items():
        if "flat" not in OPTIMIZERS[one.name].layouts:
            fitting = ", ".join(name for name, spec in OPTIMIZERS.items() if "flat" in spec.layouts)
            yield f"{asked} has bf16 weights, and {key}.name {one.name} keeps them in fp32. Fitting: {fitting}"
    if not isinstance(model, TransformerShape):
        yield f"{asked} is for trimtab's own transformers, and model.name is {model.name}; bf16 is for all"
        return
    if model.freeze:
        yield f"{asked} has bf16 copies of trained weights, and model.freeze leaves some untrained; bf16 is for all"
    widths = {
        "model.hidden_size": model.hidden_size,
        "model.feed_forward_size": model.resolved_feed_forward_size,
    }
    if model.num_kv_heads is not None:
        # Those of queries, keys and values, which one product makes.
        heads = model.num_heads + 2 * model.num_kv_heads
        widths["model.num_kv_heads: the width of queries, keys and values"] = (
            model.hidden_size // model.num_heads * heads
        )
    for key, width in widths.items():
        if width % FP8_MULTIPLE:
            yield f"{asked} needs widths that are multiples of {FP8_MULTIPLE}. {key}: {width}"
