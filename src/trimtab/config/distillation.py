"""A teacher, whose answers are learned besides."""

from __future__ import annotations

from pydantic import Field

from trimtab.config.base import Positive, Section


class DistillationConfig(Section):
    """Learn what a trained model says, too (Hinton et al. 2015, arXiv 1503.02531, section 2)."""

    teacher: str = Field(
        min_length=1,
        description="a run or a checkpoint of the same task, tokenizer and classes, or a folder of transformers",
    )
    temperature: Positive = Field(
        2.0, description="logits of both are divided by it: above 1 what is less probable counts more"
    )
    weight: Positive = Field(
        1.0, description="of temperature² * KL(teacher, model), beside the cross-entropy with what is right"
    )
