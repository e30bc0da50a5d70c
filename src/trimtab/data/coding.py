"""What a document of a stream becomes on disk: the tokens of its text, or a record of fixed size with its target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from trimtab.config import Classification, RowTask, TaskConfig, TokenClassification
from trimtab.config.nearest import did_you_mean, nearest_names
from trimtab.data.corpora import Document, joined
from trimtab.data.labelled import wanted_fields
from trimtab.data.samples import Ragged
from trimtab.data.targets import missing_in, require_known_classes, require_target, target_reader
from trimtab.data.tokenizer import Tokenizer
from trimtab.errors import DataError
from trimtab.signals import IGNORED, TargetFacts

_WHERE = "data.source"


class Coding(Protocol):
    """How a spool reads and keeps the documents of a stream."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers that are kept."""
        ...

    def read(self, document: Any, number: int) -> Document | None:
        """What a document holds, which is the stream's `number`-th of a pass; None where that is nothing.

        Raises: DataError where what is asked for is not in it.
        """
        ...

    def encode(self, documents: Sequence[Document]) -> Iterator[NDArray[np.int64]]:
        """The numbers of each; they depend on no other."""
        ...


@final
class TextCoding:
    """The tokens of a text, and its end."""

    def __init__(self, tokenizer: Tokenizer, column: str = "text") -> None:
        self._tokenizer, self._column = tokenizer, column
        self.dtype = np.dtype(np.uint16 if tokenizer.vocabulary_size <= 1 << 16 else np.uint32)

    def read(self, document: Any, number: int) -> Document | None:
        """The text."""
        text = document.get(self._column) if isinstance(document, Mapping) else document
        _require_text(text, document, self._column, number)
        return Document("", text, identity="") if text else None

    def encode(self, documents: Sequence[Document]) -> Iterator[NDArray[np.int64]]:
        """Each ended."""
        for tokens in self._tokenizer.encode_batch([one.text for one in documents]):
            yield np.append(tokens, self._tokenizer.end_of_text)


@final
class RowCoding:
    """A text, cut, and its class, labels, number or tags: a record of `width` numbers, so that each is found at once.

    `facts` say which classes there are, and what is 0 and 1 for a number.
    """

    def __init__(
        self, task: RowTask, facts: TargetFacts, tokenizer: Tokenizer, room: int, column: str = "text"
    ) -> None:
        """`room` is for the tokens of a text, without its frame."""
        self._task: TaskConfig = task  # type: ignore[assignment]
        self._facts, self._tokenizer, self._column, self.room = facts, tokenizer, column, room
        self._is_tags = isinstance(task, TokenClassification)
        self.dtype = np.dtype(np.uint16 if tokenizer.vocabulary_size <= 1 << 16 else np.uint32)
        (self._where, self._field), *_ = wanted_fields(self._task).items()
        self._record = np.dtype(
            [("length", np.uint32), ("target", *self._target()), ("tokens", self.dtype, (room + room % 2,))]
        )
        self.width = self._record.itemsize // self.dtype.itemsize

    def _target(self) -> tuple[Any, tuple[int, ...]]:
        """Type and shape of a target; a multiple of four bytes."""
        if self._is_tags:
            return np.int32, (self.room,)
        if isinstance(self._task, Classification):
            return (np.uint8, (-(-len(self._facts.classes) // 4) * 4,)) if self._task.multi_label else (np.int32, ())
        return np.float32, ()

    def read(self, document: Any, number: int) -> Document | None:
        """Text and target; None where one of them is empty, or missing."""
        name = f"{_WHERE}: document {number:,} of the stream"
        if not isinstance(document, Mapping):
            raise DataError(f"{name} must be a mapping of fields. Received: {type(document).__name__}")
        text, words = joined(document.get(self._column), {self._where: self._field})
        _require_text(text, document, self._column, number)
        if self._field not in document:
            raise DataError(
                f"{name} has no field {self._field!r} ({self._where})",
                hint=did_you_mean(nearest_names(self._field, list(map(str, document)))),
            )
        row = Document(name, text, identity="", fields=(document[self._field],), words=words)
        if not text or missing_in(row, self._task):
            return None
        require_target(row, self._task)
        require_known_classes(row, self._task, self._facts)
        return row

    def encode(self, documents: Sequence[Document]) -> Iterator[NDArray[np.int64]]:
        """A record of each; of its tokens what there is room for, and how many it has."""
        written = _Written()
        reader = target_reader(self._task, {"training": (), "validation": documents}, Path(), self._facts)
        targets = reader.write(documents, self._tokenizer, written)
        records = np.zeros(len(documents), self._record)
        begin = 0
        for number, tokens in enumerate(written.tokens):
            kept = tokens[: self.room]
            records["length"][number] = len(tokens)
            records["tokens"][number, : len(kept)] = kept
            if self._is_tags:
                records["target"][number] = IGNORED
                records["target"][number, : len(kept)] = targets[begin : begin + len(kept)]
                begin += len(tokens) + 1
        if isinstance(self._task, Classification) and self._task.multi_label:
            records["target"][:, : targets.shape[1]] = targets
        elif not self._is_tags:
            records["target"] = targets
        yield from records.view(self.dtype).reshape(-1, self.width).astype(np.int64)

    def decode(self, kept: NDArray[Any]) -> tuple[NDArray[np.int64], Ragged, NDArray[Any]]:
        """Of whole records: the lengths of their texts, uncut; their tokens, each row ended; their targets."""
        records = np.ascontiguousarray(kept, self.dtype).view(self._record)
        whole = records["length"].astype(np.int64)
        lengths = np.minimum(whole, self.room)
        rows = [np.append(row[:length], 0) for row, length in zip(records["tokens"], lengths.tolist(), strict=True)]
        starts = np.concatenate([[0], np.cumsum(lengths + 1)])
        tokens = Ragged(np.concatenate([np.empty(0, self.dtype), *rows]), starts)
        target = records["target"]
        if self._is_tags:
            pairs = zip(target, lengths.tolist(), strict=True)
            parts = [np.append(row[:length], IGNORED).astype(np.int64) for row, length in pairs]
            return whole, tokens, np.concatenate([np.empty(0, np.int64), *parts])
        if target.ndim == 2:
            return whole, tokens, target[:, : len(self._facts.classes)].astype(np.float32)
        return whole, tokens, target.astype(np.int64) if target.dtype == np.int32 else target.copy()


@final
class _Written:
    """What a reader of targets writes."""

    name = "training"

    def __init__(self) -> None:
        self.tokens: list[NDArray[np.int64]] = []

    def write(self, text: str, tokens: NDArray[np.int64], source: str = "") -> None:
        self.tokens.append(tokens)


def _require_text(text: Any, document: Any, column: str, number: int) -> None:
    if not isinstance(text, str):
        fields = list(document) if isinstance(document, Mapping) else []
        raise DataError(
            f"{_WHERE}.column: document {number:,} of the stream has no text in {column!r}. "
            f"Received: {type(text).__name__}"
            + (f"; its fields: {', '.join(map(repr, fields[:12]))}" if fields else "")
        )
