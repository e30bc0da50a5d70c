"""Gradient accumulation for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.objective import logits_of
from trimtab.signals import IGNORED

Pair = tuple[Tensor, Tensor]


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (nats) of logits [..., V] against classes [...], summed over targets that are not -100."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def train_with_gradient_accumulation(
    model: nn.Module,
    dataloader: Iterable[Pair],
    optimizer: torch.optim.Optimizer,
    accumulation_steps: int,
    *,
    loss_function: Callable[[Tensor, Tensor], Tensor] = summed_cross_entropy,
    max_norm: float | None = 1.0,
) -> list[float]:
    """One pass over `dataloader`; one update for every `accumulation_steps` batches, and one for those left at the end.

    A batch is (inputs, targets), on the host; the model gives logits for the inputs. The gradient of an update is that
    of the loss summed over all its batches, by their counted targets (not -100), so that it depends on no split into
    batches; its norm is clipped to `max_norm`. Batches without a counted target update nothing. Gives the mean loss of
    each update, and waits for the device at the end alone. Raises: ValueError for `accumulation_steps` below 1.
    """
    pairs = windows(dataloader, accumulation_steps)
    model.train()
    device = next(model.parameters()).device
    losses = []
    for batches in pairs:
        count = sum(int((targets != IGNORED).sum()) for _, targets in batches)
        if count == 0:
            continue
        optimizer.zero_grad()
        total = torch.zeros((), device=device)
        for inputs, targets in batches:
            loss = loss_function(logits_of(model(inputs.to(device))), targets.to(device)) / count
            torch.autograd.backward(loss)
            total += loss.detach()
        if max_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        losses.append(total)
    return torch.stack(losses).tolist() if losses else []


def windows(batches: Iterable[Pair], accumulation_steps: int) -> Iterator[list[Pair]]:
    """`batches`, so many at a time; the last may be fewer. Raises: ValueError for fewer than one at a time."""
    if accumulation_steps < 1:
        raise ValueError(f"accumulation_steps must be at least 1. Received: {accumulation_steps}")
    left = iter(batches)
    return iter(lambda: list(islice(left, accumulation_steps)), [])
