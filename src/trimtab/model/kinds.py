"""The models that trimtab builds itself."""

from __future__ import annotations

from trimtab.model.encoder import Encoder
from trimtab.model.encoder_decoder import EncoderDecoder
from trimtab.model.transformer import Decoder

Transformer = Decoder | Encoder | EncoderDecoder
"""They measure their activations, and can be compiled and captured."""
