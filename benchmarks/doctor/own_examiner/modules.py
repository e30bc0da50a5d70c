"""Modules as users bring them: digits by convolutions, tables by layers, text by a GRU.

The mistakes that users make inside a module are arguments, all off by default, so that a run and its sound twin differ
in nothing else.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from own_examiner.data import FIRST

ACTIVATIONS: Final = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU}


class Layers(nn.Module):
    """Layers over a row of numbers, which the text has as characters: [batch, outputs]."""

    def __init__(
        self,
        count: int,
        outputs: int,
        *,
        width: int = 64,
        depth: int = 2,
        activation: str = "relu",
        norm: str = "none",
        center: float = 8.0,
        scale: float = 6.0,
        factors: tuple[float, ...] = (),
        deviation: float | None = None,
        bias: float | None = None,
        residual: bool = False,
        dropout: float = 0.0,
        always: bool = False,
    ) -> None:
        super().__init__()
        self.count, self.center, self.scale, self.residual = count, center, scale, residual
        self.dropout, self.always = dropout, always
        self.register_buffer("factors", torch.tensor(factors or (1.0,)))
        sizes = [count, *[width] * depth]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.activations = nn.ModuleList(ACTIVATIONS[activation]() for _ in self.layers)
        norms = {"none": nn.Identity, "layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
        self.norms = nn.ModuleList(norms[norm](width) if norm != "none" else nn.Identity() for _ in self.layers)
        self.head = nn.Linear(width, outputs)
        for layer in self.layers:
            if deviation is not None:
                nn.init.normal_(layer.weight, std=deviation)
            if bias is not None:
                nn.init.constant_(layer.bias, bias)
        if deviation is not None:
            nn.init.normal_(self.head.weight, std=deviation)

    def forward(self, tokens: Tensor) -> Tensor:
        x = (tokens[:, 1 : self.count + 1].float() - FIRST - self.center) / self.scale * self.factors
        for layer, norm, activation in zip(self.layers, self.norms, self.activations, strict=True):
            y = activation(norm(layer(x)))
            x = x + y if self.residual and x.shape == y.shape else y
        return self.head(functional.dropout(x, self.dropout, self.training or self.always))


class Convolutions(nn.Module):
    """Convolutions over images of digits of 8 by 8 pixels: [batch, classes]."""

    def __init__(self, classes: int = 10, *, width: int = 16, norm: bool = True, bias: float | None = None,
                 deviation: float | None = None, scale: float = 16.0, dropout: float = 0.0,
                 always: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.scale, self.dropout, self.always = scale, dropout, always
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) if norm else nn.Identity() for n in (width, 2 * width))
        self.relus = nn.ModuleList((nn.ReLU(), nn.ReLU()))
        self.head = nn.Linear(2 * width * 4, classes)
        for layer in (self.first, self.second):
            if bias is not None:
                nn.init.constant_(layer.bias, bias)
            if deviation is not None:
                nn.init.normal_(layer.weight, std=deviation)
        if deviation is not None:
            nn.init.normal_(self.head.weight, std=deviation)

    def forward(self, tokens: Tensor) -> Tensor:
        x = ((tokens[:, 1:65].float() - FIRST) / self.scale).reshape(-1, 1, 8, 8)
        x = functional.max_pool2d(self.relus[0](self.norms[0](self.first(x))), 2)
        x = functional.max_pool2d(self.relus[1](self.norms[1](self.second(x))), 2)
        return self.head(functional.dropout(x.flatten(1), self.dropout, self.training or self.always))


class Gru(nn.Module):
    """A language model: tokens [batch, time] to logits [batch, time, vocabulary]."""

    def __init__(self, vocabulary_size: int = 257, *, width: int = 64, deviation: float | None = None,
                 dropout: float = 0.0, always: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.dropout, self.always = dropout, always
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary_size)
        if deviation is not None:
            nn.init.normal_(self.embedding.weight, std=deviation)
            nn.init.normal_(self.head.weight, std=deviation)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.gru(self.embedding(tokens))[0]
        return self.head(functional.dropout(x, self.dropout, self.training or self.always))


class Bag(nn.Module):
    """A text's class from the mean of its tokens' embeddings: [batch, classes]."""

    def __init__(self, vocabulary_size: int, classes: int, *, width: int = 64, dropout: float = 0.0,
                 always: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.dropout, self.always = dropout, always
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.layer = nn.Linear(width, width)
        self.relu = nn.ReLU()
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor, mask_BT: Tensor) -> Tensor:
        mask = mask_BT[..., None].float()
        mean = (self.embedding(tokens) * mask).sum(1) / mask.sum(1)
        x = self.relu(self.layer(mean))
        return self.head(functional.dropout(x, self.dropout, self.training or self.always))


class Whole(nn.Module):
    """A module with what users leave in by mistake."""

    def __init__(
        self,
        module: nn.Module,
        *,
        softmax: bool = False,
        kept_megabytes: float = 0.0,
        slower_by: float = 0.0,
        frozen: tuple[str, ...] = (),
        nan_after: int = 0,
        half_overflows: float = 0.0,
    ) -> None:
        super().__init__()
        self.module = module
        self.softmax, self.kept_megabytes, self.slower_by = softmax, kept_megabytes, slower_by
        self.nan_after, self.half_overflows = nan_after, half_overflows
        self.history: list[Tensor] = []
        self.calls = 0
        for name, parameter in module.named_parameters():
            if name.startswith(frozen) and frozen:
                parameter.requires_grad_(False)

    def forward(self, tokens: Tensor, mask_BT: Tensor) -> Tensor:
        logits = self.module(tokens, mask_BT) if isinstance(self.module, Bag) else self.module(tokens)
        if self.softmax:
            logits = logits.softmax(-1)
        if self.half_overflows:
            logits = (logits * self.half_overflows) / self.half_overflows
        if self.training:
            self._burden()
            if self.nan_after and self.calls > self.nan_after:
                logits = logits * torch.log(logits.detach().amin() - logits.detach().amin() - 1.0)
        return logits

    def _burden(self) -> None:
        """What grows from call to call."""
        self.calls += 1
        if self.kept_megabytes:
            self.history.append(torch.ones(int(self.kept_megabytes * 250_000)))
        if self.slower_by:  # a list that is gone through in every step
            time.sleep(self.slower_by * self.calls)


MODULES: Final[dict[str, type[nn.Module]]] = {"layers": Layers, "convolutions": Convolutions, "gru": Gru, "bag": Bag}
