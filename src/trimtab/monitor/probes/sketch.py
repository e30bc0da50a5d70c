"""Short random projections: inner products of large tensors at different times, without keeping the tensors.

Shape suffixes: P tensors · N values of one · R rows · K coordinates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

COORDINATES: Final = 1024
_CHUNK_ROWS: Final = 4096
_SIGN: Final = -(2**31)


@final
class Sketch:
    """Coordinate k is the sum of the values k, k + K, k + 2K …, each with a random sign of its own.

    It is linear, and the inner product of two sketches is without bias that of the tensors: its standard error is at
    most sqrt(2 / K) of the product of their norms, 4 % for one tensor and less for the sum over many. Up to K values
    it is exact, as no two meet. The signs are a pure function of the seed and the tensor's name, and take 1/32 of the
    memory of fp32; a chunk of the tensor is copied at a time, 16 MiB twice.
    Source: the count sketch of Charikar et al. 2002, with remainders in place of hashes for the coordinates.
    """

    def __init__(self, seed: int, coordinates: int = COORDINATES) -> None:
        """`coordinates` is a multiple of 32."""
        self.seed, self.coordinates = seed, coordinates
        self._bits: dict[str, Tensor] = {}

    @torch.no_grad()
    def of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of each tensor, fp32: fp64 [K], where it lies. Does not wait for the device."""
        return {name: self._one(name, tensor.detach().reshape(-1)) for name, tensor in tensors.items()}

    def _one(self, name: str, values_N: Tensor) -> Tensor:
        whole, rest = divmod(len(values_N), self.coordinates)
        words = self._words(name, whole + (rest > 0), values_N.device)
        shifts = torch.arange(32, dtype=torch.int32, device=values_N.device)
        sums_K = torch.zeros(self.coordinates, dtype=torch.float64, device=values_N.device)

        def add(values_RK: Tensor, first_row: int) -> None:
            # One bit of a word, moved to where a float keeps its sign.
            bits_RK = torch.bitwise_left_shift(words[first_row : first_row + len(values_RK), :, None], shifts)
            signs_RK = bits_RK.bitwise_and_(_SIGN).flatten(1)
            signed_RK = signs_RK.bitwise_xor_(values_RK.contiguous().view(torch.int32)).view(torch.float32)
            sums_K.add_(signed_RK.sum(0, dtype=torch.float64))

        rows_RK = values_N[: whole * self.coordinates].view(whole, self.coordinates)
        for first in range(0, whole, _CHUNK_ROWS):
            add(rows_RK[first : first + _CHUNK_ROWS], first)
        if rest:
            add(F.pad(values_N[whole * self.coordinates :], (0, self.coordinates - rest))[None], whole)
        return sums_K

    def _words(self, name: str, rows: int, device: torch.device) -> Tensor:
        words = self._bits.get(name)
        if words is None or words.device != device or len(words) != rows:
            number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
            # Raw words: they are the same in every version of NumPy, and on every device.
            raw = np.random.Philox(key=np.array([self.seed, number], dtype=np.uint64)).random_raw(
                rows * self.coordinates // 64
            )
            words = torch.from_numpy(raw.view(np.int32).reshape(rows, -1)).to(device)
            self._bits[name] = words
        return words


def product(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Tensor:
    """The inner product of each pair of sketches [P]; both have the same names."""
    return torch.stack([torch.dot(first[name], second[name].to(first[name].device)) for name in first])
