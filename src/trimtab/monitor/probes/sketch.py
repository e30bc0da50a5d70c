"""Short random projections: inner products of large tensors at different times, without keeping the tensors.

Shape suffixes: P tensors · G tensors of one size · N values of one · R rows · K coordinates · W words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.monitor.probes.groups import of_groups

COORDINATES: Final = 1024
_CHUNK_ROWS: Final = 1 << 14
_SIGN: Final = -(2**31)


@final
class Sketch:
    """Coordinate k is the sum of the values k, k + K, k + 2K …, each with a random sign of its own.

    It is linear, and the inner product of two sketches is without bias that of the tensors: its standard error is at
    most sqrt(2 / K) of the product of their norms, 4 % for one tensor and less for the sum over many. Up to K values
    it is exact, as no two meet. The signs are a pure function of the seed and the tensor's name, and take 1/32 of the
    memory of fp32; a chunk of a group of tensors is copied at a time, 64 MiB twice.
    Source: the count sketch of Charikar et al. 2002, with remainders in place of hashes for the coordinates.
    """

    def __init__(self, seed: int, coordinates: int = COORDINATES) -> None:
        """`coordinates` is a multiple of 32."""
        self.seed, self.coordinates = seed, coordinates
        self._bits: dict[tuple[str, ...], Tensor] = {}

    @torch.no_grad()
    def of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of each tensor, fp32: fp64 [K], where it lies. Does not wait for the device."""
        if not tensors:
            return {}
        (sketches_PK,) = of_groups(tensors, lambda names, values_GN: (self.of_group(names, values_GN),))
        return dict(zip(tensors, sketches_PK.unbind(), strict=True))

    @torch.no_grad()
    def of_group(self, names: Sequence[str], values_GN: Tensor) -> Tensor:
        """Of fp32 tensors of one size: fp64 [G, K]. Does not wait for the device."""
        num, size = values_GN.shape
        whole, rest = divmod(size, self.coordinates)
        words_GRW = self._words(tuple(names), whole + (rest > 0), values_GN.device)
        shifts = torch.arange(32, dtype=torch.int32, device=values_GN.device)
        sums_GK: Tensor | None = None
        blocks: list[tuple[int, Tensor]] = []
        if whole:
            rows_GRK = values_GN[:, : whole * self.coordinates].view(num, whole, self.coordinates)
            at_once = max(1, _CHUNK_ROWS // num)
            blocks = [(first, rows_GRK[:, first : first + at_once]) for first in range(0, whole, at_once)]
        if rest:
            padding = (0, self.coordinates - rest)
            blocks.append((whole, F.pad(values_GN[:, whole * self.coordinates :], padding)[:, None]))
        for first_row, values_GRK in blocks:
            # One bit of a word, moved to where a float keeps its sign.
            words = words_GRW[:, first_row : first_row + values_GRK.shape[1], :, None]
            signs_GRK = torch.bitwise_left_shift(words, shifts).bitwise_and_(_SIGN).flatten(2)
            signed_GRK = signs_GRK.bitwise_xor_(values_GRK.view(torch.int32)).view(torch.float32)
            sum_GK = signed_GRK.sum(1, dtype=torch.float64)
            sums_GK = sum_GK if sums_GK is None else sums_GK.add_(sum_GK)
        assert sums_GK is not None  # a tensor holds a value
        return sums_GK

    def _words(self, names: tuple[str, ...], rows: int, device: torch.device) -> Tensor:
        """The signs of a group [G, R, K / 32], which are kept until its names or their sizes are others."""
        words = self._bits.get(names)
        if words is None or words.device != device or words.shape[1] != rows:
            known = set(names)
            self._bits = {other: kept for other, kept in self._bits.items() if known.isdisjoint(other)}
            words = torch.stack([self._drawn(name, rows) for name in names]).to(device)
            self._bits[names] = words
        return words

    def _drawn(self, name: str, rows: int) -> Tensor:
        number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
        # Raw words: they are the same in every version of NumPy, and on every device.
        raw = np.random.Philox(key=np.array([self.seed, number], dtype=np.uint64)).random_raw(
            rows * self.coordinates // 64
        )
        return torch.from_numpy(raw.view(np.int32).reshape(rows, -1))
