"""An encoder that reads, and a decoder that writes and looks at what was read.

Shape suffixes: B pairs · T positions of the first text · S positions of the second · D hidden size · V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Unpack, final

from torch import Tensor, nn

from trimtab.model.block import Block
from trimtab.model.trunk import Shape, Trunk
from trimtab.signals import ModelOutput


@final
class EncoderDecoder(nn.Module):
    """Predicts each token of a second text from those before it and the whole first one.

    Both texts have one vocabulary and one embedding; the head never has a bias, and with `tied_embeddings` its weight
    is the embedding's.
    Source: Vaswani et al. 2017, section 3; the shared embedding: section 3.4.
    """

    def __init__(self, *, tied_embeddings: bool = True, **shape: Unpack[Shape]) -> None:
        super().__init__()
        self.width_ratio = 1.0
        self.encoder = Trunk(**shape)
        self.decoder = Trunk(reads_memory=True, **shape)
        self.decoder.embedding = self.encoder.embedding
        self.head = nn.Linear(shape["hidden_size"], shape["vocabulary_size"], bias=False)
        if tied_embeddings:
            self.head.weight = self.encoder.embedding.weight

    @property
    def measure_activations(self) -> bool:
        """Whether the output's `signals` hold the root mean square of each block's output."""
        return self.encoder.measure_activations

    @measure_activations.setter
    def measure_activations(self, measure: bool) -> None:
        self.encoder.measure_activations = self.decoder.measure_activations = measure

    @property
    def most_read(self) -> int:
        """Positions of the longest text that it can read."""
        return self.encoder.max_positions

    @property
    def most_written(self) -> int:
        """Positions of the longest text that it can write."""
        return self.decoder.max_positions

    @property
    def all_blocks(self) -> Iterable[Block]:
        """Those of the encoder, then those of the decoder."""
        return chain(self.encoder.all_blocks, self.decoder.all_blocks)

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The names in the output's `signals`, when activations are measured."""
        return (*_within("encoder", self.encoder.signal_names), *_within("decoder", self.decoder.signal_names))

    def forward(self, tokens_BT: Tensor, document_ids_BT: Tensor | None, second_BS: Tensor) -> ModelOutput:
        """Features [B, S, D] of what comes after each position of `second_BS`, and the head for them.

        Raises:
            ConfigError: more tokens than positions.
        """
        memory_BTD, read = self.encode(tokens_BT, document_ids_BT)
        output = self.decode(second_BS, memory_BTD, document_ids_BT)
        signals = dict(zip(self.signal_names, (*read.values(), *output.signals.values()), strict=False))
        return ModelOutput(output.features, self.head, signals)

    def encode(self, tokens_BT: Tensor, document_ids_BT: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """What the decoder reads, [B, T, D], and the encoder's signals."""
        return self.encoder.features(tokens_BT, None, document_ids_BT, causal=False)

    def decode(self, second_BS: Tensor, memory_BTD: Tensor, document_ids_BT: Tensor | None) -> ModelOutput:
        """Features [B, S, D] for a second text, given what `encode` gave of the first.

        Padding of the second text needs no mask: it stands at the end, and no position sees what follows it.
        """
        memory_mask = None if document_ids_BT is None else (document_ids_BT >= 0)[:, None, None, :]
        features_BSD, signals = self.decoder.features(
            second_BS, None, None, causal=True, memory_BSD=memory_BTD, memory_mask=memory_mask
        )
        return ModelOutput(features_BSD, self.head, signals)


def _within(part: str, names: Iterable[str]) -> Iterable[str]:
    return (name.replace("layer/", f"layer/{part}.", 1) for name in names)
