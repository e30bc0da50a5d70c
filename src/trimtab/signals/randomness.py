"""Random numbers as a pure function of (seed, step, micro-batch, purpose): there is no state to save or lose."""

from __future__ import annotations

import hashlib
from typing import Literal

import torch

Purpose = Literal["model", "augmentation", "evaluation", "generation", "probe"]


def key(seed: int, step: int, micro_batch: int, purpose: Purpose) -> int:
    """63 bits that depend on all four. Source: own (BLAKE2b of the four)."""
    digest = hashlib.blake2b(f"{seed}/{step}/{micro_batch}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def set_randomness(seed: int, step: int, micro_batch: int, purpose: Purpose, device: torch.device) -> None:
    """Set torch's generator of `device`, from which dropout draws; does not wait for the device."""
    generator = torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator
    generator.manual_seed(key(seed, step, micro_batch, purpose))
