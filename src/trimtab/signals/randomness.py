"""Random numbers as a pure function of (seed, step, micro-batch, purpose): there is no state to save or lose."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch

Purpose = Literal[
    "model", "gradient", "curvature", "procedure", "augmentation", "order", "evaluation", "generation", "probe"
]


def key(seed: int, step: int, micro_batch: int, purpose: Purpose) -> int:
    """63 bits that depend on all four. Source: own (BLAKE2b of the four)."""
    digest = hashlib.blake2b(f"{seed}/{step}/{micro_batch}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def set_randomness(
    seed: int, step: int, micro_batch: int, purpose: Purpose, device: torch.device, *, foreign: bool = False
) -> None:
    """Set the generators that a model may draw from: torch's, of `device` and of the CPU.

    A `foreign` model may draw from Python's and numpy's global ones, too. Does not wait for the device.
    """
    value = key(seed, step, micro_batch, purpose)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(value)
    if foreign:
        _seed_host(value)


@contextmanager
def seeded(value: int) -> Iterator[None]:
    """Inside, the global generators of torch, numpy and Python begin at `value`; on the CPU they are put back after."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(value)
        _seed_host(value)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _seed_host(value: int) -> None:
    random.seed(value)
    np.random.seed([value & 0xFFFFFFFF, value >> 32])
