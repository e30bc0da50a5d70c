"""Small networks of every family, put together of a stem, blocks and a head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .data import Data
from .plan import Plan

ACTS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "silu": nn.SiLU}


class Block(nn.Module):
    """Attention and feed-forward, its norms before or after."""

    def __init__(self, width: int, drop: float, post: bool, causal: bool) -> None:
        super().__init__()
        self.heads, self.post, self.causal = max(1, width // 16), post, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.norm1, self.norm2, self.drop = nn.LayerNorm(width), nn.LayerNorm(width), nn.Dropout(drop)

    def attend(self, h: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=self.causal)
        return self.drop(self.out(mixed.transpose(1, 2).flatten(2)))

    def feed(self, h: torch.Tensor) -> torch.Tensor:
        return self.drop(self.down(F.gelu(self.up(h))))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        if self.post:
            h = self.norm1(h + self.attend(h))
            return self.norm2(h + self.feed(h))
        h = h + self.attend(self.norm1(h))
        return h + self.feed(self.norm2(h))


class Recurrent(nn.Module):
    """One layer of a recurrent network."""

    def __init__(self, family: str, width: int, drop: float) -> None:
        super().__init__()
        self.net = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[family](width, width, batch_first=True)
        self.drop = nn.Dropout(drop)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.drop(self.net(h)[0])


class Convolved(nn.Module):
    """A convolution along the sequence, which looks back alone where it must."""

    def __init__(self, width: int, drop: float, causal: bool, residual: bool) -> None:
        super().__init__()
        self.net, self.drop, self.causal, self.residual = nn.Conv1d(width, width, 5), nn.Dropout(drop), causal, residual

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        pad = (4, 0) if self.causal else (2, 2)
        out = self.drop(F.relu(self.net(F.pad(h.transpose(1, 2), pad)).transpose(1, 2)))
        return h + out if self.residual else out


class Dense(nn.Module):
    """A layer of a perceptron."""

    def __init__(self, width: int, plan: Plan) -> None:
        super().__init__()
        norms = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "none": lambda _: nn.Identity()}
        self.linear, self.norm = nn.Linear(width, plan.width), norms[plan.norm](plan.width)
        self.act, self.drop, self.residual = (
            ACTS[plan.act](),
            nn.Dropout(plan.drop),
            plan.residual and width == plan.width,
        )

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        out = self.drop(self.act(self.norm(self.linear(h))))
        return h + out if self.residual else out


class Plane(nn.Module):
    """A convolution over a picture."""

    def __init__(self, channels: int, plan: Plan, pool: bool) -> None:
        super().__init__()
        norm = {"batch": nn.BatchNorm2d, "layer": lambda c: nn.GroupNorm(1, c), "none": lambda _: nn.Identity()}[
            plan.norm
        ]
        self.conv, self.norm, self.pool = (
            nn.Conv2d(channels, plan.width // 2, 3, padding=1),
            norm(plan.width // 2),
            pool,
        )
        self.act, self.drop = ACTS[plan.act](), nn.Dropout(plan.drop)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        h = self.act(self.norm(self.conv(h)))
        return self.drop(F.max_pool2d(h, 2) if self.pool else h)


class Net(nn.Module):
    """Samples -> scores of labels, of each place where the task asks for that."""

    def __init__(self, plan: Plan, data: Data) -> None:
        super().__init__()
        self.kind, self.inputs, self.family = data.kind, data.inputs, plan.family
        width, causal = plan.width, data.kind in ("lm", "s2s") and not plan.peek
        self.positions = None
        if data.inputs == "tokens":
            self.stem: nn.Module = nn.Embedding(data.voc, width)
            if plan.family == "trf":
                self.positions = nn.Parameter(
                    0.02 * torch.randn(data.x.shape[1], width), requires_grad=not plan.no_positions
                )
                if plan.no_positions:
                    self.positions.data.zero_()
        elif data.inputs == "series":
            self.stem = nn.Linear(1, width)
        else:
            self.stem = nn.Identity()
        blocks: list[nn.Module] = []
        for i in range(plan.depth):
            if plan.family == "trf":
                blocks.append(Block(width, plan.drop, plan.post, causal))
            elif plan.family in ("gru", "lstm", "rnn"):
                blocks.append(Recurrent(plan.family, width, plan.drop))
            elif plan.family == "cnn" and data.inputs == "image":
                blocks.append(Plane(1 if i == 0 else width // 2, plan, i < 2))
            elif plan.family == "cnn":
                blocks.append(Convolved(width, plan.drop, causal, plan.residual))
            else:
                start = width if data.inputs == "tokens" else data.voc
                blocks.append(Dense(start if i == 0 else width, plan))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width) if plan.family == "trf" and not plan.post else nn.Identity()
        last = (width // 2) * 9 if plan.family == "cnn" and data.inputs == "image" else width
        if plan.family == "cnn" and data.inputs == "image" and plan.depth < 2:
            last = (width // 2) * 36
        self.head = nn.Linear(last, data.num_labels)
        self.dead: list[float] = []
        self.watch = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        per_place = self.kind in ("lm", "s2s", "tag")
        if self.inputs == "tokens":
            h = self.stem(x)
            if self.family == "mlp":
                h = h.mean(1)
            elif self.positions is not None:
                h = h + self.positions[: x.shape[1]]
        elif self.inputs == "series" and self.family != "mlp":
            h = self.stem(x[..., None])
        else:
            h = x.flatten(1) if self.family == "mlp" else x
        if self.watch:
            self.dead = []
        for block in self.blocks:
            h = block(h)
            if self.watch and self.family in ("mlp", "cnn"):
                self.dead.append(
                    float(
                        (h.abs().flatten(2).amax((0, 2)) if h.dim() > 2 else h.abs().amax(0)).lt(1e-12).float().mean()
                    )
                )
        h = self.norm(h)
        if self.family == "cnn" and self.inputs == "image":
            h = h.flatten(1)
        elif not per_place and h.dim() == 3:
            h = h[:, -1] if self.family in ("gru", "lstm", "rnn") and self.inputs == "series" else h.mean(1)
        return self.head(h)
