"""What training and evaluation ask of a set of samples."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.signals import Batch


class Sequences(Protocol):
    """Samples in a fixed order, made when they are asked for."""

    @property
    def sequence_length(self) -> int:
        """Most positions in one."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens in all of them."""
        ...

    @property
    def mean_length(self) -> float:
        """Tokens in one, on average."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batch(
        self,
        indices: NDArray[np.int64],
        batch_size: int | None = None,
        occurrences: NDArray[np.int64] | None = None,
    ) -> Batch:
        """The samples `indices`, filled up to `batch_size` with rows in which no target is counted.

        `occurrences` are where they stand in the stream of training samples: what is drawn for a sample is a pure
        function of the seed and its place there. Without them it is that of an evaluation, always the same.
        """
        ...
