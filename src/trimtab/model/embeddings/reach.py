"""Which module of a model turns tokens into vectors."""

from __future__ import annotations

from torch import nn

from trimtab.errors import ConfigError
from trimtab.model.convolutional import ConvolutionalNetwork
from trimtab.model.encoder_decoder import EncoderDecoder
from trimtab.model.hugging_face import HuggingFaceModel
from trimtab.model.perceptron import MultilayerPerceptron
from trimtab.model.trunk import Trunk


def embedding_of(model: nn.Module, asked: str) -> nn.Module:
    """The embedding of tokens, whose output is [B, T, D], before positions are added.

    Raises: ConfigError, which names the setting `asked`, for a model that has none that is known.
    """
    if isinstance(model, Trunk | MultilayerPerceptron | ConvolutionalNetwork):
        return model.embedding
    if isinstance(model, EncoderDecoder):
        return model.encoder.embedding
    if isinstance(model, HuggingFaceModel):
        found = model.module.get_input_embeddings()  # type: ignore[operator]
        if isinstance(found, nn.Module):
            return found
    raise ConfigError(
        f"{asked} changes the embeddings of tokens, and where those of {type(model).__name__} are is not known",
        hint="it is known of trimtab's own models, and of those of transformers",
    )
