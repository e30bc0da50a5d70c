"""Texts with holes: what is hidden is a pure function of the seed, the place in the stream, and the position.

Shape suffixes: B sequences · T positions.
"""

from __future__ import annotations

from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.data.packing import PackedSequences
from trimtab.data.streaming import StreamedSequences
from trimtab.data.tokenizer import Tokenizer
from trimtab.signals import IGNORED, Batch, key

_HIDDEN: Final = 0.8
_REPLACED: Final = 0.1


@final
class MaskedSequences:
    """Packed sequences in which tokens are hidden and asked for.

    Of the tokens each is asked for with probability `rate`, in each sequence at least one; of those 80 % become
    `mask_token`, 10 % any token of the vocabulary, and 10 % stay, so that the model cannot rely on a hole. Nothing is
    kept between batches: a resumed run hides the same tokens, and so does any split into micro-batches.
    Source: Devlin et al. 2019, arXiv 1810.04805, section 3.1; random words are Philox's (Salmon et al. 2011).
    """

    def __init__(
        self,
        packed: PackedSequences | StreamedSequences,
        *,
        rate: float,
        mask_token: int,
        seed: int,
        vocabulary_size: int | None = None,
    ) -> None:
        """The vocabulary is all tokens below `vocabulary_size`, or below `mask_token` if not given."""
        self.packed, self.rate, self.mask_token = packed, rate, mask_token
        self._vocabulary_size = mask_token if vocabulary_size is None else vocabulary_size
        self.sequence_length, self.num_tokens = packed.sequence_length, packed.num_tokens
        self.mean_length = packed.mean_length
        self._training = key(seed, 0, 0, "augmentation")
        self._evaluation = key(seed, 0, 0, "evaluation")

    def __len__(self) -> int:
        """Sequences."""
        return len(self.packed)

    def batch(
        self,
        indices: NDArray[np.int64],
        batch_size: int | None = None,
        occurrences: NDArray[np.int64] | None = None,
    ) -> Batch:
        """As `PackedSequences.batch`, with the hidden tokens as targets, each at its own position."""
        batch = self.packed.batch(indices, batch_size)
        tokens_BT, real_BT = batch.tokens_BT.numpy(), batch.document_ids_BT.numpy() >= 0
        targets_BT = np.full_like(tokens_BT, IGNORED)
        places, stream = (indices, self._evaluation) if occurrences is None else (occurrences, self._training)
        for row, place in enumerate(places.tolist()):
            length = int(real_BT[row].sum())
            chance, kind, other = _uniform(stream, place, self.sequence_length)[:, :length]
            asked = chance < self.rate
            asked[chance.argmin()] = True
            true = tokens_BT[row, :length].copy()
            targets_BT[row, :length] = np.where(asked, true, IGNORED)
            any_token = (other * self._vocabulary_size).astype(np.int64)
            shown = np.where(kind < _HIDDEN, self.mask_token, np.where(kind < _HIDDEN + _REPLACED, any_token, true))
            tokens_BT[row, :length] = np.where(asked, shown, true)
        return Batch(
            torch.from_numpy(tokens_BT),
            torch.from_numpy(targets_BT),
            batch.document_ids_BT,
            batch.positions_BT,
            batch.sample_ids_B,
            int((targets_BT != IGNORED).sum()),
        )


def hide_tokens(
    packed: PackedSequences | StreamedSequences, rate: float, tokenizer: Tokenizer, seed: int
) -> MaskedSequences:
    """With the tokenizer's own token for what is hidden, or one after its vocabulary."""
    known = tokenizer.vocabulary_size
    mask = known if tokenizer.mask is None else tokenizer.mask
    return MaskedSequences(packed, rate=rate, mask_token=mask, seed=seed, vocabulary_size=known)


def _uniform(stream: int, place: int, length: int) -> NDArray[np.float64]:
    """Three numbers in [0, 1) for each position of the sequence at `place`: [3, length]."""
    # Raw words: NumPy may change what its distributions give, but not Philox's words.
    words = np.random.Philox(key=np.array([stream, place], dtype=np.uint64)).random_raw(3 * length)
    uniform = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniform.reshape(length, 3).T
