"""Texts that are changed a little whenever they are trained on; the validation set stays as it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from trimtab.config.base import Custom, Rate, Section

if TYPE_CHECKING:
    from trimtab.config.run import Config


class SpanMaskingConfig(Section):
    """Hide runs of tokens behind the mask token, or one more of the vocabulary (Joshi et al. 2020, SpanBERT)."""

    rate: float = Field(0.15, gt=0.0, lt=1.0, description="part of the tokens that are hidden, on average")
    mean_length: float = Field(3.0, ge=1.0, le=100.0, description="tokens of a run, on average")


class SynonymsConfig(Section):
    """Put a near neighbour by the embeddings of a model in a token's place (Wang and Yang 2015)."""

    embeddings: str = Field(
        min_length=1, description="a .npy or .safetensors file, or a folder of such: a checkpoint, a Hugging Face model"
    )
    tensor: str | None = Field(None, min_length=1, description="its name, where several could be meant")
    rate: float = Field(0.1, gt=0.0, lt=1.0, description="part of the tokens")
    neighbours: int = Field(10, ge=1, le=1_000, description="one of so many is taken, all alike")
    similarity: float = Field(0.5, ge=-1.0, le=1.0, description="least cosine of a neighbour")


class AugmentationConfig(Section):
    """What is drawn is a function of the seed and the place in the order, so that a resumed run sees the same."""

    token_dropout: Rate = Field(0.0, description="part of the tokens of a row that are left out")
    replacement: Rate = Field(0.0, description="part of the tokens in whose place any of the vocabulary stands")
    span_masking: SpanMaskingConfig | None = Field(None, description="hide runs of tokens; null: none")
    synonyms: SynonymsConfig | None = Field(None, description="near neighbours in place of tokens; null: none")
    back_translation: Custom | None = Field(
        None,
        description="a function of texts to texts, or to lists of them, called once: what it gives is added to the "
        "training rows (Sennrich et al. 2016)",
    )

    @property
    def drawn(self) -> dict[str, bool]:
        """What is drawn anew for every place in the order, and whether it is."""
        return {
            "token_dropout": self.token_dropout > 0.0,
            "replacement": self.replacement > 0.0,
            "span_masking": self.span_masking is not None,
            "synonyms": self.synonyms is not None,
        }

    @property
    def changed_part(self) -> float:
        """The part of a row's tokens that are hidden, left out or replaced, on average."""
        hidden = 0.0 if self.span_masking is None else self.span_masking.rate
        near = 0.0 if self.synonyms is None else self.synonyms.rate
        return 1.0 - math.prod(1.0 - rate for rate in (self.token_dropout, self.replacement, hidden, near))


_OF_TASKS = {
    "causal_lm": ("replacement", "synonyms"),
    "masked_lm": (),
    "token_classification": ("token_dropout", "replacement", "span_masking", "synonyms"),
}
_OF_ROWS = ("token_dropout", "replacement", "span_masking", "synonyms", "back_translation")


def beside_augmentation(config: Config) -> str:
    """Why `config` cannot have its augmentation; "" where it can."""
    chosen, task = config.data.augmentation, config.task.name
    asked = [name for name, is_there in chosen.drawn.items() if is_there]
    asked += ["back_translation"] if chosen.back_translation is not None else []
    fitting = _OF_TASKS.get(task, _OF_ROWS)
    for name in asked:
        if name not in fitting:
            why = {
                "causal_lm": "each token is the target of the one before it",
                "masked_lm": "it hides and replaces tokens itself",
            }.get(task, "each word has its own target")
            return (
                f"data.augmentation.{name} does not go with task {task}: {why}. Fitting: {', '.join(fitting) or 'none'}"
            )
    return ""
