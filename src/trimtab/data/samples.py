"""Texts with what is asked about them: one row of a batch is one text, padded.

Shape suffixes: B texts · T positions · S positions of a second text · V labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.data.frame import Frame
from trimtab.data.stream import require_known
from trimtab.signals import IGNORED, Batch

Tokens = NDArray[np.integer[Any]]

_MULTIPLE: Final = 8
"""Rows are padded to a multiple of it: fewer shapes, and what tensor cores want."""


@final
@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of different length, one after the other."""

    values: Tokens
    starts: NDArray[np.int64]
    """Where each begins, and one more: the end."""

    def __getitem__(self, index: int) -> Tokens:
        row: Tokens = self.values[self.starts[index] : self.starts[index + 1]]
        return row

    def __len__(self) -> int:
        return len(self.starts) - 1

    def lengths(self) -> NDArray[np.int64]:
        """Of every row."""
        return np.diff(self.starts)


@final
class LabelledTexts:
    """Texts, each with a class, several labels, a number, a class for each token, or a second text.

    Of `tokens` the last one of each row, the end of text, is left out, and the row of a batch stands in a frame, or
    begins with the end of text instead: so none is empty, and pooling has a first position. `targets` has one entry,
    or row, for each text; with
    `tags` it is one for each token of `tokens`, and with `second` it is missing, or says which rows belong together:
    then the second text stands in the same frame as the first, padded with -1. Texts are cut to `sequence_length`,
    second ones to `second_length`.
    """

    def __init__(
        self,
        tokens: Ragged,
        targets: NDArray[Any] | None,
        *,
        end_of_text: int,
        sequence_length: int,
        full: bool = False,
        tags: bool = False,
        second: Ragged | None = None,
        second_length: int = 0,
        frame: Frame | None = None,
        vocabulary_size: int | None = None,
        source: str = "texts",
    ) -> None:
        """With `full` every batch has `sequence_length` positions; else it is as long as its longest text. With
        `vocabulary_size` every batch is checked against it; errors name `source`."""
        self._tokens, self._targets, self._second = tokens, targets, second
        self._full, self._tags = full, tags
        self._frame = frame or Frame.beginning(end_of_text)
        self._vocabulary_size, self._source = vocabulary_size, source
        self.sequence_length, self.second_length = sequence_length, second_length
        whole = tokens.lengths() - 1 + self._frame.size
        self.lengths = np.minimum(whole, sequence_length)
        """Tokens of each row of a batch, [N], the frame included."""
        self.num_tokens = int(self.lengths.sum())
        self.num_cut = int((whole > sequence_length).sum())
        """Texts that were longer."""
        self.longest = int(whole.max(initial=0))
        """Tokens of the longest one before it was cut, the frame included."""

    @property
    def widths(self) -> NDArray[np.int64]:
        """Positions of each row alone in a batch, [N]: texts of one width stand together without more padding."""
        if self._full:
            return np.full_like(self.lengths, self.sequence_length)
        widths: NDArray[np.int64] = np.minimum(self.sequence_length, -(-self.lengths // _MULTIPLE) * _MULTIPLE)
        return widths

    @property
    def stream(self) -> tuple[Tokens, NDArray[np.int64]]:
        """The tokens of all texts, whole, and where each begins, and one more: the end."""
        return self._tokens.values, self._tokens.starts

    @property
    def targets(self) -> NDArray[Any] | None:
        """One entry, or row, for each text; with tags one for each token; None of second texts."""
        return self._targets

    @property
    def mean_length(self) -> float:
        """Tokens of a text, as it is read."""
        return self.num_tokens / len(self)

    def __len__(self) -> int:
        """Texts."""
        return len(self._tokens)

    def row(self, index: int) -> Tokens:
        """The tokens of one text, without any end of text."""
        return self._tokens[index][:-1]

    @property
    def all_tokens(self) -> Tokens:
        """The tokens of all texts, one after the other, each with its end of text."""
        return self._tokens.values

    def rows(self) -> Iterator[Tokens]:
        """Each text as it is read, cut, without frame and end of text."""
        for index in range(len(self)):
            yield self.row(index)[: self.sequence_length - self._frame.size]

    def second_row(self, index: int) -> Tokens:
        """The tokens of the second one, without any end of text. Raises: ValueError where there is none."""
        if self._second is None:
            raise ValueError("these texts have no second one")
        return self._second[index][:-1]

    def batch(
        self,
        indices: NDArray[np.int64],
        batch_size: int | None = None,
        occurrences: NDArray[np.int64] | None = None,
    ) -> Batch:
        """The texts `indices`, in `batch_size` rows if given. Nothing is drawn, so that `occurrences` changes nothing.

        Padding: token 0, target IGNORED, document -1, position 0; sample -1 for a whole row.

        Raises:
            IndexError: an index is out of range, or there are more than `batch_size`.
            DataError: a token is not of the vocabulary; it names `source`, the text and the position.
        """
        rows = len(indices) if batch_size is None else batch_size
        if len(indices) > rows:
            raise IndexError(f"{len(indices)} texts do not fit into a batch of {rows}")
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"indices must be at least 0 and below {len(self)}. Received: {indices}")
        width = self._width(self.lengths[indices], self.sequence_length)
        tokens_BT = np.zeros((rows, width), dtype=np.int64)
        document_ids_BT = np.full((rows, width), -1, dtype=np.int32)
        positions_BT = np.zeros((rows, width), dtype=np.int32)
        sample_ids_B = np.full(rows, -1, dtype=np.int64)
        sample_ids_B[: len(indices)] = indices
        for row, index in enumerate(indices.tolist()):
            length = int(self.lengths[index])
            before, after = self._frame.before, self._frame.after
            tokens = self._tokens[index][: length - self._frame.size]
            self._require_known(tokens, index)
            tokens_BT[row, : len(before)] = before
            tokens_BT[row, len(before) : length - len(after)] = tokens
            tokens_BT[row, length - len(after) : length] = after
            document_ids_BT[row, :length] = index
            positions_BT[row, :length] = np.arange(length)
        second_BS: NDArray[np.int64] | None = None
        if self._second is not None and self._targets is None:
            second_BS, targets = self._pairs(self._second, indices, rows)
        elif self._tags:
            targets = self._tags_of(indices, (rows, width))
        else:
            assert self._targets is not None
            targets = np.full((rows, *self._targets.shape[1:]), IGNORED, dtype=self._targets.dtype)
            targets[: len(indices)] = self._targets[indices]
            if self._second is not None:
                second_BS = self._partners(self._second, indices, rows)
        return Batch(
            torch.from_numpy(tokens_BT),
            torch.from_numpy(targets),
            torch.from_numpy(document_ids_BT),
            torch.from_numpy(positions_BT),
            torch.from_numpy(sample_ids_B),
            int((targets != IGNORED).sum()),
            None if second_BS is None else torch.from_numpy(second_BS),
        )

    def _require_known(self, tokens: Tokens, index: int) -> None:
        if self._vocabulary_size is not None:
            require_known(tokens, self._vocabulary_size, f"{self._source}: text {index}")

    def _width(self, lengths: NDArray[np.int64], most: int) -> int:
        if self._full:
            return most
        longest = int(lengths.max(initial=1))
        return min(most, -(-longest // _MULTIPLE) * _MULTIPLE)

    def _tags_of(self, indices: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
        assert self._targets is not None
        targets_BT = np.full(shape, IGNORED, dtype=np.int64)
        for row, index in enumerate(indices.tolist()):
            begin, length = int(self._tokens.starts[index]), int(self.lengths[index])
            first, size = len(self._frame.before), length - self._frame.size
            targets_BT[row, first : first + size] = self._targets[begin : begin + size]
        return targets_BT

    def _partners(self, second: Ragged, indices: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
        before, after, size = self._frame.before, self._frame.after, self._frame.size
        lengths = np.minimum(second.lengths()[indices] - 1 + size, self.second_length)
        second_BS = np.full((rows, self._width(lengths, self.second_length)), -1, dtype=np.int64)
        for row, (index, length) in enumerate(zip(indices.tolist(), lengths.tolist(), strict=True)):
            tokens = second[index][: length - size]
            self._require_known(tokens, index)
            second_BS[row, :length] = [*before, *tokens, *after]
        return second_BS

    def _pairs(
        self, second: Ragged, indices: NDArray[np.int64], rows: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What the decoder reads, begun with an end of text, and what it is asked for: the same one further on."""
        lengths = np.minimum(second.lengths()[indices], self.second_length)
        width = self._width(lengths, self.second_length)
        read_BS = np.zeros((rows, width), dtype=np.int64)
        targets_BS = np.full((rows, width), IGNORED, dtype=np.int64)
        for row, (index, length) in enumerate(zip(indices.tolist(), lengths.tolist(), strict=True)):
            text = second[index][:length]
            self._require_known(text, index)
            read_BS[row, 0] = self._frame.second
            read_BS[row, 1:length] = text[:-1]
            targets_BS[row, :length] = text
        return read_BS, targets_BS
