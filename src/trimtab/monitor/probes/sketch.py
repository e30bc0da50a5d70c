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
    memory of fp32.
    Source: the sparse random projection of Charikar et al. 2002 (count sketch), with buckets by remainder.
    """

    def __init__(self, seed: int, coordinates: int = COORDINATES) -> None:
        """`coordinates` is a multiple of 32."""
        self.seed, self.coordinates = seed, coordinates
        self._bits: dict[str, Tensor] = {}

    @torch.no_grad()
    def of(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """fp32 [P, K]."""
        return torch.stack([self._one(name, tensor) for name, tensor in tensors.items()])

    def _one(self, name: str, tensor: Tensor) -> Tensor:
        flat_N = tensor.detach().reshape(-1).float()
        padded_N = F.pad(flat_N, (0, -len(flat_N) % self.coordinates))
        values_RK = padded_N.view(torch.int32).view(-1, self.coordinates)
        words = self._words(name, values_RK.numel(), tensor.device).view(len(values_RK), -1)
        shifts_32 = torch.arange(32, dtype=torch.int32, device=tensor.device)
        sums_K = torch.zeros(self.coordinates, device=tensor.device)
        for start in range(0, len(values_RK), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            # One bit of a word, moved to where a float keeps its sign.
            signs_RK = torch.bitwise_left_shift(words[rows, :, None], shifts_32).bitwise_and_(_SIGN).flatten(1)
            sums_K += signs_RK.bitwise_xor_(values_RK[rows]).view(torch.float32).sum(0)
        return sums_K

    def _words(self, name: str, count: int, device: torch.device) -> Tensor:
        words = self._bits.get(name)
        if words is None or words.device != device:
            number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
            # Raw words: they are the same in every version of NumPy, and on every device.
            raw = np.random.Philox(key=np.array([self.seed, number], dtype=np.uint64)).random_raw(-(-count // 64))
            words = torch.from_numpy(raw.view(np.int32)[: count // 32].copy()).to(device)
            self._bits[name] = words
        return words


def cosines(first_PK: Tensor, second_PK: Tensor) -> tuple[Tensor, Tensor]:
    """Of each pair of rows [P], and of all together as one vector; 0 where one of the two is 0."""
    products_P = (first_PK * second_PK).sum(-1)
    squares_P, other_P = first_PK.square().sum(-1), second_PK.square().sum(-1)
    sizes_P = (squares_P * other_P).sqrt()
    size = (squares_P.sum() * other_P.sum()).sqrt()
    return torch.where(sizes_P == 0, 0.0, products_P / sizes_P), torch.where(size == 0, 0.0, products_P.sum() / size)
