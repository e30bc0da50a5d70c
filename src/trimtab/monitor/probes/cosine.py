"""How far the gradient turns from step to step.

Shape suffixes: K values of the sample.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Final, final

import torch
from torch import Tensor

from trimtab.signals import StepSignals

MOST: Final = 1 << 16
"""Values of the gradient that are looked at."""


@final
class GradientCosine:
    """The cosine between the gradients that two successive updates were given, from a sample of their values.

    Near 1 steps go the same way, near 0 they have little in common, as those of small batches; a value that stays below
    0 is that of steps which undo each other. Up to `MOST` values it is exact. Of more, the standard error is about 1 /
    sqrt(K), 0.004, where the values weigh alike. Where few carry the gradient, it is that of so few: most of a language
    model's gradient is in the rows of its commonest tokens, which leaves about 0.1. So the error is told, too,
    to first order, from the sample itself.

    The places in a parameter lie a fixed distance apart, of which the width of a row is no multiple, from a beginning
    that is drawn. They depend on seed, names and shapes alone, so that a part of a parameter has those that fall into
    it. An eighth of the sample falls on all parameters alike, the rest by size, and a value counts for all those that
    it stands for. Not a number at first, and where either gradient has such a value; 0 where one of them is 0. A step
    that is skipped is compared, and not remembered.

    Source: own; a stratified systematic sample, and the error of a ratio by its linear part.
    """

    name = "gradient_cosine"
    columns = ("grad_cosine", "grad_cosine_error")
    only_at_window_end = False

    def __init__(self, gradients: Mapping[str, Tensor], seed: int, most: int = MOST) -> None:
        """Of `gradients`, as `follow` says."""
        self._seed, self._most = seed, most
        self.follow(gradients)

    @torch.no_grad()
    def follow(self, gradients: Mapping[str, Tensor]) -> None:
        """From now on they have these names and shapes; what is remembered of others is forgotten."""
        shapes = {name: gradient.shape for name, gradient in gradients.items()}
        device = next(iter(gradients.values())).device
        self.places = places(shapes, self._seed, self._most)
        taken = [(shapes[name].numel(), len(range(shapes[name].numel())[cut])) for name, cut in self.places.items()]
        stands_for_K = torch.cat([torch.full((num,), size / num) for size, num in taken]).to(device)
        self._roots_K, self._unseen_K = stands_for_K.sqrt(), 1.0 - 1.0 / stands_for_K
        self._of = torch.tensor(_number(self._seed, self._most, {name: tuple(shape) for name, shape in shapes.items()}))
        self._before_K = torch.full_like(stands_for_K, torch.nan)

    @torch.no_grad()
    def read(self, signals: StepSignals) -> Tensor:
        """[2]."""
        gradients, before_K = signals.gradients, self._before_K
        taken_K = torch.cat([gradients.by_name[name].reshape(-1)[cut] for name, cut in self.places.items()])
        now_K = taken_K * self._roots_K
        now_K /= torch.linalg.vector_norm(now_K).clamp(min=torch.finfo(torch.float32).tiny)
        products_K = before_K * now_K
        cosine = products_K.sum()
        influence_K = (1.0 - cosine) * products_K - cosine / 2.0 * (now_K - before_K).square()
        error = (influence_K.square() * self._unseen_K).sum().sqrt()
        torch.where(gradients.skip > 0, before_K, now_K, out=before_K)
        return torch.stack((cosine, error))

    def state_by_name(self) -> dict[str, Tensor]:
        """The newest sample, and of which parameters it is."""
        return {"sample": self._before_K, "of": self._of}

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says; of nothing, and of other parameters, as new."""
        if state and torch.equal(state["of"], self._of):
            self._before_K.copy_(state["sample"])
        else:
            self._before_K.fill_(torch.nan)


def places(shapes: Mapping[str, torch.Size], seed: int, most: int = MOST) -> dict[str, slice]:
    """Where each parameter is looked at, as a slice of its values in their order; all of them where they are few."""
    total = sum(shape.numel() for shape in shapes.values())
    found = {}
    for name, shape in shapes.items():
        size = shape.numel()
        wanted = size if total <= most else max(1, int(most / 8 / len(shapes) + most * 7 / 8 * size / total))
        stride = -(-size // min(size, wanted))
        while stride > 1 and math.gcd(stride, shape[-1]) > 1:
            stride += 1
        found[name] = slice(_number(seed, name) % min(stride, size), None, stride)
    return found


def _number(*what: object) -> int:
    """63 bits that depend on all of it."""
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=8).digest(), "big") >> 1
