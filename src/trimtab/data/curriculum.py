"""From easy samples to hard ones: which may be drawn is a function of the position alone."""

from __future__ import annotations

import hashlib
import math
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from trimtab.config import CompetencePacing, LinearPacing, PacingConfig, RootPacing, StepPacing
from trimtab.data.packing import PackedSequences
from trimtab.data.samples import LabelledTexts
from trimtab.signals import key

Positions = NDArray[np.int64]
Scores = NDArray[np.floating[Any]]

_PIECE: Final = 1024
"""Positions whose random numbers are made together."""
_TOKENS_AT_ONCE: Final = 1 << 22


def competence(pacing: PacingConfig, start: float, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part of the samples that may be drawn at each of `times`, parts of the curriculum from 0 to 1.

    Source: Platanios et al. 2019, arXiv 1903.09848, equations 7 and 8; roots and steps: Hacohen and Weinshall 2019,
    arXiv 1904.03626, section 2.1; Spitkovsky et al. 2010, "From Baby Steps to Leapfrog".
    """
    parts: NDArray[np.float64]
    match pacing:
        case LinearPacing():
            parts = start + (1.0 - start) * times
        case CompetencePacing():
            parts = np.sqrt(start**2 + (1.0 - start**2) * times)
        case RootPacing(degree=degree):
            parts = (start**degree + (1.0 - start**degree) * times) ** (1.0 / degree)
        case StepPacing(stages=stages):
            stage = np.minimum(np.floor(times * stages), stages - 1)
            parts = start + (1.0 - start) * stage / (stages - 1)
    return parts


@final
class CurriculumOrder:
    """The samples at the first `length` positions of a run.

    Each is drawn, with replacement and all alike, from the easiest: those that `pacing` lets in at its position.
    """

    def __init__(
        self,
        difficulty: Scores,
        *,
        length: int,
        pacing: PacingConfig,
        start: float,
        hardest_first: bool = False,
        seed: int,
    ) -> None:
        """`difficulty` of each sample, [N]; of equal ones chance decides which counts as easier."""
        if length < 1:
            raise ValueError(f"a curriculum needs at least one position. Received: {length}")
        self.length, self._pacing, self._start, self._seed = length, pacing, start, seed
        chance = np.random.Philox(key=np.array([key(seed, 0, 1, "order"), 0], dtype=np.uint64)).random_raw(
            len(difficulty)
        )
        signed = -difficulty if hardest_first else difficulty
        self._samples: Positions = np.lexsort((chance, signed))
        self.fingerprint = hashlib.sha256(self._samples.astype("<i8").tobytes()).hexdigest()
        """SHA-256 of the order by difficulty."""

    def allowed(self, positions: Positions) -> Positions:
        """How many samples, the easiest, may be drawn at each of `positions`."""
        parts = competence(self._pacing, self._start, positions / self.length)
        return np.clip(np.ceil(parts * len(self._samples)).astype(np.int64), 1, len(self._samples))

    def samples_at(self, positions: Positions) -> Positions:
        """The samples at `positions`, each below `length`."""
        pieces, places = np.divmod(positions, _PIECE)
        chance = np.empty(len(positions), dtype=np.float64)
        for piece in np.unique(pieces).tolist():
            here = pieces == piece
            # Raw words: NumPy may change what its distributions give, but not Philox's words.
            words = np.random.Philox(key=np.array([key(self._seed, piece, 2, "order"), 0], dtype=np.uint64))
            chance[here] = ((words.random_raw(_PIECE) >> np.uint64(11)).astype(np.float64) * 2.0**-53)[places[here]]
        return self._samples[(chance * self.allowed(positions)).astype(np.int64)]

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        first = int(self.allowed(np.array([0]))[0])
        return {"positions": self.length, "first_samples": first, "order_sha256": self.fingerprint}


def rarity(training: PackedSequences | LabelledTexts) -> NDArray[np.float64]:
    """The sum of -log of each token's frequency in the training text, of every sample: [N].

    Source: Platanios et al. 2019, arXiv 1903.09848, equation 5.
    """
    if isinstance(training, PackedSequences):
        stream = training.tokens
        # Of a sequence the tokens that it predicts: those after its first position, and the first of the next one.
        starts = 1 + np.arange(len(training), dtype=np.int64) * training.sequence_length
        ends = np.minimum(starts + training.sequence_length, training.num_tokens)
    else:
        stream, edges = training.stream
        starts, ends = edges[:-1], edges[1:]
    counts = np.zeros(0, dtype=np.int64)
    for begin in range(0, len(stream), _TOKENS_AT_ONCE):
        found = np.bincount(stream[begin : begin + _TOKENS_AT_ONCE])
        size = max(len(counts), len(found))
        counts = np.pad(counts, (0, size - len(counts))) + np.pad(found, (0, size - len(found)))
    surprise = np.array([math.log(len(stream) / count) if count else 0.0 for count in counts.tolist()])
    sums = np.empty(len(starts), dtype=np.float64)
    step = max(1, _TOKENS_AT_ONCE // max(1, int((ends - starts).max())))
    for begin in range(0, len(starts), step):
        first, last = starts[begin : begin + step], ends[begin : begin + step]
        values = surprise[stream[int(first[0]) : int(last[-1])]]
        sums[begin : begin + step] = np.add.reduceat(np.append(values, 0.0), first - first[0])
    return sums
