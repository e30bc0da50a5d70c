"""What a batch asks of the model, and where in a row of data that is written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trimtab.config.base import Count, NonNegative, Section

ClassWeights = Annotated[
    Literal["none", "balanced"] | dict[str, NonNegative],
    Field(
        description="weight of each class: balanced is N / (K * its number) of K classes that occur, with several "
        "labels (N - its number) / its number where the label is right; a mapping names classes, others weigh 1"
    ),
]


class CausalLanguageModeling(Section):
    """Predict each next token of a text."""

    name: Literal["causal_lm"] = "causal_lm"


class MaskedLanguageModeling(Section):
    """Predict tokens that were hidden in a text (Devlin et al. 2019, arXiv 1810.04805, section 3.1)."""

    name: Literal["masked_lm"] = "masked_lm"
    mask_rate: float = Field(
        0.15,
        gt=0.0,
        lt=1.0,
        description="part of the tokens asked for; of these 80 % are hidden, 10 % replaced by any token, 10 % left",
    )


class RowTask(Section):
    """A task whose samples are rows of data: a text, and what is asked about it."""

    name: str
    padding: Literal["longest", "full"] = Field(
        "longest",
        description="rows become as long as the longest of their batch, or data.sequence_length: one shape to compile",
    )
    bucketing: Count = Field(
        8,
        description="texts of similar length are put together, among those of so many micro-batches; 1: not. More "
        "saves padding, and costs accuracy where the target goes with the length",
    )


class Classification(RowTask):
    """Say which class a text is of, or with multi_label which of several labels it has."""

    name: Literal["classification"] = "classification"
    label: str = Field("label", min_length=1, description="the field, or column, that holds the class")
    multi_label: bool = Field(
        False, description="any number of labels for each text: a list, or text with separators between them"
    )
    separator: str = Field("|", min_length=1, description="between the labels of a text, where they are no list")
    class_weights: ClassWeights = "none"


class TokenClassification(RowTask):
    """Say of each word which class it is of."""

    name: Literal["token_classification"] = "token_classification"
    tags: str = Field(
        "tags",
        min_length=1,
        description="the field that holds the class of each word; words and tags are lists, or text with spaces",
    )
    class_weights: ClassWeights = "none"


class Regression(RowTask):
    """Say a number for each text."""

    name: Literal["regression"] = "regression"
    value: str = Field("value", min_length=1, description="the field, or column, that holds the number")


class SequenceToSequence(RowTask):
    """Write a second text after reading a first (Sutskever et al. 2014, arXiv 1409.3215)."""

    name: Literal["seq2seq"] = "seq2seq"
    target: str = Field("target", min_length=1, description="the field, or column, that holds the second text")
    target_length: Count | None = Field(
        None, description="most tokens of the second text, its end included; data.sequence_length if not given"
    )


class Contrastive(RowTask):
    """Give each text a vector, near those of texts that belong to it and far from others."""

    name: Literal["contrastive"] = "contrastive"
    second: str = Field("second", min_length=1, description="the field that holds a text which belongs to the first")
    label: str | None = Field(
        None, min_length=1, description="the field that holds the class: texts of one class belong together, not pairs"
    )
    projection: Count | None = Field(
        None, description="numbers of a vector, by a matrix from the model's features; null: the features"
    )
    normalize: bool = Field(
        True, description="vectors have length 1, so that similarities are cosines; false: products as they are"
    )

    @property
    def has_pairs(self) -> bool:
        """Whether a row holds two texts, and no class."""
        return self.label is None


TaskConfig = Annotated[
    CausalLanguageModeling
    | MaskedLanguageModeling
    | Classification
    | TokenClassification
    | Regression
    | SequenceToSequence
    | Contrastive,
    Field(discriminator="name"),
]
