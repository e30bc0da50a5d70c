"""In what numbers a step computes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, final

import torch
from torch import Tensor

from trimtab.config import Bf16, Fp8, Fp16, PrecisionConfig
from trimtab.config.training import AutoPrecision
from trimtab.errors import ConfigError

_LOWEST_SCALE: Final = 1.0
_HIGHEST_SCALE: Final = 2.0**24


@final
class LossScaler:
    """Loss scaling on the device: halved on overflow, doubled after a stable while, or always the same; never waits.

    Source: Micikevicius et al. 2018, arXiv 1710.03740, section 3.2; halving and growth as in torch.amp.
    """

    def __init__(self, initial_scale: float, growth_every: int | None, device: torch.device) -> None:
        """With `growth_every` None the scale stays as it is."""
        self.growth_every = growth_every
        self.scale = torch.tensor(initial_scale, dtype=torch.float32, device=device)
        self._stable_steps = torch.zeros((), dtype=torch.float32, device=device)

    def update(self, skip: Tensor) -> None:
        """Take note of a step that was skipped (1.0) or not (0.0)."""
        if self.growth_every is None:
            return
        stable = torch.where(skip > 0, 0.0, self._stable_steps + 1.0)
        grows = stable >= self.growth_every
        factor = torch.where(skip > 0, 0.5, torch.where(grows, 2.0, 1.0))
        self.scale.mul_(factor).clamp_(_LOWEST_SCALE, _HIGHEST_SCALE)
        self._stable_steps.copy_(torch.where(grows, 0.0, stable))

    def state(self) -> dict[str, Tensor]:
        """The scale, and steps since it last changed."""
        return {"scale": self.scale, "stable_steps": self._stable_steps}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says."""
        self.scale.copy_(state["scale"])
        self._stable_steps.copy_(state["stable_steps"])


def computes_in_bf16(device: torch.device) -> bool:
    """Whether `device` has instructions for bf16; without them a processor takes ten times as long as for fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def resolved_name(config: PrecisionConfig, device: torch.device) -> str:
    """fp32, tf32, bf16, fp16 or fp8: what auto comes to on `device`."""
    if config.name == "auto":
        return "bf16" if computes_in_bf16(device) else "fp32"
    return config.name


def set_products(config: PrecisionConfig, device: torch.device) -> None:
    """Let this process multiply float32 matrices in float32, or with tf32 in TensorFloat-32.

    Raises: ConfigError when tf32 or fp8 is asked for, and `device` has none.
    """
    if isinstance(config, Fp8) and (why := why_no_fp8(device)):
        raise ConfigError(
            f"training.precision.name: 8-bit floats are multiplied by NVIDIA GPUs since Ada and Hopper; {why}. "
            "Received: 'fp8'",
            hint="training.precision.name=auto takes bf16 where the device has instructions for it, else fp32",
        )
    if config.name == "tf32" and (why := _why_no_tf32(device)):
        raise ConfigError(
            f"training.precision.name: TensorFloat-32 is computed by the tensor cores of NVIDIA GPUs since Ampere; "
            f"{why}. Received: 'tf32'",
            hint="training.precision.name=auto takes bf16 where the device has instructions for it, else fp32",
        )
    torch.set_float32_matmul_precision("high" if config.name == "tf32" else "highest")


def _why_no_tf32(device: torch.device) -> str:
    return _why_not_since(device, (8, 0))


def why_no_fp8(device: torch.device) -> str:
    """Why `device` does not multiply 8-bit floats, or nothing."""
    return _why_not_since(device, (8, 9))


def _why_not_since(device: torch.device, capability: tuple[int, int]) -> str:
    if device.type != "cuda":
        return f"this device is a {device.type.upper()}"
    if torch.version.hip is not None:
        return "this is an AMD GPU"
    major, minor = torch.cuda.get_device_capability(device)
    needed = ".".join(map(str, capability))
    return (
        "" if (major, minor) >= capability else f"this GPU has compute capability {major}.{minor}, of {needed} needed"
    )


@final
class Precision:
    """Products are computed in `dtype`: under autocast over fp32 weights, or on weights that are in `dtype` themselves.

    `parameters` is the precision of the weights that the model computes with; updates act on fp32 masters either way.
    """

    def __init__(self, config: PrecisionConfig, device: torch.device, parameters: torch.dtype = torch.float32) -> None:
        self.name = resolved_name(config, device)
        self.device = device
        self.dtype = {"bf16": torch.bfloat16, "fp8": torch.bfloat16, "fp16": torch.float16}.get(
            self.name, torch.float32
        )
        self.parameters = parameters
        self.scaler = None
        if isinstance(config, Fp16):
            growth_every = config.growth_every if config.scaling == "dynamic" else None
            self.scaler = LossScaler(config.initial_scale, growth_every, device)

    @property
    def is_emulated(self) -> bool:
        """Whether the device computes in this precision by way of another, and slowly."""
        return self.name == "bf16" and not computes_in_bf16(self.device)

    def autocast(self) -> AbstractContextManager[None]:
        """The context of a forward pass."""
        if self.dtype == self.parameters:
            return nullcontext()
        # The cache of cast weights would outlive an update inside a captured program.
        return torch.autocast(self.device.type, dtype=self.dtype, cache_enabled=False)


def choose_parameters(config: PrecisionConfig, device: torch.device, ours: bool) -> tuple[torch.dtype, str]:
    """The precision of the weights that the model computes with, and why; `ours` for our decoder under our AdamW.

    Raises: ConfigError for fp8 with anything else.
    """
    if isinstance(config, Fp8):
        if not ours:
            raise ConfigError(
                "training.precision.name: fp8 is for trimtab's own models and optimizers, all weights trained and "
                "none quantized. Received: 'fp8', with others",
                hint="training.precision.name=bf16",
            )
        return torch.bfloat16, "bf16 weights over fp32 masters, narrowed to fp8 once a step"
    if (name := resolved_name(config, device)) != "bf16":
        return torch.float32, f"{name} keeps its weights in fp32"
    asked = config.parameters if isinstance(config, Bf16 | AutoPrecision) else "auto"
    if asked == "fp32":
        return torch.float32, "training.precision.parameters is fp32"
    if not ours:
        return (
            torch.float32,
            "a model or optimizer from outside, or one that is quantized or partly frozen, keeps its parameters in "
            "fp32, under autocast",
        )
    if asked == "auto" and device.type != "cuda":
        return torch.float32, "autocast on a CPU"
    return torch.bfloat16, "bf16 weights over fp32 masters"
