from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from trimtab.data import MaskedSequences, PackedSequences
from trimtab.signals import IGNORED

LENGTH, MASK = 64, 256


def masked(seed: int = 0, rate: float = 0.15) -> tuple[PackedSequences, MaskedSequences]:
    text = Path(json.__file__).read_bytes() * 4
    tokens = np.frombuffer(text, dtype=np.uint8)
    packed = PackedSequences(tokens, np.array([0, 300]), LENGTH, num_bytes=len(text))
    return packed, MaskedSequences(packed, rate=rate, mask_token=MASK, seed=seed)


def test_the_targets_are_what_was_there() -> None:
    packed, holes = masked()
    indices = np.arange(len(packed))
    plain, batch = packed.batch(indices), holes.batch(indices, None, indices)
    asked = batch.targets != IGNORED
    assert torch.equal(batch.targets[asked], plain.tokens_BT[asked])
    assert torch.equal(batch.tokens_BT[~asked], plain.tokens_BT[~asked])
    assert batch.count == int(asked.sum())
    assert not asked[batch.document_ids_BT < 0].any()
    assert asked.any(1).all()


def test_the_parts_are_those_of_the_paper() -> None:
    packed, holes = masked()
    places = np.arange(40 * len(packed))
    plain = packed.batch(places % len(packed))
    batch = holes.batch(places % len(packed), None, places)
    asked, real = batch.targets != IGNORED, batch.document_ids_BT >= 0
    assert abs(float(asked.sum() / real.sum()) - 0.15) < 0.003
    hidden = (batch.tokens_BT == MASK)[asked].double().mean()
    stays = (batch.tokens_BT == plain.tokens_BT)[asked].double().mean()
    assert abs(float(hidden) - 0.8) < 0.01
    assert abs(float(stays) - 0.1 - 0.1 / 256) < 0.01
    assert int(batch.tokens_BT.max()) == MASK
    assert len(batch.tokens_BT[asked].unique()) > 200


def test_what_is_hidden_depends_on_seed_and_place_alone() -> None:
    _, holes = masked()
    _, again = masked()
    places = np.array([3, 17, 1000, 4])
    indices = np.array([1, 2, 3, 1])
    whole = holes.batch(indices, None, places)
    for row in range(4):
        one = again.batch(indices[row : row + 1], None, places[row : row + 1])
        assert torch.equal(one.tokens_BT[0], whole.tokens_BT[row])
    assert not torch.equal(whole.targets[0], whole.targets[3])
    assert not torch.equal(whole.targets[0], masked(seed=1)[1].batch(indices, None, places).targets[0])
    fixed = holes.batch(indices, 6)
    assert torch.equal(fixed.targets[0], fixed.targets[3])
    assert not torch.equal(fixed.targets[0], holes.batch(indices, None, indices).targets[0])
