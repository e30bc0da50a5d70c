"""Documents that are there twice, within the training set or on both sides, equal or nearly."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from trimtab.config import DuplicatesConfig
from trimtab.data.minhash import HASHES, release, signature, similar
from trimtab.data.shingles import shingles
from trimtab.data.split import identity_hash

_SIDES: Final = ("validation", "training")
"""In the order in which documents stand here: of two equal ones the first stays."""
_FEWEST: Final = 8
"""A text of fewer runs of words is too short to be nearly equal to another by chance alone."""
MOST_NAMED: Final = 20
_PAIRS_AT_ONCE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Duplicates:
    """For each document one that it repeats; -1 for none. Documents are counted over both sides, validation first."""

    exact: NDArray[np.int64]
    """The first of those that are equal."""
    near: NDArray[np.int64] | None
    """The first that is alike and stays: one of the validation set, or one that is itself like none before it."""
    leaked_near: NDArray[np.bool_] | None
    """Documents of the validation set that one of the training set is like."""
    num_validation: int

    def dropped(self, config: DuplicatesConfig) -> NDArray[np.bool_]:
        """Which training documents are left out, as `config` says."""
        found = np.zeros(len(self.exact), dtype=np.bool_)
        if config.exact == "drop":
            found |= self.exact >= 0
        if config.near == "drop" and self.near is not None:
            found |= (self.near >= 0) | (self.exact >= 0)
        return found[self.num_validation :]

    def facts(self) -> dict[str, Any]:
        """As JSON values: `training` and `validation` documents that repeat an earlier one of their side, `leaking`
        ones of the training set that repeat one of the validation set, and `leaked` ones of that."""
        inside, outside = self.exact[: self.num_validation], self.exact[self.num_validation :]
        # Those of the validation set that are equal to one that leaks, by the first of all.
        first = np.where(inside >= 0, inside, np.arange(self.num_validation))
        counts = {"exact": self._counts(self.exact, np.isin(first, outside[outside >= 0]))}
        if self.near is not None and self.leaked_near is not None:
            counts["near"] = self._counts(self.near, self.leaked_near)
        return counts

    def examples(self) -> list[tuple[str, int, str, int]]:
        """Some pairs, (side, number) of a document and of the one that it repeats; those on both sides first."""
        pairs: dict[tuple[int, int], None] = {}
        for partners in (self.exact, self.near):
            if partners is None:
                continue
            later = np.flatnonzero(partners >= 0)
            crossing = (later >= self.num_validation) & (partners[later] < self.num_validation)
            for number in [*later[crossing][:MOST_NAMED].tolist(), *later[~crossing][:MOST_NAMED].tolist()]:
                pairs[number, int(partners[number])] = None
        ordered = sorted(pairs, key=lambda pair: not (pair[1] < self.num_validation <= pair[0]))
        return [(*self._place(later), *self._place(earlier)) for later, earlier in ordered[:MOST_NAMED]]

    def _counts(self, partners: NDArray[np.int64], leaked: NDArray[np.bool_]) -> dict[str, int]:
        inside, outside = partners[: self.num_validation], partners[self.num_validation :]
        return {
            "training": int((outside >= self.num_validation).sum()),
            "validation": int((inside >= 0).sum()),
            "leaking": int(((outside >= 0) & (outside < self.num_validation)).sum()),
            "leaked": int(leaked.sum()),
        }

    def _place(self, number: int) -> tuple[str, int]:
        training = number >= self.num_validation
        return _SIDES[training], number - self.num_validation * training


@final
class Survey:
    """Takes note of every document of both sides, in memory that is small beside them: 10 bytes each, and for nearly
    equal ones 512 bytes on disk, and 8 bytes for each pair of them that is found."""

    def __init__(self, folder: Path, config: DuplicatesConfig) -> None:
        """Keeps a file in `folder` until it is closed."""
        self._threshold = config.threshold
        self._hashes, self._is_training, self._is_short = array("Q"), array("b"), array("b")
        self._path = folder / ".signatures"
        self._file = None if config.near == "off" else self._path.open("wb")

    def __enter__(self) -> Survey:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def add(self, side: str, text: str, identity: str | None = None) -> None:
        """Note a document; documents of the same `identity`, their text if not given, are equal."""
        self._hashes.append(identity_hash(text if identity is None else identity))
        self._is_training.append(side == "training")
        if self._file is not None:
            found = shingles(text)
            self._is_short.append(len(found) < _FEWEST)
            self._file.write(signature(found).tobytes())

    def found(self) -> Duplicates:
        """What repeats what."""
        is_training = np.frombuffer(self._is_training, dtype=np.bool_)
        order = np.argsort(is_training, kind="stable")
        hashes = np.frombuffer(self._hashes, dtype=np.uint64)[order]
        _, firsts, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        first = firsts[inverse]
        exact = np.where(first < np.arange(len(first)), first, -1)
        num_validation = int((~is_training).sum())
        near, leaked = (None, None) if self._file is None else self._near(order, exact, num_validation)
        return Duplicates(exact, near, leaked, num_validation)

    def _near(
        self, order: NDArray[np.int64], exact: NDArray[np.int64], num_validation: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The partners of documents that are nearly, but not quite, equal to an earlier one, and what is leaked.

        A document that is like one which goes, but not like what that one repeats, stays: otherwise texts go that are
        like nothing that is left.
        """
        near, leaked = np.full(len(order), -1, dtype=np.int64), np.zeros(len(order), dtype=np.bool_)
        is_short = np.frombuffer(self._is_short, dtype=np.bool_)[order]
        asked = np.flatnonzero(~is_short & (exact < 0))  # each text once
        if not len(asked):
            return near, leaked[:num_validation]
        assert self._file is not None
        self._file.flush()
        signatures = np.memmap(self._path, dtype=np.uint32, mode="r").reshape(-1, HASHES)
        for later, partners in _by_later(similar(signatures, self._threshold, order[asked]), len(asked)):
            document, alike = int(asked[later]), set(asked[partners].tolist())
            # What those repeat is compared, too.
            stay = {one for one in alike if one < num_validation or near[one] < 0}
            if others := {int(near[one]) for one in alike if near[one] >= 0} - alike:
                rows = np.fromiter(others, dtype=np.int64)
                agreed = (signatures[order[rows]] == signatures[order[document]]).mean(axis=1) >= self._threshold
                release(signatures)
                stay.update(rows[agreed].tolist())
            near[document] = min(stay, default=-1)
            if document >= num_validation:
                leaked[[one for one in stay if one < num_validation]] = True
        # The other way round, so that each of the validation set meets one of the training set where it can.
        asked = np.concatenate([asked[asked >= num_validation], asked[asked < num_validation]])
        num_training = int((asked >= num_validation).sum())
        for one, other in similar(signatures, self._threshold, order[asked]):
            if one < num_training <= other:
                leaked[asked[other]] = True
        return near, leaked[:num_validation]


def _by_later(pairs: Iterable[tuple[int, int]], count: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each later one of `pairs` (earlier, later), all below `count`, in order, with the earlier ones."""
    distinct, fresh = np.empty(0, dtype=np.int64), array("q")
    for earlier, later in pairs:
        fresh.append(later * count + earlier)
        if len(fresh) >= _PAIRS_AT_ONCE:
            distinct, fresh = _merged(distinct, fresh), array("q")
    distinct = _merged(distinct, fresh)
    begin = 0
    while begin < len(distinct):
        later = int(distinct[begin]) // count
        end = begin + int(np.searchsorted(distinct[begin : begin + _PAIRS_AT_ONCE], (later + 1) * count))
        yield later, distinct[begin:end] - later * count
        begin = end


def _merged(distinct: NDArray[np.int64], fresh: array[int]) -> NDArray[np.int64]:
    """Both, each once and in order; what is in `distinct` already is not copied."""
    new = np.unique(np.frombuffer(fresh, dtype=np.int64)) if len(fresh) else np.empty(0, dtype=np.int64)
    if len(distinct):
        places = np.minimum(np.searchsorted(distinct, new), len(distinct) - 1)
        new = new[distinct[places] != new]
    return np.insert(distinct, np.searchsorted(distinct, new), new) if len(new) else distinct


def named(examples: Iterable[tuple[str, int, str, int]], names: Mapping[str, Mapping[int, str]]) -> list[list[str]]:
    """`examples` by the names of their documents; those without are left out."""
    return [
        [names[side][number], names[other_side][other]]
        for side, number, other_side, other in examples
        if number in names[side] and other in names[other_side]
    ]


def names_of(
    examples: Iterable[tuple[str, int, str, int]], documents: Iterator[tuple[str, str]]
) -> dict[str, dict[int, str]]:
    """Side to number to name of the documents in `examples`; `documents` are (side, name) in their order."""
    wanted: dict[str, set[int]] = {side: set() for side in _SIDES}
    for side, number, other_side, other in examples:
        wanted[side].add(number)
        wanted[other_side].add(other)
    names: dict[str, dict[int, str]] = {side: {} for side in _SIDES}
    counts = dict.fromkeys(_SIDES, 0)
    left = sum(map(len, wanted.values()))
    while left and (document := next(documents, None)) is not None:
        side, name = document
        if counts[side] in wanted[side]:
            names[side][counts[side]] = name
            left -= 1
        counts[side] += 1
    return names
