"""How gradients become updates, and which parameters with what factors."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trimtab.config.base import Count, Custom, NonNegative, Positive, Section
from trimtab.config.schedule import ScheduleConfig

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Factors = dict[str, NonNegative]
PartOfSide = Annotated[float, Field(gt=0.0, lt=1.0)]

_RATE = "the full rate, which the schedule scales"
_BETA1 = "decay of the average of gradients"
_BETA2 = "decay of the average of squared gradients"
_EPSILON = "added to the root of the averaged squares"
_DECOUPLED = "a step takes learning_rate * weight_decay of each weight"
_PENALTY = "an L2 penalty: weight_decay * weight is added to the gradient"


class RatesConfig(Section):
    """Factors on the learning rate, and other schedules, for some of the parameters."""

    layers: Positive = Field(
        1.0, description="factor from each layer to the one below, down to the embeddings; 1: all layers alike"
    )
    factors: Factors = Field(
        default_factory=dict, description="pattern of parameter names ('blocks.0.*') to factor; the last that fits acts"
    )
    schedules: dict[str, ScheduleConfig] = Field(
        default_factory=dict,
        description="pattern of parameter names to a schedule in place of the run's ('head.*': {name: constant}); the "
        "last that fits acts",
    )


class DecayConfig(Section):
    """Which parameters weight decay acts on besides the weights of linear layers and convolutions, and how much."""

    biases: bool = Field(False, description="decay biases")
    norms: bool = Field(False, description="decay the scales and shifts of norms")
    embeddings: bool = Field(True, description="decay token and position embeddings")
    layers: Positive = Field(1.0, description="factor from each layer to the one below; 1: all layers alike")
    factors: Factors = Field(
        default_factory=dict, description="pattern of parameter names to factor; the last that fits acts"
    )
    target: NonNegative = Field(
        0.0,
        description="the norm that decay pulls a parameter to, as a part of the norm it began with (Loshchilov 2023, "
        "arXiv 2311.11446); 0: to nothing",
    )


class NoScaling(Section):
    """The rate as it is set, whatever the batch."""

    name: Literal["none"] = "none"


_REFERENCE = "sequences of an update for which the rate is meant as it is set"


class LinearScaling(Section):
    """The rate times batch over reference batch (Goyal et al. 2017, arXiv 1706.02677): for SGD."""

    name: Literal["linear"] = "linear"
    reference_batch: Count = Field(description=_REFERENCE)


class SquareRootScaling(Section):
    """The rate times the root of batch over reference batch (Malladi et al. 2022, arXiv 2205.10287): for Adam."""

    name: Literal["square_root"] = "square_root"
    reference_batch: Count = Field(description=_REFERENCE)


BatchScalingConfig = Annotated[NoScaling | LinearScaling | SquareRootScaling, Field(discriminator="name")]


class OptimizerSection(Section):
    """What every optimizer of ours has."""

    name: str
    learning_rate: Positive
    weight_decay: NonNegative
    decay: DecayConfig = Field(default_factory=DecayConfig.model_construct)
    rates: RatesConfig = Field(default_factory=RatesConfig.model_construct)
    batch_scaling: BatchScalingConfig = Field(default_factory=NoScaling.model_construct)


class AdamWConfig(OptimizerSection):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

    name: Literal["adamw"] = "adamw"
    learning_rate: Positive = Field(3e-4, description=_RATE)
    beta1: Beta = Field(0.9, description=_BETA1)
    beta2: Beta = Field(0.95, description=_BETA2)
    epsilon: Positive = Field(1e-8, description=_EPSILON)
    weight_decay: NonNegative = Field(0.1, description=_DECOUPLED)


class AdamW8bitConfig(OptimizerSection):
    """AdamW with moments in 8 bits: a quarter of their memory (Dettmers et al. 2022, arXiv 2110.02861)."""

    name: Literal["adamw_8bit"] = "adamw_8bit"
    learning_rate: Positive = Field(3e-4, description=_RATE)
    beta1: Beta = Field(0.9, description=_BETA1)
    beta2: Beta = Field(0.95, description=_BETA2)
    epsilon: Positive = Field(1e-8, description=_EPSILON)
    min_size: Count = Field(4096, description="parameters of fewer values keep their moments in fp32")
    weight_decay: NonNegative = Field(0.1, description=_DECOUPLED)


class AdamConfig(OptimizerSection):
    """Adam; its weight decay is an L2 penalty, which the adaptive scaling distorts (Kingma and Ba 2015)."""

    name: Literal["adam"] = "adam"
    learning_rate: Positive = Field(3e-4, description=_RATE)
    beta1: Beta = Field(0.9, description=_BETA1)
    beta2: Beta = Field(0.999, description=_BETA2)
    epsilon: Positive = Field(1e-8, description=_EPSILON)
    weight_decay: NonNegative = Field(0.0, description=_PENALTY)


class SgdConfig(OptimizerSection):
    """Stochastic gradient descent with momentum, plain or Nesterov's (Sutskever et al. 2013)."""

    name: Literal["sgd"] = "sgd"
    learning_rate: Positive = Field(0.1, description=_RATE)
    momentum: Beta = Field(0.9, description="decay of the sum of gradients; 0: none is kept")
    nesterov: bool = Field(False, description="look ahead by one step of the momentum")
    weight_decay: NonNegative = Field(0.0, description=_PENALTY)


class LionConfig(OptimizerSection):
    """The sign of an interpolated momentum (Chen et al. 2023, arXiv 2302.06675)."""

    name: Literal["lion"] = "lion"
    learning_rate: Positive = Field(1e-4, description=f"{_RATE}; a third to a tenth of AdamW's")
    beta1: Beta = Field(0.9, description="the momentum's part in the update")
    beta2: Beta = Field(0.99, description="decay of the average of gradients")
    weight_decay: NonNegative = Field(0.3, description=f"{_DECOUPLED}; three to ten times AdamW's")


class AdafactorConfig(OptimizerSection):
    """Second moments kept as rows and columns (Shazeer and Stern 2018, arXiv 1804.04235)."""

    name: Literal["adafactor"] = "adafactor"
    learning_rate: Positive = Field(1e-2, description=f"{_RATE}; relative to each parameter's own size")
    beta2_power: float = Field(-0.8, lt=0.0, description="step to this power is what a new square counts")
    epsilon: Positive = Field(1e-3, description="least size of a parameter that its rate is relative to")
    threshold: float = Field(1.0, ge=1.0, description="root mean square above which an update is scaled down")
    weight_decay: NonNegative = Field(0.0, description=_DECOUPLED)


class LambConfig(OptimizerSection):
    """AdamW whose update is scaled to each parameter's norm: large batches (You et al. 2020, arXiv 1904.00962)."""

    name: Literal["lamb"] = "lamb"
    learning_rate: Positive = Field(2e-3, description=f"{_RATE}; relative to each parameter's own norm")
    beta1: Beta = Field(0.9, description=_BETA1)
    beta2: Beta = Field(0.999, description=_BETA2)
    epsilon: Positive = Field(1e-6, description=_EPSILON)
    weight_decay: NonNegative = Field(0.01, description="added to the update before it is scaled")


class MuonConfig(OptimizerSection):
    """Orthogonalized momentum for the matrices inside layers, AdamW for all else (Jordan et al. 2024)."""

    name: Literal["muon"] = "muon"
    learning_rate: Positive = Field(1e-3, description=f"{_RATE}; with scaling adamw it is AdamW's rate for all")
    momentum: Beta = Field(0.95, description="decay of the average of gradients")
    nesterov: bool = Field(True, description="look ahead by one step of the momentum")
    iterations: int = Field(5, ge=1, le=20, description="of Newton and Schulz, to orthogonalize")
    scaling: Literal["adamw", "shape"] = Field(
        "adamw",
        description="of a matrix's update: 0.2 sqrt(longer side), as large as AdamW's (Liu et al. 2025), or "
        "sqrt(max(1, rows / columns))",
    )
    rest: Positive = Field(1.0, description="AdamW's learning rate for all else, as a part of learning_rate")
    beta1: Beta = Field(0.9, description=f"AdamW: {_BETA1}")
    beta2: Beta = Field(0.95, description=f"AdamW: {_BETA2}")
    epsilon: Positive = Field(1e-8, description=f"AdamW: {_EPSILON}")
    weight_decay: NonNegative = Field(0.1, description=_DECOUPLED)


class ScheduleFreeAdamWConfig(OptimizerSection):
    """AdamW judged by an average of its weights, which needs no schedule (Defazio et al. 2024, arXiv 2405.15682)."""

    name: Literal["schedule_free_adamw"] = "schedule_free_adamw"
    learning_rate: Positive = Field(1e-3, description=f"{_RATE}; it should be constant after a warm-up")
    beta1: Beta = Field(0.9, gt=0.0, description="the average's part in the weights that gradients are taken at")
    beta2: Beta = Field(0.999, description=_BETA2)
    epsilon: Positive = Field(1e-8, description=_EPSILON)
    weight_decay: NonNegative = Field(0.1, description=_DECOUPLED)


class SoapConfig(OptimizerSection):
    """Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, arXiv 2409.11321)."""

    name: Literal["soap"] = "soap"
    learning_rate: Positive = Field(1e-3, description=_RATE)
    beta1: Beta = Field(0.95, description=_BETA1)
    beta2: Beta = Field(0.95, description="decay of the averages of squares and of the preconditioners")
    epsilon: Positive = Field(1e-8, description=_EPSILON)
    basis_every: Count = Field(10, description="updates from one renewal of the eigenbasis to the next")
    max_side: Count = Field(4096, description="a longer side of a matrix is left in its own basis")
    weight_decay: NonNegative = Field(0.1, description=_DECOUPLED)


class GaLoreConfig(OptimizerSection):
    """AdamW on a projection of the matrices inside layers, whose moments are small (Zhao et al. 2024)."""

    name: Literal["galore"] = "galore"
    learning_rate: Positive = Field(1e-2, description=f"{_RATE}; a projected matrix moves by scale times it")
    rank: Count | PartOfSide = Field(
        0.25, description="of the projection, or as a part of a matrix's shorter side; a shorter side is left whole"
    )
    scale: Positive = Field(0.25, description="of a projected matrix's update")
    basis_every: Count = Field(200, description="updates from one renewal of the projection to the next")
    rest: Positive = Field(0.1, description="AdamW's learning rate for all else, as a part of learning_rate")
    beta1: Beta = Field(0.9, description=_BETA1)
    beta2: Beta = Field(0.999, description=_BETA2)
    epsilon: Positive = Field(1e-8, description=_EPSILON)
    weight_decay: NonNegative = Field(0.0, description=_DECOUPLED)


class SophiaConfig(OptimizerSection):
    """Momentum over a diagonal of the curvature, every value clipped (Liu et al. 2023, arXiv 2305.14342, Sophia-G)."""

    name: Literal["sophia"] = "sophia"
    learning_rate: Positive = Field(3e-4, description=f"{_RATE}; the most that a step moves a weight")
    beta1: Beta = Field(0.96, description=_BETA1)
    beta2: Beta = Field(0.99, description="decay of the average of estimates of the curvature")
    gamma: Positive = Field(0.05, description="of the curvature: the smaller, the more of the update is clipped")
    epsilon: Positive = Field(1e-12, description="the least curvature, gamma included")
    estimate_every: Count = Field(
        10, description="steps from one estimate, a further forward and backward pass, to the next"
    )
    weight_decay: NonNegative = Field(0.2, description=_DECOUPLED)


class CustomOptimizer(Custom):
    """Any `torch.optim.Optimizer` class, for example target: 'torch.optim:SGD'."""

    name: Literal["custom"] = "custom"
    learning_rate: Positive = Field(1e-3, description=_RATE)
    weight_decay: NonNegative = Field(0.0, description="passed on only when it is not 0")
    decay: DecayConfig = Field(default_factory=DecayConfig.model_construct)
    rates: RatesConfig = Field(default_factory=RatesConfig.model_construct)
    batch_scaling: BatchScalingConfig = Field(default_factory=NoScaling.model_construct)

    @model_validator(mode="after")
    def _not_twice(self) -> Self:
        for argument, key in (("lr", "learning_rate"), ("weight_decay", "weight_decay")):
            if argument in self.arguments:
                raise ValueError(f"arguments.{argument} has no effect: the step sets it, from {key}; set {key} instead")
        return self


OptimizerConfig = Annotated[
    AdamWConfig
    | AdamW8bitConfig
    | AdamConfig
    | SgdConfig
    | LionConfig
    | AdafactorConfig
    | LambConfig
    | MuonConfig
    | ScheduleFreeAdamWConfig
    | SoapConfig
    | GaLoreConfig
    | SophiaConfig
    | CustomOptimizer,
    Field(discriminator="name"),
]
