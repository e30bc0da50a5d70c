"""Random numbers as a pure function of (seed, step, micro-batch, purpose): there is no state to save or lose."""

from __future__ import annotations

import hashlib
import random
from typing import Literal

import torch

Purpose = Literal["model", "augmentation", "evaluation", "generation", "probe"]


def key(seed: int, step: int, micro_batch: int, purpose: Purpose) -> int:
    """63 bits that depend on all four. Source: own (BLAKE2b of the four)."""
    digest = hashlib.blake2b(f"{seed}/{step}/{micro_batch}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def set_randomness(seed: int, step: int, micro_batch: int, purpose: Purpose, device: torch.device) -> None:
    """Set the generators that a model may draw from: torch's of `device` and of the CPU, and Python's own.

    numpy's global generator is left alone. Does not wait for the device.
    """
    value = key(seed, step, micro_batch, purpose)
    torch.default_generator.manual_seed(value)
    random.seed(value)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(value)
