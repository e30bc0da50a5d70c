"""How long, in what portions, in what precision, and on what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trimtab.config.base import Count, Positive, Section
from trimtab.config.schedule import AccumulationSchedule


class Fp32(Section):
    """Everything in 32-bit floats."""

    name: Literal["fp32"] = "fp32"


class Bf16(Section):
    """bfloat16 products over fp32 weights, which every update acts on."""

    name: Literal["bf16"] = "bf16"
    parameters: Literal["auto", "bf16", "fp32"] = Field(
        "auto",
        description="what the model computes with: a bf16 copy of the weights, with a bf16 residual stream (auto on "
        "CUDA, for the decoder under adamw), or the fp32 weights under autocast",
    )


class Fp16(Section):
    """float16 autocast over fp32 weights, with dynamic loss scaling (Micikevicius et al. 2018)."""

    name: Literal["fp16"] = "fp16"
    initial_scale: Positive = Field(65_536.0, description="factor on the loss at step 1")
    growth_every: Count = Field(2_000, description="steps without overflow after which the scale doubles")


class AutoPrecision(Section):
    """bf16 where the device has instructions for it, else fp32."""

    name: Literal["auto"] = "auto"
    parameters: Literal["auto", "bf16", "fp32"] = Field("auto", description="as those of bf16")


PrecisionConfig = Annotated[Fp32 | Bf16 | Fp16 | AutoPrecision, Field(discriminator="name")]


class TrainingConfig(Section):
    """The budget of a run and the machine's part in it."""

    steps: Count = Field(1_000, description="updates; a skipped one counts")
    micro_batch_size: Count = Field(16, description="sequences in one forward and backward pass")
    accumulation: Count = Field(1, description="micro-batches in one update")
    accumulation_schedule: AccumulationSchedule | None = Field(
        None, description="the accumulation over a run, in multiples of it; null: always the same"
    )
    precision: PrecisionConfig = Field(default_factory=Fp32.model_construct)
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes CUDA where there is one")
    compile: Literal["auto", "on", "whole", "off"] = Field(
        "auto",
        description="torch.compile: on takes block by block where the model has blocks, whole the model in one; auto "
        "measures it once when the run is long enough to gain from it",
    )
    capture: Literal["auto", "off"] = Field(
        "auto", description="CUDA graphs of the step: auto takes them where every part allows it"
    )
    attention: Literal["auto", "cudnn", "flash"] = Field(
        "auto", description="CUDA kernels of plain causal attention: auto measures once which is faster"
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads for torch; 0: as many as this process may use")
    deterministic: bool = Field(False, description="refuse operations on CUDA that do not repeat bit for bit")
