"""Modules from elsewhere, called the way trimtab calls a model.

Shape suffixes: B sequences · T positions · V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from torch import Tensor, nn

from trimtab.errors import ConfigError
from trimtab.signals import ModelOutput


@final
class ForeignModel(nn.Module):
    """Any module that turns tokens_BT, its one positional argument, into logits_BTV.

    Its parameters and the entries of its state keep their names, behind the prefix `module.`; `module` is the
    object itself, unchanged, to be saved or used as before.
    """

    def __init__(self, module: nn.Module, vocabulary_size: int | None = None) -> None:
        super().__init__()
        self.module = module
        self.vocabulary_size = vocabulary_size

    def forward(
        self, tokens_BT: Tensor, positions_BT: Tensor | None = None, document_ids_BT: Tensor | None = None
    ) -> ModelOutput | Tensor:
        """The module's logits of shape [B, T, vocabulary_size], or its `ModelOutput`.

        Positions and documents are not passed on. Logits beyond `vocabulary_size`, padding of the module's
        own, are cut off.

        Raises:
            ConfigError: the module gives something else.
        """
        output = as_output(self.module(tokens_BT))
        if isinstance(output, ModelOutput):
            return output
        name, shape = type(self.module).__qualname__, tuple(output.shape)
        expected = (*tokens_BT.shape, self.vocabulary_size or "vocabulary")
        if len(shape) != 3 or shape[:2] != expected[:2]:
            raise ConfigError(
                f"model: {name} must give logits of shape {expected} for tokens of shape "
                f"{tuple(tokens_BT.shape)}. Received: a tensor of shape {shape}",
                hint="trimtab calls model(tokens_BT) and expects a score for every token at every position",
            )
        if self.vocabulary_size is None or shape[2] == self.vocabulary_size:
            return output
        if shape[2] < self.vocabulary_size:
            raise ConfigError(
                f"model: {name} scores {shape[2]} tokens, but the tokenizer has {self.vocabulary_size}",
                hint=f"build the model with a vocabulary of {self.vocabulary_size}",
            )
        return output[..., : self.vocabulary_size]


def as_output(output: Any) -> ModelOutput | Tensor:
    """What a module returned, as trimtab reads it: logits, the entry `logits` of a mapping (Hugging Face), or
    the first element of a tuple or list.

    Raises:
        ConfigError: none of these.
    """
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    elif isinstance(output, tuple | list) and output:
        output = output[0]
    if isinstance(output, ModelOutput | Tensor):
        return output
    raise ConfigError(
        "model: expected logits, a trimtab ModelOutput, a mapping with 'logits', or a tuple that begins with "
        f"logits. Received: {type(output).__qualname__}"
    )
