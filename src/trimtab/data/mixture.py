"""Several sources in given parts: which sample stands where is a pure function of (seed, epoch, position)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from trimtab.config import MixtureSource, SourceConfig
from trimtab.data.packing import PackedSequences
from trimtab.data.samples import LabelledTexts
from trimtab.data.stream import bounds_of
from trimtab.errors import DataError
from trimtab.signals import key

Positions = NDArray[np.int64]


@final
@dataclass(frozen=True, slots=True)
class Part:
    """The samples of one source: from `begin` to `end`, the latter not included."""

    name: str
    begin: int
    end: int
    share: float
    """Of the samples of an epoch."""

    @property
    def size(self) -> int:
        """Samples that it has."""
        return self.end - self.begin


def shares_of(sizes: Mapping[str, int], weights: Mapping[str, float], temperature: float) -> dict[str, float]:
    """The part of each source: its weight, or its size where there are no `weights`, to the power 1 / `temperature`.

    1 leaves them, above 1 evens them out, up to equal parts. Source: Arivazhagan et al. 2019, arXiv 1907.05019,
    section 3.2; Raffel et al. 2020, arXiv 1910.10683, section 3.5.2.
    """
    logs = {name: math.log(weights.get(name, 1.0) if weights else size) / temperature for name, size in sizes.items()}
    highest = max(logs.values())
    powers = {name: math.exp(value - highest) for name, value in logs.items()}
    total = math.fsum(powers.values())
    return {name: power / total for name, power in powers.items()}


def parts_of(bounds: Mapping[str, tuple[int, int]], weights: Mapping[str, float], temperature: float) -> list[Part]:
    """Each source with its range of samples and its share. Raises: DataError for a source without samples."""
    for name, (begin, end) in bounds.items():
        if end <= begin:
            raise DataError(
                f"data.source.sources.{name}: has too little text for one sample to train on",
                hint=f"give more text, leave {name} out, or lower data.sequence_length",
            )
    shares = shares_of({name: end - begin for name, (begin, end) in bounds.items()}, weights, temperature)
    return [Part(name, begin, end, shares[name]) for name, (begin, end) in bounds.items()]


def build_mixture(
    config: SourceConfig,
    training: PackedSequences | LabelledTexts,
    facts: Mapping[str, Any],
    *,
    seed: int,
    shuffle: bool,
) -> Mixture | None:
    """How the sources of `config` are mixed; None for a single one. `facts` are those of `training`."""
    if not isinstance(config, MixtureSource):
        return None
    documents = bounds_of({name: facts["sources"].get(name, 0) for name in config.sources})
    if isinstance(training, PackedSequences):
        # A sequence is of the source in which it begins.
        bounds = {
            name: training.bounds_of_documents(*each) if each[1] > each[0] else (0, 0)
            for name, each in documents.items()
        }
    else:
        bounds = documents
    return Mixture(parts_of(bounds, config.weights, config.temperature), seed=seed, shuffle=shuffle)


@final
class Mixture:
    """Puts the samples of several sources into epochs in which each source has its share.

    An epoch has as many positions as there are samples in all. In each of them a source has the same number of
    positions, at least one, spread at random; it goes through its own samples in an order of its own, which goes on
    where the epoch before ended, and begins anew in another order when it is through. So no sample of a source comes
    again before all others of it.
    """

    def __init__(self, parts: Sequence[Part], *, seed: int, shuffle: bool = True) -> None:
        """Without `shuffle`, sources are spread evenly and their samples stay in order."""
        self.parts, self._seed, self._shuffle = tuple(parts), seed, shuffle
        self.length = sum(part.size for part in parts)
        """Positions of an epoch."""
        self.quotas = _apportion([part.share for part in parts], self.length)
        """Positions that each source has in every epoch."""

    def epoch(self, number: int) -> Positions:
        """The samples of the epoch `number`, in order: [length]."""
        sources = np.repeat(np.arange(len(self.parts)), self.quotas)
        if self._shuffle:
            keys: NDArray[Any] = _words(key(self._seed, number, 0, "order"), self.length)
        else:
            keys = np.concatenate([(np.arange(quota) + 0.5) / quota for quota in self.quotas])
        sources = sources[np.argsort(keys, kind="stable")]
        samples = np.empty(self.length, dtype=np.int64)
        for index, quota in enumerate(self.quotas):
            samples[sources == index] = self._draws(index, number * quota, quota)
        return samples

    def facts(self) -> dict[str, Any]:
        """What comes of each source, as JSON values."""
        return {
            part.name: {"samples": part.size, "share": part.share, "per_epoch": quota, "repeats": quota / part.size}
            for part, quota in zip(self.parts, self.quotas, strict=True)
        }

    def _draws(self, index: int, begin: int, count: int) -> Positions:
        """The samples that source `index` gives from its draw `begin` on."""
        part = self.parts[index]
        rounds, places = np.divmod(np.arange(begin, begin + count), part.size)
        if not self._shuffle:
            return part.begin + places
        drawn = np.empty(count, dtype=np.int64)
        for turn in range(int(rounds[0]), int(rounds[-1]) + 1):
            words = _words(key(self._seed, turn, index + 1, "order"), part.size)
            # A turn's draws stand side by side.
            here = slice(max(0, turn * part.size - begin), min(count, (turn + 1) * part.size - begin))
            drawn[here] = np.argsort(words, kind="stable")[places[here]]
        return part.begin + drawn


def _words(seed: int, count: int) -> NDArray[np.uint64]:
    # Raw words: NumPy may change what its distributions give, but not Philox's words.
    words: NDArray[np.uint64] = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64)).random_raw(count)
    return words


def _apportion(shares: Sequence[float], total: int) -> list[int]:
    """`total` in whole numbers as `shares` say, by largest remainders; none gets nothing."""
    exact = [share * total for share in shares]
    whole = [max(1, math.floor(value)) for value in exact]
    order = sorted(range(len(shares)), key=lambda index: (whole[index] - exact[index], index))
    left = total - sum(whole)
    for index in order[: max(0, left)]:
        whole[index] += 1
    while left < 0:  # those that got one for nothing
        largest = max(range(len(whole)), key=lambda index: whole[index])
        whole[largest] -= 1
        left += 1
    return whole
