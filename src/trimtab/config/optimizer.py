"""How gradients become updates: the optimizer, and what is done to gradients before it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trimtab.config.base import Custom, NonNegative, Positive, Section

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class DecayConfig(Section):
    """Which parameters weight decay acts on, besides the weights of linear layers and convolutions."""

    biases: bool = Field(False, description="decay biases")
    norms: bool = Field(False, description="decay the scales and shifts of norms")
    embeddings: bool = Field(True, description="decay token and position embeddings")


class AdamWConfig(Section):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

    name: Literal["adamw"] = "adamw"
    learning_rate: Positive = Field(3e-4, description="the full rate, which the schedule scales")
    beta1: Beta = Field(0.9, description="decay of the average of gradients")
    beta2: Beta = Field(0.95, description="decay of the average of squared gradients")
    epsilon: Positive = Field(1e-8, description="added to the root of the averaged squares")
    weight_decay: NonNegative = Field(0.1, description="a step takes learning_rate * weight_decay of each weight")
    decay: DecayConfig = Field(default_factory=DecayConfig)


class CustomOptimizer(Custom):
    """Any `torch.optim.Optimizer` class, for example target: 'torch.optim:SGD'."""

    name: Literal["custom"] = "custom"
    learning_rate: Positive = Field(1e-3, description="the full rate, which the schedule scales")
    weight_decay: NonNegative = Field(0.0, description="passed on only when it is not 0")
    decay: DecayConfig = Field(default_factory=DecayConfig)

    @model_validator(mode="after")
    def _not_twice(self) -> Self:
        for argument, key in (("lr", "learning_rate"), ("weight_decay", "weight_decay")):
            if argument in self.arguments:
                raise ValueError(f"arguments.{argument} has no effect: the step sets it, from {key}; set {key} instead")
        return self


OptimizerConfig = Annotated[AdamWConfig | CustomOptimizer, Field(discriminator="name")]


class NormClip(Section):
    """Scale the whole gradient down to `threshold` when its norm is larger (Pascanu et al. 2013)."""

    name: Literal["norm"] = "norm"
    threshold: Positive = Field(1.0, description="largest norm that is left as it is")


class NoClip(Section):
    """Leave the gradient as it is."""

    name: Literal["none"] = "none"


class GradientsConfig(Section):
    """What happens to the gradient between backward and update."""

    clip: Annotated[NormClip | NoClip, Field(discriminator="name")] = Field(default_factory=NormClip)
    skip_non_finite: bool = Field(True, description="a step whose gradient is not finite changes nothing")
    max_skipped: int = Field(
        20,
        ge=1,
        description="so many skipped steps on end stop the run with exit code 4 "
        "(fp16: after the scale is at its floor)",
    )
