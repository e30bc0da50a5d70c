"""Sequences cut from a stream of tokens: the packing index.

All documents of a set follow each other in one memory-mapped stream, each ended by the end-of-text token.
Sequence i reads the T tokens from i*T on and predicts the T tokens from i*T + 1 on, so that every token but
the very first is predicted exactly once. That includes the end of a document, and the first token of the next
one, which is predicted from the end of the one before.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.data.stream import require_known
from trimtab.signals import IGNORED, Batch

Tokens = NDArray[np.integer[Any]]


@final
class PackedSequences:
    """Sequences of one length, made when they are asked for."""

    def __init__(
        self,
        tokens: Tokens,
        document_starts: NDArray[np.int64],
        sequence_length: int,
        *,
        num_bytes: int,
        vocabulary_size: int | None = None,
        source: str = "tokens",
        stride: int | None = None,
    ) -> None:
        """`tokens` is the stream, at least two; `document_starts` are positions in it, rising from 0. With
        `vocabulary_size` every batch is checked against it; errors name `source`. With `stride` sequences overlap: see
        `sliding`."""
        self.tokens = tokens
        self.document_starts = document_starts
        self.sequence_length = sequence_length
        self.num_tokens = len(tokens)
        self._vocabulary_size, self._source = vocabulary_size, source
        self._stride = sequence_length if stride is None else stride
        self.num_bytes = num_bytes
        """UTF-8 bytes of the text in the stream."""

    @property
    def num_documents(self) -> int:
        """Documents in the stream."""
        return len(self.document_starts)

    def __len__(self) -> int:
        """Sequences; the last one may be shorter, and is padded."""
        beyond = max(0, self.num_tokens - 1 - self.sequence_length)
        return 1 + -(-beyond // self._stride)

    def bounds_of_documents(self, begin: int, end: int) -> tuple[int, int]:
        """The sequences that begin in the documents `begin` to `end`, the latter not included."""
        edges = [*self.document_starts[[begin]].tolist(), self.num_tokens - 1]
        if end < self.num_documents:
            edges[1] = int(self.document_starts[end])
        first, last = (-(-edge // self.sequence_length) for edge in edges)
        return first, min(last, len(self))

    @property
    def mean_length(self) -> float:
        """Positions in a sequence, of those that overlap the ones that are counted; only the last may have fewer."""
        return float(self._stride)

    def sliding(self, stride: int) -> PackedSequences:
        """The same stream in sequences that begin every `stride` tokens, at most `sequence_length`.

        Of each but the first the last `stride` targets alone are counted: each target once, with at least
        `sequence_length - stride` tokens before it where the text has them.
        """
        if not 1 <= stride <= self.sequence_length:
            raise ValueError(f"stride must be from 1 to {self.sequence_length}. Received: {stride}")
        return PackedSequences(
            self.tokens,
            self.document_starts,
            self.sequence_length,
            num_bytes=self.num_bytes,
            vocabulary_size=self._vocabulary_size,
            source=self._source,
            stride=stride,
        )

    def batch(
        self,
        indices: NDArray[np.int64],
        batch_size: int | None = None,
        occurrences: NDArray[np.int64] | None = None,
    ) -> Batch:
        """The sequences `indices` as a batch of `batch_size` rows, `len(indices)` if not given.

        Nothing is drawn, so that `occurrences` changes nothing.

        document_ids_BT counts documents of the whole stream. positions_BT counts from the start of the
        document, or from the start of the sequence in a document that began before it. Padding, at the end of
        the last sequence and in rows without one: token 0, target IGNORED, document -1, position 0; sample -1
        for a whole row.

        Raises:
            IndexError: an index is out of range, or there are more than `batch_size`.
            DataError: a token is not of the vocabulary; it names `source` and the position.
        """
        rows, length = len(indices) if batch_size is None else batch_size, self.sequence_length
        if len(indices) > rows:
            raise IndexError(f"{len(indices)} sequences do not fit into a batch of {rows}")
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"sequence indices must be at least 0 and below {len(self)}. Received: {indices}")
        tokens_BT = np.zeros((rows, length), dtype=np.int64)
        targets_BT = np.full((rows, length), IGNORED, dtype=np.int64)
        document_ids_BT = np.full((rows, length), -1, dtype=np.int32)
        positions_BT = np.zeros((rows, length), dtype=np.int32)
        sample_ids_B = np.full(rows, -1, dtype=np.int64)
        count = 0
        for row, index in enumerate(indices.tolist()):
            begin = index * self._stride
            known = length - self._stride if index else 0
            window = self.tokens[begin : begin + length + 1]
            num = len(window) - 1
            if self._vocabulary_size is not None:
                require_known(window, self._vocabulary_size, self._source, begin)
            tokens_BT[row, :num] = window[:-1]
            targets_BT[row, known:num] = window[1 + known :]
            place = np.arange(begin, begin + num)
            first = int(np.searchsorted(self.document_starts, begin, side="right")) - 1
            after = int(np.searchsorted(self.document_starts, begin + num, side="left"))
            starts = self.document_starts[first:after]
            document = np.searchsorted(starts, place, side="right") - 1
            document_ids_BT[row, :num] = first + document
            positions_BT[row, :num] = place - np.maximum(starts, begin)[document]
            sample_ids_B[row] = index
            count += num - known
        return Batch(
            torch.from_numpy(tokens_BT),
            torch.from_numpy(targets_BT),
            torch.from_numpy(document_ids_BT),
            torch.from_numpy(positions_BT),
            torch.from_numpy(sample_ids_B),
            count,
        )
