"""Which ways of computing a configuration comes to on a device: what training itself will choose, as far as it follows
from the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from trimtab.config import Bf16, Config, CrossEntropyConfig, NoQuantization, RowTask, TransformerShape
from trimtab.config.beside_procedure import procedures_of
from trimtab.config.registry.model import MODELS
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.config.training import AutoPrecision
from trimtab.errors import ConfigError
from trimtab.planning.devices import Device, Products

COMPILE_PAYS_AFTER_SECONDS = {"cpu": 600.0, "cuda": 20.0}
"""Of training without it: compiling takes a minute on a CPU, some seconds on a GPU, and gains a part of the rest."""


@final
@dataclass(frozen=True, slots=True)
class Ways:
    """How a step is computed."""

    precision: Products
    """Of products."""
    narrow: bool
    """Whether the model computes on a 16-bit copy of the weights, over fp32 masters."""
    captured: bool
    compiled: bool
    fused_loss: bool
    fused_activation: bool
    """Whether the activation is computed within the products."""
    recompute: Literal["none", "selective", "full"] = "none"
    """What is computed again in backward."""

    @property
    def value_bytes(self) -> int:
        """Of what products read and write."""
        return 2 if self.precision in ("bf16", "fp16") else 4

    @property
    def stream_bytes(self) -> int:
        """Of the residual stream."""
        return 2 if self.narrow else 4

    @property
    def autocasts(self) -> bool:
        """Whether fp32 weights are cast before every product."""
        return self.value_bytes == 2 and not self.narrow


def one_shape(config: Config) -> bool:
    """Whether all batches have one shape, as compiled and captured programs need."""
    return not isinstance(config.task, RowTask) or config.task.padding == "full"


def ways_of(
    config: Config, device: Device, *, compiled: bool, recompute: Literal["none", "selective", "full"] = "none"
) -> Ways:
    """The ways of `config` on `device`; `compiled` is what training.compile=auto comes to, and `recompute` what
    training.recompute=auto does.

    Raises: ConfigError for a precision that the device does not have.
    """
    training, cuda = config.training, device.kind == "cuda"
    asked = training.precision
    name: str = asked.name
    if name == "auto":
        name = "bf16" if "bf16" in device.products else "fp32"
    if name not in device.products:
        raise ConfigError(
            f"training.precision.name: {device.description} has no {name}. Received: {asked.name!r}",
            hint=f"there are {', '.join(device.products)}; --device names another",
        )
    precision: Products = next(key for key in ("fp32", "tf32", "bf16", "fp16") if key == name)
    plain = isinstance(training.quantize, NoQuantization)
    flat = all("flat" in OPTIMIZERS[one.name].layouts for one in config.optimizers)
    parameters = asked.parameters if isinstance(asked, Bf16 | AutoPrecision) else "fp32"
    narrow = precision == "bf16" and plain and flat and (parameters == "bf16" or (parameters == "auto" and cuda))
    spec = MODELS[config.model.name]
    capturable = spec.capturable and all(OPTIMIZERS[one.name].capturable for one in config.optimizers)
    makings = procedures_of(config).values()
    capturable = capturable and all(one.capturable for one in makings)
    match training.compile:
        case "auto":
            compiles = (
                compiled and all(one.compilable for one in makings) and spec.compilable and plain and one_shape(config)
            )
        case _:
            compiles = training.compile != "off"
    objective = config.objective
    fuses = isinstance(objective, CrossEntropyConfig) and precision != "fp16" and _plain_head(config)
    fuses = fuses and getattr(objective, "distillation", None) is None
    model = config.model
    again = recompute if training.recompute == "auto" else training.recompute
    draws = isinstance(model, TransformerShape) and any(
        rate for site, rate in model.dropout.rates.items() if site not in ("embedding", "head")
    )
    fits = isinstance(model, TransformerShape) and model.activation == "gelu_tanh" and model.hidden_size % 8 == 0
    return Ways(
        fused_activation=fits and again != "selective" and narrow and cuda and training.fused_activation == "auto",
        precision=precision,
        narrow=narrow,
        captured=cuda
        and training.capture == "auto"
        and one_shape(config)
        and capturable
        # What draws cannot be computed again in a graph.
        and not (again == "full" and draws),
        compiled=compiles,
        recompute=again,
        fused_loss=isinstance(objective, CrossEntropyConfig)
        and fuses
        and (objective.fused == "on" or (objective.fused == "auto" and cuda)),
    )


def _plain_head(config: Config) -> bool:
    """Whether the head says tokens, and so has no bias, and no class weighs more than another."""
    return config.task.name in ("causal_lm", "masked_lm", "seq2seq")
