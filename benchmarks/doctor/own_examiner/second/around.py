"""What users put around a module: outputs of another kind, hooks, monitors, controllers, optimizers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.events import Adjust, EvaluationEnded, Event, StepsEnded


class Around(nn.Module):
    """A module with what is left in it by mistake; all of it is off by default."""

    def __init__(self, module: nn.Module, *, squash: str = "", running: bool = False, caches: int = 0,
                 not_cleared: float = 0.0, explodes_after: int = 0, row_scale: bool = False, half: float = 0.0,
                 bias: float = 0.0, frozen: tuple[str, ...] = (), rewrites: int = 0) -> None:  # fmt: skip
        super().__init__()
        self.module, self.squash, self.running, self.caches = module, squash, running, caches
        self.explodes_after, self.row_scale, self.half, self.bias = explodes_after, row_scale, half, bias
        self.calls, self.cache, self.rewrites, self.lines = 0, {}, rewrites, [0.5]  # type: ignore[var-annotated]
        for name, parameter in module.named_parameters():
            if frozen and any(one in name for one in frozen):
                parameter.requires_grad_(False)
            elif not_cleared:
                self._keeps(parameter, not_cleared)

    def _keeps(self, parameter: nn.Parameter, part: float) -> None:
        """A hook that adds each gradient to those before, from a recipe for accumulating by hand."""
        held = torch.zeros_like(parameter)

        def hook(gradient: Tensor) -> Tensor:
            held.mul_(part).add_(gradient)
            return held.clone()

        parameter.register_hook(hook)

    def forward(self, tokens: Tensor, mask_BT: Tensor) -> Tensor:
        asks = self.module.forward.__code__.co_varnames
        logits: Tensor = self.module(tokens, mask_BT) if "mask_BT" in asks else self.module(tokens)
        self.calls += self.training
        if self.half:  # a norm by hand: in float16 the squares pass its largest number
            values = logits.half() * self.half
            logits = logits * (values * values).mean().half().sqrt().float() / self.half
        if self.bias:
            logits = torch.cat([logits[..., :1] + self.bias, logits[..., 1:]], -1)
        if self.running:  # a temperature that falls with a count of calls, in an attribute that no checkpoint has
            logits = logits * min(1.0, (self.calls + 5) / 100)
        if self.squash == "log_softmax":
            return logits.log_softmax(-1)
        if self.squash:
            logits = logits.softmax(-1) if self.squash == "softmax" else logits.sigmoid()
        if self.row_scale:  # standardized by row, without an epsilon
            text = tokens[:, 1:13].float()
            standard = (text - text.mean(1, keepdim=True)) / text.std(1, keepdim=True)
            logits = logits * standard.square().mean(1, keepdim=True)
        if self.training and self.explodes_after and self.calls > self.explodes_after:
            logits = logits * torch.exp(0.5 * (self.calls - self.explodes_after) ** 1.5 * torch.ones(()))
            logits = logits - logits.exp().sum(-1, keepdim=True).log()  # log-softmax by hand
        if self.caches and self.training:  # what was prepared of a batch once, should the same batch come again
            key = tokens.numpy().tobytes()
            self.cache.setdefault(key, nn.functional.one_hot(tokens, self.caches + 257).float())
        if self.rewrites and self.training:  # a log of every output so far, written anew each time
            self.lines += logits.detach().flatten().tolist()[:1] * self.rewrites
            json.dumps(self.lines)
        return logits


class KeepsWeights:
    """Keeps a copy of each window's weights and events, for a film of the training."""

    def __init__(self, megabytes: float) -> None:
        self.megabytes, self.kept = megabytes, []  # type: ignore[var-annotated]

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded):
            self.kept.append(torch.rand(int(self.megabytes * 250_000 * (event.last_step - event.first_step + 1))))


class Changes:
    """Changes the learning rate at evaluations: by a factor each time, or for one stretch."""

    name = "changes"

    def __init__(self, factor: float, at: int | None = None) -> None:
        self.factor, self.at, self.times = factor, at, 0

    def decide(self, event: Event) -> Adjust | None:
        if not isinstance(event, EvaluationEnded):
            return None
        self.times += 1
        if self.at is None:
            return Adjust("a smaller rate for each evaluation", "learning_rate", max(1e-4, self.factor**self.times))
        if self.times == self.at:
            return Adjust("a larger rate, to leave the valley", "learning_rate", self.factor)
        return Adjust("as before", "learning_rate", 1.0) if self.times == self.at + 1 else None

    def state(self) -> dict[str, Any]:
        return {"times": self.times}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.times = state["times"]


MONITORS = {"keeps_weights": KeepsWeights}
