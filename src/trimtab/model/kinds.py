"""The kinds of models there are."""

from __future__ import annotations

from typing import TypeGuard

from torch import nn

from trimtab.model.convolutional import ConvolutionalNetwork
from trimtab.model.encoder import Encoder
from trimtab.model.encoder_decoder import EncoderDecoder
from trimtab.model.foreign import ForeignModel
from trimtab.model.hugging_face import HuggingFaceModel
from trimtab.model.perceptron import MultilayerPerceptron
from trimtab.model.transformer import Decoder

Transformer = Decoder | Encoder | EncoderDecoder
"""The models that trimtab builds itself. They measure their activations, and can be compiled and captured."""

Network = MultilayerPerceptron | ConvolutionalNetwork
"""Small ones that it builds, without attention. Their running statistics change in forward passes."""

Outside = ForeignModel | HuggingFaceModel
"""Those that it does not build, which may draw from any generator and keep state anywhere."""

Translator = EncoderDecoder | HuggingFaceModel | ForeignModel
"""They read a text and write another; of those from outside the ones for sequence to sequence."""


def translates(model: nn.Module) -> TypeGuard[Translator]:
    """Whether `model` writes a second text after reading a first."""
    return isinstance(model, EncoderDecoder) or (isinstance(model, Outside) and model.task == "seq2seq")
