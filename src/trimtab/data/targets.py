"""What each task makes of the field of a row that says what is asked.

Each reader is built from the rows of both sides, and then writes the rows of one side: their tokens into a stream, and
their targets as an array that it gives.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, final

import numpy as np
from numpy.typing import NDArray

from trimtab.config import (
    Classification,
    Contrastive,
    Regression,
    SequenceToSequence,
    TaskConfig,
    TokenClassification,
)
from trimtab.config.nearest import did_you_mean, nearest_names
from trimtab.data.corpora import Document
from trimtab.data.stream import Stream
from trimtab.data.tokenizer import Tokenizer
from trimtab.errors import DataError
from trimtab.signals import IGNORED, TargetFacts

_LARGEST: Final = float(np.finfo(np.float32).max)

Sides = Mapping[str, Sequence[Document]]
"""`training` and `validation`."""


class Writes(Protocol):
    """Where the tokens of rows go: a `Stream`, or memory."""

    @property
    def name(self) -> str:
        """The side that the rows are of."""
        ...

    def write(self, text: str, tokens: NDArray[np.int64], source: str = "") -> None:
        """Take a text and its tokens."""
        ...


class TargetReader(Protocol):
    """Reads the targets of one task."""

    @property
    def facts(self) -> TargetFacts:
        """Of the training targets."""
        ...

    def write(self, rows: Sequence[Document], tokenizer: Tokenizer, stream: Writes) -> NDArray[Any]:
        """Write the tokens of `rows` into `stream`; gives their targets."""
        ...


def target_reader(task: TaskConfig, sides: Sides, folder: Path, known: TargetFacts | None = None) -> TargetReader:
    """The reader of `task`, which takes classes and units from `known`, where that is given, instead of the rows.

    Raises: DataError for a target that is none, or a class that is not known.
    """
    match task:
        case Classification() if task.multi_label:
            return _Labels(task, sides, known)
        case Classification():
            return _Classes(task, sides, known)
        case TokenClassification():
            return _Tags(task, sides, known)
        case Regression():
            return _Numbers(task, sides, known)
        case SequenceToSequence():
            return _Seconds(sides, folder)
        case Contrastive() if task.has_pairs:
            return _Partners(sides, folder)
        case Contrastive():
            return _Classes(task, sides, known)
        case _:
            raise ValueError(f"task {task.name} has no targets of its own")


def require_known_classes(row: Document, task: TaskConfig, facts: TargetFacts) -> None:
    """Raises: DataError where `row` has a class that `facts` do not name."""
    match task:
        case Classification():
            names = _labels(row, task.separator) if task.multi_label else [_name(row, row.fields[0], "task.label")]
            _require_classes(names, facts, f"{row.name}: task.label")
        case TokenClassification():
            _require_classes(_tags(row)[1], facts, f"{row.name}: task.tags")


def missing_in(row: Document, task: TaskConfig) -> str | None:
    """Why nothing can be asked about `row`, or None."""
    target = row.fields[0]
    if isinstance(task, TokenClassification) and not _words(row) and not target:
        return "empty"
    # Several labels at once may be none at all.
    may_be_empty = isinstance(task, Classification) and task.multi_label
    return "without a target" if target is None or (target == "" and not may_be_empty) else None


def require_target(row: Document, task: TaskConfig) -> None:
    """Raises: DataError when what is asked about `row` is no target of `task`."""
    match task:
        case Classification(multi_label=True):
            _labels(row, task.separator)
        case Classification() | Contrastive(label=str()):
            _name(row, row.fields[0], "task.label")
        case TokenClassification():
            _tags(row)
        case Regression():
            _number(row)
        case _:
            if not isinstance(row.fields[0], str):
                where = "task.second" if isinstance(task, Contrastive) else "task.target"
                raise _wrong(row, where, "text", row.fields[0])


@final
class _Classes:
    def __init__(self, task: Classification | Contrastive, sides: Sides, known: TargetFacts | None) -> None:
        names = {side: [_name(row, row.fields[0], "task.label") for row in rows] for side, rows in sides.items()}
        self.facts = known or _class_facts(names["training"], names["validation"], len(names["training"]), "task.label")
        _require_classes(names["validation"], self.facts, "task.label")
        self._index = {name: index for index, name in enumerate(self.facts.classes)}

    def write(self, rows: Sequence[Document], tokenizer: Tokenizer, stream: Writes) -> NDArray[Any]:
        _write_texts(rows, tokenizer, stream)
        return np.array([self._index[_name(row, row.fields[0], "task.label")] for row in rows], dtype=np.int64)


@final
class _Labels:
    def __init__(self, task: Classification, sides: Sides, known: TargetFacts | None) -> None:
        self._separator = task.separator
        names = {side: [name for row in rows for name in self._of(row)] for side, rows in sides.items()}
        total = len(sides["training"])
        self.facts = known or _class_facts(names["training"], names["validation"], total, "task.label", 1)
        _require_classes(names["validation"], self.facts, "task.label")
        self._index = {name: index for index, name in enumerate(self.facts.classes)}

    def write(self, rows: Sequence[Document], tokenizer: Tokenizer, stream: Writes) -> NDArray[Any]:
        _write_texts(rows, tokenizer, stream)
        targets = np.zeros((len(rows), len(self.facts.classes)), dtype=np.float32)
        for number, row in enumerate(rows):
            targets[number, [self._index[name] for name in self._of(row)]] = 1.0
        return targets

    def _of(self, row: Document) -> list[str]:
        return _labels(row, self._separator)


@final
class _Numbers:
    def __init__(self, task: Regression, sides: Sides, known: TargetFacts | None) -> None:
        if known is not None:
            self.facts = known
            return
        values = np.array([_number(row) for row in sides["training"]], dtype=np.float64)
        mean, deviation = (float(values.mean()), float(values.std())) if len(values) else (0.0, 1.0)
        # The deviation of equal numbers may be rounded to above 0.
        if len(values) and (values.min() == values.max() or not deviation > 0.0):
            raise DataError(f"data.source: all numbers to train on are {values[0]} (task.value {task.value!r})")
        self.facts = TargetFacts(total=len(values), mean=mean, deviation=deviation)

    def write(self, rows: Sequence[Document], tokenizer: Tokenizer, stream: Writes) -> NDArray[Any]:
        """In standard units, taken in float64: float32 would lose what differs in numbers far from 0."""
        _write_texts(rows, tokenizer, stream)
        values = np.array([_number(row) for row in rows], dtype=np.float64)
        with np.errstate(over="ignore"):
            targets = ((values - self.facts.mean) / self.facts.deviation).astype(np.float32)
        for index in np.flatnonzero(~np.isfinite(targets)).tolist():
            raise _wrong(rows[index], "task.value", "a number nearer to those to train on", rows[index].fields[0])
        # The mark of what is not counted is no number.
        targets[targets == IGNORED] = np.nextafter(np.float32(IGNORED), np.float32(0.0))
        return targets


@final
class _Tags:
    def __init__(self, task: TokenClassification, sides: Sides, known: TargetFacts | None) -> None:
        tags = {side: [tag for row in rows for tag in _tags(row)[1]] for side, rows in sides.items()}
        self.facts = known or _class_facts(tags["training"], tags["validation"], len(tags["training"]), "task.tags")
        _require_classes(tags["validation"], self.facts, "task.tags")
        self._index = {name: index for index, name in enumerate(self.facts.classes)}

    def write(self, rows: Sequence[Document], tokenizer: Tokenizer, stream: Writes) -> NDArray[Any]:
        """The first token of a word has its class; the others, and the end of text, are not counted."""
        targets: list[NDArray[np.int64]] = []
        for row in rows:
            words, tags = _tags(row)
            tokens, firsts = tokenized_words(tokenizer, words)
            stream.write(" ".join(words), tokens, row.source)
            row_targets = np.full(len(tokens) + 1, IGNORED, dtype=np.int64)
            row_targets[firsts] = [self._index[tag] for tag in tags]
            targets.append(row_targets)
        return np.concatenate([np.empty(0, dtype=np.int64), *targets])


@final
class _Seconds:
    def __init__(self, sides: Sides, folder: Path) -> None:
        self._folder = folder
        self.facts = TargetFacts(total=len(sides["training"]))

    def write(self, rows: Sequence[Document], tokenizer: Tokenizer, stream: Writes) -> NDArray[Any]:
        _write_texts(rows, tokenizer, stream)
        # What is asked lies beside the texts; here is what tells two sets of it apart.
        return np.frombuffer(_write_seconds(rows, tokenizer, stream, self._folder), dtype=np.uint8)


@final
class _Partners:
    def __init__(self, sides: Sides, folder: Path) -> None:
        self._folder = folder
        self.facts = TargetFacts(total=len(sides["training"]))

    def write(self, rows: Sequence[Document], tokenizer: Tokenizer, stream: Writes) -> NDArray[Any]:
        """For each row the first that it is joined to by equal texts: such rows are nothing to tell apart."""
        _write_texts(rows, tokenizer, stream)
        _write_seconds(rows, tokenizer, stream, self._folder)
        return joined_rows([(row.text, row.fields[0]) for row in rows])


def joined_rows(pairs: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    """For each pair the number of the first that shares a text with it, or with one that does, and so on; int64 [N]."""
    roots = list(range(len(pairs)))

    def root(number: int) -> int:
        while roots[number] != number:
            roots[number] = roots[roots[number]]
            number = roots[number]
        return number

    known: dict[str, int] = {}
    for number, pair in enumerate(pairs):
        for text in pair:
            mine, other = root(number), root(known.setdefault(text, number))
            roots[max(mine, other)] = min(mine, other)
    return np.array([root(number) for number in range(len(pairs))], dtype=np.int64)


def tokenized_words(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The tokens of a text of `words`, each made by itself, and the place of the first one of each word."""
    pieces = tokenizer.encode_batch([f" {word}" if number else word for number, word in enumerate(words)])
    firsts = np.cumsum([0, *map(len, pieces)])[:-1]
    return np.concatenate([np.empty(0, dtype=np.int64), *pieces]), firsts


def _labels(row: Document, separator: str) -> list[str]:
    value = row.fields[0]
    if isinstance(value, str):
        return list(dict.fromkeys(filter(None, (part.strip() for part in value.split(separator)))))
    if not isinstance(value, list):
        raise _wrong(row, "task.label", "a list of labels, or text", value)
    return list(dict.fromkeys(_name(row, one, "task.label") for one in value))


def _number(row: Document) -> float:
    value = row.fields[0]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    # float32 holds what a model gives.
    if not abs(number) <= _LARGEST:
        raise _wrong(row, "task.value", "a finite number", value)
    return number


def _tags(row: Document) -> tuple[list[str], list[str]]:
    words = _words(row)
    value = row.fields[0]
    if not isinstance(value, str | list):
        raise _wrong(row, "task.tags", "a list of tags, or text with spaces", value)
    tags = value.split() if isinstance(value, str) else [_name(row, one, "task.tags") for one in value]
    if len(tags) != len(words) or not all(words):
        raise DataError(
            f"{row.name}: {len(words)} words have {len(tags)} tags (task.tags)"
            if all(words)
            else f"{row.name}: a word is empty",
            hint="each word needs one tag, and is not empty",
        )
    return words, tags


def _words(row: Document) -> list[str]:
    return list(row.words) if row.words is not None else row.text.split()


def _write_seconds(rows: Sequence[Document], tokenizer: Tokenizer, stream: Writes, folder: Path) -> bytes:
    """Write the second texts beside the first ones; gives what tells two sets of them apart."""
    texts = [row.fields[0] for row in rows]
    with Stream(folder, f"{stream.name}.second", tokenizer) as second:
        for text, tokens in zip(texts, tokenizer.encode_batch(texts), strict=True):
            second.write(text, tokens)
    return bytes.fromhex(second.digest)


def _write_texts(rows: Sequence[Document], tokenizer: Tokenizer, stream: Writes) -> None:
    for row, tokens in zip(rows, tokenizer.encode_batch([row.text for row in rows]), strict=True):
        stream.write(row.text, tokens, row.source)


def _class_facts(
    training: Sequence[str], validation: Iterable[str], total: int, where: str, fewest: int = 2
) -> TargetFacts:
    counts = Counter(training)
    classes = sorted(set(counts) | set(validation))
    if len(classes) < fewest:
        raise DataError(f"{where}: there is nothing to tell apart: all targets are {classes}")
    return TargetFacts(tuple(classes), tuple(counts[name] for name in classes), total)


def _require_classes(names: Iterable[str], facts: TargetFacts, where: str) -> None:
    """Raises: DataError for a class that the model has no answer for."""
    unknown = sorted(set(names) - set(facts.classes))
    if unknown:
        raise DataError(
            f"{where}: there is no class {unknown[0]!r} among those that the run knows. Classes: "
            f"{', '.join(facts.classes[:20])}",
            hint=did_you_mean(nearest_names(unknown[0], facts.classes)),
        )


def _name(row: Document, value: Any, where: str) -> str:
    """A class by its name; numbers and truth values are names, too."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int):
        return json.dumps(value)
    raise _wrong(row, where, "text, a whole number, true or false", value)


def _wrong(row: Document, where: str, wanted: str, value: Any) -> DataError:
    return DataError(f"{row.name}: {where} names a field that must be {wanted}. Received: {value!r}"[:500])
