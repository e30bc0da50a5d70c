"""Modules of the second set: recurrent, convolutional, mixing and attending ones, and the mistakes within them."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

FIRST: Final = 33


def numbers(tokens: Tensor, count: int) -> Tensor:
    """The characters of a row of numbers."""
    return tokens[:, 1 : count + 1].float() - FIRST


class Recurrent(nn.Module):
    """An LSTM, a GRU or a plain RNN over a text, or numbers: the next token, each word's class, or one."""

    def __init__(self, outputs: int, *, of: str = "text", cell: str = "LSTM", width: int = 48, count: int = 0,
                 center: float = 45.0, scale: float = 20.0, dropout: float = 0.0, always: bool = False,
                 first: bool = False, cut: str = "", gain: float = 0.0) -> None:  # fmt: skip
        super().__init__()
        self.of, self.count, self.center, self.scale = of, count, center, scale
        self.dropout, self.always, self.first, self.cut = dropout, always, first, cut
        self.embedding = nn.Embedding(512, width) if not count else nn.Identity()
        extra = {"nonlinearity": "relu"} if cell == "RNN" else {}
        both = of == "tags"
        self.cells = getattr(nn, cell)(1 if count else width, width, batch_first=True, bidirectional=both, **extra)
        self.head = nn.Linear(width * (1 + both), outputs)
        if gain:
            nn.init.eye_(self.cells.weight_hh_l0)
            with torch.no_grad():
                self.cells.weight_hh_l0.mul_(gain)

    def forward(self, tokens: Tensor, mask_BT: Tensor) -> Tensor:
        if self.count:
            x = ((numbers(tokens, self.count) - self.center) / self.scale)[..., None]
        else:
            x = self.embedding(tokens)
        if self.cut == "no_grad":
            with torch.no_grad():
                x = self.cells(x)[0]
        else:
            x = self.cells(x)[0]
        if self.cut == "detach":
            x = x.detach()
        x = functional.dropout(x, self.dropout, self.training or self.always)
        if self.of in ("text", "tags"):
            return self.head(x)
        if self.first:
            return self.head(x[:, 0])
        if self.count:
            return self.head(x[:, -1])
        mask = mask_BT[..., None].float()
        return self.head((x * mask).sum(1) / mask.sum(1))


class Residual(nn.Module):
    """A small residual network over images of 8 by 8, or over a row of numbers by one-dimensional convolutions."""

    def __init__(self, outputs: int, *, count: int = 64, width: int = 16, blocks: int = 2, norm: str = "batch",
                 activation: str = "ReLU", scale: float = 16.0, shift: float = 0.0, beta: float = 0.0,
                 residual: bool = True, tracked: bool = True, hidden: float = 0.0) -> None:  # fmt: skip
        super().__init__()
        self.count, self.scale, self.shift, self.residual, self.hidden = count, scale, shift, residual, hidden
        flat = count != 64
        conv, norms = (nn.Conv1d, nn.BatchNorm1d) if flat else (nn.Conv2d, nn.BatchNorm2d)
        self.stem = conv(1, width, 3, padding=1)
        self.blocks = nn.ModuleList(conv(width, width, 3, padding=1) for _ in range(blocks))
        self.norms = nn.ModuleList(
            norms(width, track_running_stats=tracked) if norm == "batch" else nn.Identity() for _ in range(blocks)
        )
        self.activations = nn.ModuleList(getattr(nn, activation)() for _ in range(blocks))
        self.head = nn.Linear(width * (count if flat else 16), outputs)
        for one in self.norms:
            if beta and not isinstance(one, nn.Identity):
                nn.init.constant_(one.bias, beta)

    def forward(self, tokens: Tensor) -> Tensor:
        x = (numbers(tokens, self.count) - self.shift) / self.scale
        x = self.stem(x[:, None] if self.count != 64 else x.reshape(-1, 1, 8, 8))
        for block, norm, activation in zip(self.blocks, self.norms, self.activations, strict=True):
            y = activation(norm(block(x)))
            x = x + y if self.residual else y
        if self.count == 64:
            x = functional.max_pool2d(x, 2)
        return self.head(x.flatten(1))


class Mixer(nn.Module):
    """An MLP-Mixer over the sixteen patches of an image, or the columns of a table."""

    def __init__(self, outputs: int, *, count: int = 64, width: int = 32, blocks: int = 2, center: float = 8.0,
                 scale: float = 6.0, offset: float = 0.0, gain: float = 1.0, cut: bool = False,
                 dropout: float = 0.0, always: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.count, self.patch = count, 4 if count == 64 else 1
        self.center, self.scale, self.offset, self.cut = center, scale, offset, cut
        self.dropout, self.always = dropout, always
        places = count // self.patch
        self.inward = nn.Linear(self.patch, width)
        self.places = nn.ModuleList(nn.Sequential(nn.Linear(places, 32), nn.GELU(), nn.Linear(32, places))
                                    for _ in range(blocks))  # fmt: skip
        self.features = nn.ModuleList(nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))
                                      for _ in range(blocks))  # fmt: skip
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * blocks))
        self.head = nn.Linear(width, outputs)
        self.place = nn.Parameter(0.02 * torch.randn(places, width))
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2 and name != "place":
                    parameter.mul_(gain)

    def forward(self, tokens: Tensor) -> Tensor:
        x = (numbers(tokens, self.count) - self.center) / self.scale + self.offset
        x = x.reshape(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4) if self.patch == 4 else x[..., None]
        x = self.inward(x) + self.place
        for number, (places, features) in enumerate(zip(self.places, self.features, strict=True)):
            x = x + places(self.norms[2 * number](x).transpose(1, 2)).transpose(1, 2)
            x = x + features(self.norms[2 * number + 1](x))
            x = functional.dropout(x, self.dropout, self.training or self.always)
        x = x.mean(1)
        return self.head(x.detach() if self.cut else x)


class Perceptron(nn.Module):
    """Plain layers over a row of numbers."""

    def __init__(self, outputs: int, *, count: int, width: int = 64, depth: int = 3, activation: str = "ReLU",
                 center: float = 45.0, scale: float = 25.0, offset: float = 0.0, weights: str = "",
                 dropout: float = 0.0, norm: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.count, self.center, self.scale, self.offset = count, center, scale, offset
        layers: list[nn.Module] = []
        for number in range(depth):
            layers += [nn.Linear(count if not number else width, width)]
            layers += [nn.BatchNorm1d(width)] if norm else []
            layers += [getattr(nn, activation)(), nn.Dropout(dropout)]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(width, outputs)
        for layer in (*self.layers, self.head):
            if isinstance(layer, nn.Linear) and weights == "gain":
                nn.init.orthogonal_(layer.weight, gain=4.0)
            if isinstance(layer, nn.Linear) and weights == "tiny":
                nn.init.normal_(layer.weight, std=0.01)
            if isinstance(layer, nn.Linear) and weights == "negative":
                with torch.no_grad():
                    layer.weight.abs_().neg_()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layers((numbers(tokens, self.count) - self.center) / self.scale + self.offset))


class Transformers(nn.Module):
    """A model of transformers with random weights: of images, of texts, or whatever its configuration says."""

    def __init__(self, config: dict[str, Any], *, of: str, factor: float = 1.0, inverted: bool = False,
                 stays: bool = False) -> None:  # fmt: skip
        super().__init__()
        import transformers

        self.of, self.factor, self.inverted, self.stays = of, factor, inverted, stays
        found = transformers.AutoConfig.for_model(**config)
        names = {"images": "ImageClassification", "class": "SequenceClassification", "tags": "TokenClassification",
                 "text": "CausalLM"}  # fmt: skip
        self.model = getattr(transformers, f"AutoModelFor{names[of]}").from_config(found)

    def train(self, mode: bool = True) -> Transformers:
        """A user's way to keep gradients through dropout, left in."""
        return super().train(True if self.stays else mode)

    def forward(self, tokens: Tensor, mask_BT: Tensor) -> Tensor:
        if self.of == "images":
            return self.model(numbers(tokens, 64).reshape(-1, 1, 8, 8) / 16 * self.factor).logits
        mask = ~mask_BT if self.inverted else mask_BT
        return self.model(tokens, attention_mask=mask.long()).logits


MODULES: Final[dict[str, type[nn.Module]]] = {
    "recurrent": Recurrent, "residual": Residual, "mixer": Mixer, "perceptron": Perceptron,
    "transformers": Transformers,
}  # fmt: skip
