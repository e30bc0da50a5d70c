"""What the first answers of a model are beside the batch: logits of how many classes, of tokens that go on or not.

Shape suffixes: B sequences · T positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from trimtab.model.answers import sum_to_one

_NEAR: Final = 1e-3
_LEFT_OUT: Final = -100
"""The target of what is not asked, as torch's cross-entropy has it."""


def classes_of(answers: Tensor, tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Over how many classes answers are that are logits; a vocabulary where they are of tokens that go on."""
    number = answers.shape[-1]
    if answers.ndim == 2:
        return {"num_classes": number}
    if any(one.shape == answers.shape[:-1] and is_continued(one, tensors) for one in tensors):
        return {"tokenizer": {"vocabulary_size": number}}
    return {}


def costs(answers: Tensor, targets: Tensor, loss: float) -> bool:
    """Whether `loss` is the cross-entropy of `answers` as logits, of these targets or of those one further on."""
    if targets.dtype != torch.int64 or answers.ndim < 2 or targets.shape != answers.shape[:-1]:
        return False
    if not bool(((targets >= 0) & (targets < answers.shape[-1]) | (targets == _LEFT_OUT)).all()):
        return False
    answers = answers.float()
    values = [F.cross_entropy(answers.flatten(0, -2), targets.flatten())]
    if targets.ndim == 2 and targets.shape[1] > 1:
        values.append(F.cross_entropy(answers[:, :-1].flatten(0, 1), targets[:, 1:].flatten()))
    return any(abs(float(value) - loss) < _NEAR * max(1.0, loss) for value in values)


def are_logits(answers: Tensor, targets: Tensor, loss: float) -> bool:
    """Whether `loss` is their cross-entropy, and neither that of their softmax nor the logarithm of probabilities that
    they are: where answers are even, as of a last layer that begins at zero, all are alike."""
    others = answers.float().log() if sum_to_one(answers) else answers.float().softmax(-1)
    return costs(answers, targets, loss) and not costs(others, targets, loss)


def is_continued(tokens: Any, others: Iterable[Tensor]) -> bool:
    """Whether one of `others` holds what follows each of `tokens_BT`: then nothing after it may be seen."""
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.dtype != torch.int64 or tokens.shape[1] < 4:
        return False
    for other_BT in others:
        if other_BT.dtype != torch.int64 or other_BT.shape != tokens.shape:
            continue
        asked_BT = other_BT[:, :-1] >= 0
        is_next_BT = other_BT[:, :-1] == tokens[:, 1:]
        if bool(asked_BT.any()) and bool(is_next_BT[asked_BT].all()) and not bool((tokens == tokens[:, :1]).all()):
            return True
    return False


def tensors_in(batch: Any) -> list[Tensor]:
    """All tensors of a batch, however it is put together."""
    return [one for one in tree_leaves(batch) if isinstance(one, Tensor)]
