"""Training on a stream of rows: a text each, with a class, several labels, a number, or tags."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.config import DataConfig, RowTask, StreamSource, TokenClassification
from trimtab.data.coding import RowCoding
from trimtab.data.samples import LabelledTexts
from trimtab.data.spool import Spool
from trimtab.data.streaming import open_spool
from trimtab.data.tokenizer import Tokenizer
from trimtab.signals import Batch, TargetFacts


@final
class StreamedTexts:
    """Row i of a stream, which is there when it is asked for.

    How many will come is not known: `len`, `lengths`, `num_tokens`, `num_cut` and `longest` are of the first chunk,
    which is read at once, and of which evaluations take their part of the training rows.
    """

    def __init__(
        self, spool: Spool, coding: RowCoding, tokenizer: Tokenizer, sequence_length: int, *, full: bool, tags: bool
    ) -> None:
        """`full` and `tags` as of `LabelledTexts`."""
        self._spool, self._coding, self._tokenizer = spool, coding, tokenizer
        self.sequence_length, self._full, self._tags = sequence_length, full, tags
        rows = max(1, spool.chunk // coding.width)
        first = spool.tokens(0, rows * coding.width)
        self.head_hash = hashlib.sha256(first.tobytes()).hexdigest()
        """SHA-256 of the rows of the first chunk."""
        whole = coding.decode(first)[0] + tokenizer.frame.size
        self.lengths = np.minimum(whole, sequence_length)
        self.num_tokens, self.num_cut = int(self.lengths.sum()), int((whole > sequence_length).sum())
        self.longest = int(whole.max(initial=0))

    def __len__(self) -> int:
        """Rows in the first chunk."""
        return len(self.lengths)

    @property
    def mean_length(self) -> float:
        """Tokens of a text, as it is read."""
        return self.num_tokens / len(self)

    def batch(
        self,
        indices: NDArray[np.int64],
        batch_size: int | None = None,
        occurrences: NDArray[np.int64] | None = None,
    ) -> Batch:
        """As `LabelledTexts.batch`; documents are counted within the batch.

        Raises: DataError for a token that is not of the vocabulary; and as `Spool.tokens`.
        """
        width = self._coding.width
        kept = [self._spool.tokens(index * width, (index + 1) * width) for index in indices.tolist()]
        _, tokens, targets = self._coding.decode(np.concatenate([np.empty(0, self._coding.dtype), *kept]))
        texts = LabelledTexts(
            tokens,
            targets,
            end_of_text=self._tokenizer.end_of_text,
            sequence_length=self.sequence_length,
            full=self._full,
            tags=self._tags,
            frame=self._tokenizer.frame,
            vocabulary_size=self._tokenizer.vocabulary_size,
            source=self._spool.name,
        )
        batch = texts.batch(np.arange(len(indices)), batch_size)
        sample_ids_B = batch.sample_ids_B.clone()
        sample_ids_B[: len(indices)] = torch.from_numpy(indices)
        return replace(batch, sample_ids_B=sample_ids_B)


def stream_rows(
    config: DataConfig, source: StreamSource, task: RowTask, facts: TargetFacts, tokenizer: Tokenizer
) -> StreamedTexts:
    """Rows of the stream that `config` names, read with the classes and units of `facts`."""
    coding = RowCoding(task, facts, tokenizer, config.sequence_length - tokenizer.frame.size, source.column)
    decides = [task.model_dump(exclude={"padding", "bucketing", "class_weights"}), config.sequence_length]
    kept = [*decides, list(facts.classes), facts.mean, facts.deviation, tokenizer.frame.size]
    return StreamedTexts(
        open_spool(source, tokenizer, config.most_bad, coding, kept),
        coding,
        tokenizer,
        config.sequence_length,
        full=task.padding == "full",
        tags=isinstance(task, TokenClassification),
    )
