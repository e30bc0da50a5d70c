"""When and on how much a model is judged."""

from __future__ import annotations

from pydantic import Field

from trimtab.config.base import Count, NonNegative, Section, Texts


class SamplesConfig(Section):
    """Text written by the model at every evaluation, from fixed prompts and seeds, the same in every round."""

    prompts: Texts = Field(("",), description="beginnings to go on from; '' starts a document")
    seeds: Count = Field(1, description="samples of each prompt, each with a seed of its own")
    max_tokens: int = Field(96, ge=0, description="tokens in a sample; 0 writes none")
    temperature: NonNegative = Field(0.8, description="0 takes the most probable token")
    top_k: int = Field(50, ge=0, description="choose among so many tokens; 0: among all")


class EvaluationConfig(Section):
    """Exact over the counted tokens, in eval mode."""

    every: Count = Field(100, description="steps between evaluations; one more at the last step")
    max_tokens: Count | None = Field(None, description="tokens of the validation set; all of them if not given")
    batch_size: Count | None = Field(
        None, description="sequences at once; training.micro_batch_size if not given, at most 16 where that is auto"
    )
    gap_tokens: int = Field(
        65_536, ge=0, description="tokens of a fixed training slice, for generalization_gap; 0: no gap"
    )
    yardsticks: bool = Field(True, description="bits per byte of bigram counts, zlib and lzma on the same text")
    samples: SamplesConfig = Field(default_factory=SamplesConfig)
