"""How long, in what portions, in what precision, and on what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from trimtab.config.base import Count, Positive, Section, Span
from trimtab.config.schedule import AccumulationSchedule


class Fp32(Section):
    """Everything in 32-bit floats."""

    name: Literal["fp32"] = "fp32"


class Tf32(Section):
    """float32 weights and sums; products of matrices in TensorFloat-32, with 10 bits of fraction, on NVIDIA GPUs."""

    name: Literal["tf32"] = "tf32"


class Bf16(Section):
    """bfloat16 products over fp32 weights, which every update acts on."""

    name: Literal["bf16"] = "bf16"
    parameters: Literal["auto", "bf16", "fp32"] = Field(
        "auto",
        description="what the model computes with: a bf16 copy of the weights, with a bf16 residual stream (auto on "
        "CUDA, for the decoder under adamw), or the fp32 weights under autocast",
    )


class Fp16(Section):
    """float16 autocast over fp32 weights, with loss scaling (Micikevicius et al. 2018)."""

    name: Literal["fp16"] = "fp16"
    scaling: Literal["dynamic", "static"] = Field(
        "dynamic", description="whether the scale halves on overflow and doubles after a stable while, or stays"
    )
    initial_scale: Positive = Field(
        65_536.0,
        description="factor on the loss at step 1; with static scaling in every step, where 128 or 512 is usual",
    )
    growth_every: Count = Field(2_000, description="steps without overflow after which the scale doubles")


class Fp8(Section):
    """Block layers multiply 8-bit floats in forward and for the gradient of their input; bf16 otherwise."""

    name: Literal["fp8"] = "fp8"
    history: int = Field(16, ge=1, le=1_024, description="steps whose largest values decide the scales of the next")
    margin: int = Field(0, ge=0, le=8, description="powers of two that scales stay below what these values allow")


class AutoPrecision(Section):
    """bf16 where the device has instructions for it, else fp32; on a processor fp32, too, where it is measured to be
    clearly quicker at the model's sizes."""

    name: Literal["auto"] = "auto"
    parameters: Literal["auto", "bf16", "fp32"] = Field("auto", description="as those of bf16")


PrecisionConfig = Annotated[Fp32 | Tf32 | Bf16 | Fp16 | Fp8 | AutoPrecision, Field(discriminator="name")]


class NoQuantization(Section):
    """Weights and activations as they are."""

    name: Literal["none"] = "none"


class Int8Quantization(Section):
    """Train for 8-bit weights, one scale for each row of a matrix."""

    name: Literal["int8"] = "int8"
    activations: Literal["int8", "float"] = Field(
        "int8", description="what linear layers read: rounded to 8 bits with a scale for each token, or as it is"
    )
    start: Span = Field(0.8, description="training without rounding, before it begins; evaluations always round")


class Int4Quantization(Section):
    """Train for 4-bit weights, one scale for each group of values in a row."""

    name: Literal["int4"] = "int4"
    activations: Literal["int8", "float"] = Field("int8", description="as those of int8")
    start: Span = Field(0.8, description="as that of int8")
    group_size: int = Field(32, ge=2, le=1_024, description="values that share a scale; divides every layer's input")


QuantizeConfig = Annotated[NoQuantization | Int8Quantization | Int4Quantization, Field(discriminator="name")]

_TOKENS = r"[1-9]\d*(_\d+)* tokens"


def _batch(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(_TOKENS, value):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("must be a whole number of sequences, at least 1, or text such as '65536 tokens'")
    return value


BatchSize = Annotated[
    int | str,
    BeforeValidator(_batch),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "description": "sequences"},
                {"type": "string", "pattern": f"^{_TOKENS}$", "examples": ["65536 tokens"]},
            ]
        }
    ),
]
"""Sequences, or text in tokens."""


@dataclass(frozen=True, slots=True)
class Split:
    """How one update's batch is divided: `accumulation` micro-batches of `micro_batch_size` sequences."""

    micro_batch_size: int
    accumulation: int


class TrainingConfig(Section):
    """The budget of a run and the machine's part in it."""

    steps: Count = Field(1_000, description="updates; a skipped one counts")
    micro_batch_size: Count | Literal["auto"] = Field(
        16,
        description="sequences in one forward and backward pass; auto: as many as memory holds, found at the start by "
        "trying; needs batch_size",
    )
    accumulation: Count = Field(1, description="micro-batches in one update")
    batch_size: BatchSize | None = Field(
        None, description="sequences in one update, or tokens; accumulation then follows from it and micro_batch_size"
    )
    memory_budget_bytes: Count | None = Field(
        None,
        description="what micro_batch_size=auto and recompute=auto may use: on a CPU the memory of this process, on "
        "CUDA what torch allocates; 8 or 9 tenths of what is free if not given",
    )
    recompute: Literal["none", "selective", "full", "auto"] = Field(
        "none",
        description="activations computed again in backward instead of kept: selective those of norms and activation "
        "functions, full whole blocks (of hugging_face, too), for about a third more time; auto the least that fits "
        "into memory, found at the start by trying",
    )
    accumulation_schedule: AccumulationSchedule | None = Field(
        None, description="the accumulation over a run, in multiples of it; null: always the same"
    )
    precision: PrecisionConfig = Field(default_factory=Fp32.model_construct)
    quantize: QuantizeConfig = Field(default_factory=NoQuantization.model_construct)
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes CUDA where there is one")
    compile: Literal["auto", "on", "whole", "off"] = Field(
        "auto",
        description="torch.compile: on takes block by block where the model has blocks, whole the model in one; auto "
        "measures it once when the run is long enough to gain from it",
    )
    capture: Literal["auto", "off"] = Field(
        "auto", description="CUDA graphs of the step: auto takes them where every part allows it"
    )
    attention: Literal["auto", "cudnn", "flash", "flex"] = Field(
        "auto",
        description="CUDA kernels: cudnn or flash for plain causal attention, flex (FlexAttention, compiled) where "
        "documents or a window hide more; auto measures once which is faster",
    )
    fused_activation: Literal["auto", "off"] = Field(
        "auto", description="gelu_tanh within the products before and after it, on CUDA with weights of 16 bits"
    )
    packed_attention: Literal["auto", "off"] = Field(
        "auto",
        description="the gradient of queries, keys and values in one tensor, as cuDNN's kernel can write it; needs the "
        "extra gpu",
    )
    threads: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = Field(
        "auto",
        description="CPU threads for torch; 0: as many as this process may use; auto: these, or fewer where a long run "
        "measures at its start that fewer are quicker",
    )
    watchdog_seconds: Positive | None = Field(
        600.0,
        description="without progress in a step, an evaluation or a save, after which the stacks of all threads are "
        "written and the run ends with exit code 7; null: never",
    )
    deterministic: bool = Field(False, description="refuse operations on CUDA that do not repeat bit for bit")

    @model_validator(mode="after")
    def _repeats(self) -> Self:
        if self.deterministic and self.attention == "cudnn":
            raise ValueError(
                "attention cudnn does not repeat bit for bit, and training.deterministic is true; take flash or auto"
            )
        return self
