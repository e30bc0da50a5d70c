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
from trimtab.data.minhash import HASHES, agreeing, signature, similar
from trimtab.data.shingles import shingles
from trimtab.data.split import identity_hash

_SIDES: Final = ("validation", "training")
"""In the order in which documents stand here: of two equal ones the first stays."""
_FEWEST: Final = 8
"""A text of fewer runs of words is too short to be nearly equal to another by chance alone."""
MOST_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class Duplicates:
    """For each document the first one that it repeats, of those that stay; -1 for none. Documents are counted over both
    sides, validation first, all of which stays."""

    exact: NDArray[np.int64]
    near: NDArray[np.int64] | None
    num_validation: int
    num_nearly_leaked: int = 0
    """Documents of the validation set that one of the training set nearly repeats."""

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
        # Equal ones of the validation set are leaked together, by the first of them.
        first = np.where(inside >= 0, inside, np.arange(self.num_validation))
        exact = self._counts(self.exact, int(np.isin(first, outside[outside >= 0]).sum()))
        if self.near is None:
            return {"exact": exact}
        return {"exact": exact, "near": self._counts(self.near, self.num_nearly_leaked)}

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

    def _counts(self, partners: NDArray[np.int64], leaked: int) -> dict[str, int]:
        inside, outside = partners[: self.num_validation], partners[self.num_validation :]
        return {
            "training": int((outside >= self.num_validation).sum()),
            "validation": int((inside >= 0).sum()),
            "leaking": int(((outside >= 0) & (outside < self.num_validation)).sum()),
            "leaked": leaked,
        }

    def _place(self, number: int) -> tuple[str, int]:
        training = number >= self.num_validation
        return _SIDES[training], number - self.num_validation * training


@final
class Survey:
    """Takes note of every document of both sides, in memory that is small beside them: 10 bytes each, and for nearly
    equal ones 512 bytes on disk."""

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
        if self._file is None:
            return Duplicates(exact, None, num_validation)
        return Duplicates(exact, *self._near(order, exact, num_validation))

    def _near(
        self, order: NDArray[np.int64], exact: NDArray[np.int64], num_validation: int
    ) -> tuple[NDArray[np.int64], int, int]:
        """The fields of `Duplicates` after the first: of documents nearly, but not quite, equal to an earlier one.

        Likeness is no chain: what is like a document that is left out, but like none that stays, stays itself.
        """
        near, leaked = np.full(len(order), -1, dtype=np.int64), 0
        is_short = np.frombuffer(self._is_short, dtype=np.bool_)[order]
        asked = np.flatnonzero(~is_short & (exact < 0))  # each text once
        if not len(asked):
            return near, num_validation, leaked
        assert self._file is not None
        self._file.flush()
        signatures = np.memmap(self._path, dtype=np.uint32, mode="r").reshape(-1, HASHES)
        first = np.arange(len(order))  # the first of those that each goes together with, as known by now
        for one, other in similar(signatures, self._threshold, order[asked]):
            ends = sorted((_root(first, int(asked[one])), _root(first, int(asked[other]))))
            first[ends[1]] = ends[0]
        for members in _groups(first):
            rest = members
            while len(rest) > 1:
                one, rest = rest[0], rest[1:]
                alike = rest[agreeing(signatures, int(order[one]), order[rest], self._threshold)]
                near[alike[near[alike] < 0]] = one
                if one < num_validation:  # it stays even where it repeats another
                    leaked += bool((alike >= num_validation).any())
                if len(rest) and rest[0] >= num_validation:
                    rest = rest[near[rest] < 0]
        return near, num_validation, leaked


def _groups(first: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The documents, in their order, of each group of more than one that `first` leads to one root."""
    led = np.flatnonzero(first < np.arange(len(first)))
    roots = np.array([_root(first, document) for document in led.tolist()], dtype=np.int64)
    order = np.argsort(roots, kind="stable")
    led, roots = led[order], roots[order]
    begins = np.flatnonzero(np.diff(roots, prepend=-1))
    for begin, members in zip(begins.tolist(), np.split(led, begins[1:]), strict=False):
        yield np.concatenate([roots[begin : begin + 1], members])


def _root(first: NDArray[np.int64], document: int) -> int:
    while first[document] != document:
        first[document] = first[first[document]]
        document = int(first[document])
    return document


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
