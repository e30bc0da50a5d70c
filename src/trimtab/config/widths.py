"""Settings that were tuned on a narrow model, carried over to a wider one (µP)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import Field

from trimtab.config.base import Count, Section

if TYPE_CHECKING:
    from trimtab.config.run import Config

ENTRYWISE: Final = ("adamw", "adam", "adamw_8bit", "lion", "schedule_free_adamw", "sophia")
"""Optimizers whose step does not grow with the gradient, so that it is the learning rate that a width asks for."""


class WidthBase(Section):
    """The narrow model on which learning rate and deviation of weights were tuned (Yang et al. 2022, arXiv 2203.03466,
    table 8): matrices inside layers begin narrower and learn slower as a model is wider than it, what the head reads is
    scaled down, and attention is by 1 / head size."""

    hidden_size: Count = Field(128, description="its model.hidden_size")
    num_heads: Count = Field(4, description="its model.num_heads")


def beside_widths(config: Config) -> str:
    """Why `config` cannot carry settings over as it says; "" where it can."""
    base = getattr(config.model, "width_base", None)
    if base is None:
        return ""
    if base.hidden_size % base.num_heads:
        return (
            f"model.width_base.hidden_size must be a multiple of its num_heads: {base.hidden_size} over "
            f"{base.num_heads} heads"
        )
    for key, one in config.named_optimizers.items():
        if one.name not in ENTRYWISE:
            fitting = ", ".join(ENTRYWISE)
            return (
                f"model.width_base is for optimizers that scale each value's step by itself, and {key}.name is "
                f"{one.name}. Fitting: {fitting}"
            )
    return ""
