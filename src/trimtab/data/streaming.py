"""Training on a stream: sequences cut from what has come, in the order in which it came, or shuffled in windows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.config import StreamSource
from trimtab.config.registry import load_target
from trimtab.data.cache import cache_folder
from trimtab.data.coding import Coding, TextCoding
from trimtab.data.spool import Spool
from trimtab.data.stream import require_known
from trimtab.data.tokenizer import Tokenizer
from trimtab.signals import IGNORED, Batch


@final
@dataclass(frozen=True, slots=True)
class Opening:
    """Calls what a configuration names; another process can, too."""

    target: str
    arguments: dict[str, Any]

    def __call__(self) -> Iterable[Any]:
        """The stream, from its beginning."""
        opened: Iterable[Any] = load_target(self.target, "data.source.target")(**self.arguments)
        return opened


def open_spool(
    config: StreamSource, tokenizer: Tokenizer, most_bad: int = 0, coding: Coding | None = None, kept: Any = None
) -> Spool:
    """The spool of the stream that `config` names: one for the same target, arguments and tokenizer, and what else
    decides what is `kept` by another `coding` than that of texts. Up to `most_bad` documents of a pass that lack what
    is asked for are passed over."""
    decides: list[Any] = [config.target, config.arguments, config.column, config.resume, tokenizer.fingerprint]
    if kept is not None:
        decides.append(kept)
    if most_bad:
        decides.append(most_bad)
    name = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:40]
    return Spool(
        cache_folder() / "streams" / name,
        Opening(config.target, dict(config.arguments)),
        coding or TextCoding(tokenizer, config.column),
        resume=config.resume,
        most_bad=most_bad,
    )


@final
class StreamedSequences:
    """Sequence i reads the T tokens from i·T on and predicts those after each; it is there when it is asked for.

    How many will come is not known: `len`, and `num_tokens`, are of the first chunk, which is read at once, and of
    which evaluations take their part of the training text.
    """

    def __init__(self, spool: Spool, sequence_length: int, end_of_text: int, vocabulary_size: int) -> None:
        """Tokens are checked to be below `vocabulary_size`."""
        self._vocabulary_size = vocabulary_size
        self._spool, self.sequence_length, self._end_of_text = spool, sequence_length, end_of_text
        self.num_tokens = len(spool.tokens(0, spool.chunk))

    def __len__(self) -> int:
        """Sequences in the first chunk."""
        return max(1, (self.num_tokens - 1) // self.sequence_length)

    @property
    def mean_length(self) -> float:
        """Positions in a sequence."""
        return float(self.sequence_length)

    @property
    def head_hash(self) -> str:
        """SHA-256 of the tokens of the first chunk."""
        return hashlib.sha256(self._spool.tokens(0, self.num_tokens).tobytes()).hexdigest()

    def batch(
        self,
        indices: NDArray[np.int64],
        batch_size: int | None = None,
        occurrences: NDArray[np.int64] | None = None,
    ) -> Batch:
        """As `PackedSequences.batch`; documents are counted within each sequence.

        Raises: DataError for a token that is not of the vocabulary; and as `Spool.tokens`.
        """
        rows, length = len(indices) if batch_size is None else batch_size, self.sequence_length
        tokens_BT = np.zeros((rows, length), dtype=np.int64)
        targets_BT = np.full((rows, length), IGNORED, dtype=np.int64)
        document_ids_BT = np.full((rows, length), -1, dtype=np.int32)
        positions_BT = np.zeros((rows, length), dtype=np.int32)
        sample_ids_B = np.full(rows, -1, dtype=np.int64)
        sample_ids_B[: len(indices)] = indices
        for row, index in enumerate(indices.tolist()):
            window = self._spool.tokens(index * length, (index + 1) * length + 1).astype(np.int64)
            require_known(window, self._vocabulary_size, self._spool.name, index * length)
            tokens_BT[row], targets_BT[row] = window[:-1], window[1:]
            ids = np.concatenate([[0], np.cumsum(window[:-2] == self._end_of_text)])
            starts = np.searchsorted(ids, np.arange(ids[-1] + 1))
            document_ids_BT[row] = ids
            positions_BT[row] = np.arange(length) - starts[ids]
        return Batch(
            torch.from_numpy(tokens_BT),
            torch.from_numpy(targets_BT),
            torch.from_numpy(document_ids_BT),
            torch.from_numpy(positions_BT),
            torch.from_numpy(sample_ids_B),
            len(indices) * length,
        )
