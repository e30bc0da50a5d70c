"""In what order sequences are seen: a pure function of (seed, epoch, position, data plan)."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from trimtab.data.curriculum import CurriculumOrder
from trimtab.data.mixture import Mixture
from trimtab.signals import key

Positions = NDArray[np.int64]


@final
@dataclass(frozen=True, slots=True)
class DataPlan:
    """What has been decided about the stream of sequences since the run began."""

    excluded: tuple[tuple[int, int], ...] = ()
    """Ranges [start, end) of positions that are left out: rising, neither touching nor overlapping."""

    def __post_init__(self) -> None:
        edges = [edge for span in self.excluded for edge in span]
        if any(later <= earlier for earlier, later in pairwise(edges)) or min(edges, default=0) < 0:
            raise ValueError(f"excluded ranges must be rising, apart, and not empty. Received: {self.excluded}")

    def excluding(self, start: int, end: int) -> DataPlan:
        """The plan that also leaves out positions `start` to `end`, the latter not included."""
        if end <= start:
            return self
        merged: list[tuple[int, int]] = []
        for begin, stop in sorted([*self.excluded, (start, end)]):
            if merged and begin <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
            else:
                merged.append((begin, stop))
        return DataPlan(tuple(merged))

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for checkpoints."""
        return {"excluded": [list(span) for span in self.excluded]}

    @classmethod
    def from_json(cls, state: Mapping[str, Sequence[Sequence[int]]]) -> DataPlan:
        """What `to_json` wrote."""
        return cls(tuple((int(start), int(end)) for start, end in state["excluded"]))


@final
class Order:
    """An endless stream of sequences: each epoch shows every one of them once, in an order of its own.

    Any position is found at once, without going through those before it; what is kept for that are 4 bytes for each
    sequence of an epoch, or 8 where there are more than 4 billion.
    """

    def __init__(
        self,
        num_sequences: int,
        *,
        seed: int,
        shuffle: bool = True,
        lengths: NDArray[np.int64] | None = None,
        block: int = 1,
        bucketing: int = 1,
        mixture: Mixture | None = None,
        window: int | None = None,
    ) -> None:
        """With `lengths` and `bucketing` above 1, sequences of similar length stand together: the shuffled order is
        cut into pieces of `bucketing` times `block` sequences, each piece sorted by length and cut into blocks, and
        the blocks are shuffled. A block is meant to be a micro-batch, and `bucketing` small: within a piece training
        sees lengths, and what goes with them, one after the other. A `mixture` says what is in each epoch instead.
        With a `window` the sequences never end: those of each window stand in an order of their own.
        """
        if num_sequences < 1:
            raise ValueError(f"an order needs at least one sequence. Received: {num_sequences}")
        self.num_sequences = num_sequences
        self.seed = seed
        self.shuffle = shuffle
        self._lengths, self._block, self._bucketing = lengths, block, bucketing
        self._mixture, self._window = mixture, window
        self._permutations: dict[int, NDArray[np.integer[Any]]] = {}
        self._curriculum: CurriculumOrder | None = None
        self._piece: tuple[int, Positions] | None = None

    def after(self, curriculum: CurriculumOrder) -> Order:
        """The same, whose first epoch begins where `curriculum`, which comes before it, is over."""
        other = copy.copy(self)
        other._permutations, other._piece, other._curriculum = {}, None, curriculum
        return other

    def sequence_at(self, position: int) -> int:
        """Which sequence stands at `position` of the stream."""
        return int(self.sequences_at(np.array([position]))[0])

    def sequences_at(self, positions: Positions) -> NDArray[np.int64]:
        """Which sequence stands at each of `positions`."""
        if self._curriculum is None:
            return self._in_epochs(positions)
        sequences = np.empty_like(positions)
        opens = positions < self._curriculum.length
        sequences[opens] = self._opening(self._curriculum, positions[opens])
        sequences[~opens] = self._in_epochs(positions[~opens] - self._curriculum.length)
        return sequences

    def _in_windows(self, positions: Positions, window: int) -> NDArray[np.int64]:
        if not self.shuffle or window == 1:
            return positions
        windows, places = np.divmod(positions, window)
        sequences = np.empty_like(places)
        for number in np.unique(windows).tolist():
            here = windows == number
            words = np.random.Philox(key=np.array([key(self.seed, number, 4, "order"), 0], dtype=np.uint64))
            order = np.argsort(words.random_raw(window), kind="stable")
            sequences[here] = number * window + order[places[here]]
        return sequences

    def _in_epochs(self, positions: Positions) -> NDArray[np.int64]:
        if self._window is not None:
            return self._in_windows(positions, self._window)
        epochs, places = np.divmod(positions, self.num_sequences)
        if not self.shuffle and self._mixture is None:
            return places
        sequences = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            sequences[here] = self._permutation(epoch)[places[here]]
        return sequences

    def advance(self, position: int, count: int, plan: DataPlan) -> tuple[Positions, int]:
        """The next `count` positions from `position` on that `plan` leaves in, and where to go on."""
        runs: list[Positions] = []
        # Those that end before are passed over at once, so that a seek costs no more late in a run.
        for index in range(bisect_right(plan.excluded, position, key=lambda span: span[1]), len(plan.excluded)):
            start, end = plan.excluded[index]
            if not count:
                break
            if start > position:
                run = np.arange(position, min(start, position + count))
                runs.append(run)
                position += len(run)
                count -= len(run)
            if start <= position < end and count:
                position = end
        runs.append(np.arange(position, position + count))
        return np.concatenate(runs), position + count

    def _permutation(self, epoch: int) -> NDArray[np.integer[Any]]:
        permutation = self._permutations.get(epoch)
        if permutation is None:
            # Sorting raw words: NumPy may change what Generator.permutation gives, but not Philox's words.
            words = np.random.Philox(key=np.array([self.seed, epoch], dtype=np.uint64)).random_raw(self.num_sequences)
            permutation = np.argsort(words, kind="stable") if self._mixture is None else self._mixture.epoch(epoch)
            if self._lengths is not None and self._bucketing > 1 and self.shuffle:
                permutation = self._bucketed(permutation, words, self._lengths, epoch)
            if int(permutation.max()) < 1 << 32:
                permutation = permutation.astype(np.uint32)
            # A batch may lie across the end of an epoch, so that two are needed; none is kept longer.
            kept = {other: value for other, value in self._permutations.items() if other == epoch - 1}
            self._permutations = {**kept, epoch: permutation}
        return permutation

    def _bucketed(
        self, permutation: Positions, words: NDArray[np.uint64], lengths: NDArray[np.int64], epoch: int
    ) -> Positions:
        # Blocks count from the start of the run: what the epoch before left open of its last one comes first.
        opened = -(epoch * self.num_sequences) % self._block
        pieces: list[Positions] = [permutation[:opened]]
        for begin in range(opened, self.num_sequences, self._block * self._bucketing):
            piece = permutation[begin : begin + self._block * self._bucketing]
            pieces.append(self._in_blocks(piece, words[begin:], lengths))
        return np.concatenate(pieces)

    def _in_blocks(self, piece: Positions, words: NDArray[np.uint64], lengths: NDArray[np.int64]) -> Positions:
        """`piece` sorted by length and cut into blocks, shuffled by `words`; what is no whole block comes last."""
        piece = piece[np.argsort(lengths[piece], kind="stable")]
        whole = len(piece) // self._block
        shuffled = np.argsort(words[:whole], kind="stable")
        blocks = piece[: whole * self._block].reshape(whole, self._block)[shuffled].ravel()
        return np.concatenate([blocks, piece[whole * self._block :]])

    def _opening(self, curriculum: CurriculumOrder, positions: Positions) -> Positions:
        """The samples at `positions` of the curriculum."""
        if self._lengths is None or self._bucketing <= 1:
            return curriculum.samples_at(positions)
        size = self._block * self._bucketing
        pieces, places = np.divmod(positions, size)
        samples = np.empty_like(positions)
        for piece in np.unique(pieces).tolist():
            kept = self._piece  # another thread may ask at the same time
            if kept is None or kept[0] != piece:
                whole = np.arange(piece * size, min((piece + 1) * size, curriculum.length))
                seed = np.array([key(self.seed, piece, 3, "order"), 0], dtype=np.uint64)
                words = np.random.Philox(key=seed).random_raw(self._bucketing)
                kept = self._piece = piece, self._in_blocks(curriculum.samples_at(whole), words, self._lengths)
            here = pieces == piece
            samples[here] = kept[1][places[here]]
        return samples
