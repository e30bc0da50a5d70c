"""How long, in what portions, in what precision, and on what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trimtab.config.base import Count, Positive, Section


class Fp32(Section):
    """Everything in 32-bit floats."""

    name: Literal["fp32"] = "fp32"


class Bf16(Section):
    """bfloat16 autocast over fp32 weights."""

    name: Literal["bf16"] = "bf16"


class Fp16(Section):
    """float16 autocast over fp32 weights, with dynamic loss scaling (Micikevicius et al. 2018)."""

    name: Literal["fp16"] = "fp16"
    initial_scale: Positive = Field(65_536.0, description="factor on the loss at step 1")
    growth_every: Count = Field(2_000, description="steps without overflow after which the scale doubles")


class AutoPrecision(Section):
    """bf16 where the device has instructions for it, else fp32."""

    name: Literal["auto"] = "auto"


PrecisionConfig = Annotated[Fp32 | Bf16 | Fp16 | AutoPrecision, Field(discriminator="name")]


class TrainingConfig(Section):
    """The budget of a run and the machine's part in it."""

    steps: Count = Field(1_000, description="updates; a skipped one counts")
    micro_batch_size: Count = Field(16, description="sequences in one forward and backward pass")
    accumulation: Count = Field(1, description="micro-batches in one update")
    precision: PrecisionConfig = Field(default_factory=Fp32)
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes CUDA where there is one")
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="torch.compile: auto measures it once when the run is long enough to gain from it"
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads for torch; 0: as many as this process may use")
    deterministic: bool = Field(False, description="refuse operations on CUDA that do not repeat bit for bit")
