"""A model that somebody else built, made to be called as ours."""

from __future__ import annotations

import sys

from torch import nn

from trimtab.errors import ConfigError
from trimtab.model.foreign import ForeignModel
from trimtab.model.kinds import Network, Outside, Transformer
from trimtab.model.pretrained import wrap_pretrained
from trimtab.signals import Outputs, SpecialTokens


def wrap_model(
    module: nn.Module,
    vocabulary_size: int | None = None,
    outputs: Outputs | None = None,
    *,
    longest_sequence: int = 0,
    special: SpecialTokens | None = None,
) -> Transformer | Network | Outside:
    """`module` itself if trimtab can call it, else one around it: a model of transformers serves every task.

    Raises: ConfigError for a module that cannot be called for `outputs`: see `ForeignModel`.
    """
    if isinstance(module, Transformer | Network | Outside):
        return module
    if outputs is not None and special is not None and vocabulary_size is not None and is_hugging_face(module):
        return wrap_pretrained(
            module, outputs, vocabulary_size=vocabulary_size, longest_sequence=longest_sequence, special=special
        )
    if outputs is not None and outputs.vectors is not None:
        raise ConfigError(
            f"model: task {outputs.task} makes vectors with a head of trimtab's, which a module from outside has not",
            hint="a model of transformers serves every task",
        )
    return ForeignModel(module, vocabulary_size, outputs)


def is_hugging_face(module: nn.Module) -> bool:
    """Whether `module` is a model of transformers; imports nothing."""
    transformers = sys.modules.get("transformers.modeling_utils")
    return transformers is not None and isinstance(module, transformers.PreTrainedModel)
