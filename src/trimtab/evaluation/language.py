"""How well a model predicts text: exact sums over counted tokens, divided once.

Shape suffixes: B sequences · T positions · V vocabulary; all of them in `signals/batch.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.errors import DataError
from trimtab.model import as_output, evaluating
from trimtab.signals import IGNORED, Batch, ModelOutput, Task


class Sequences(Protocol):
    """Token sequences of one length, in a fixed order."""

    @property
    def sequence_length(self) -> int:
        """Positions in each."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batch(self, indices: NDArray[np.int64], batch_size: int) -> Batch:
        """The sequences at `indices`, filled up to `batch_size` with rows in which no target is counted."""
        ...


def evaluate(
    model: nn.Module,
    task: Task,
    sequences: Sequences,
    *,
    batch_size: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    max_tokens: int | None = None,
    token_bytes: Tensor | NDArray[np.int64] | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, float]:
    """`loss` (nats), `accuracy`, `perplexity`, and with `token_bytes` `bits_per_byte`, over counted tokens.

    The loss is plain cross-entropy, without smoothing and penalties. Sums are kept in float64 on the device
    and fetched once, at the end: the result does not depend on `batch_size`, and no batch waits. Eval mode,
    no gradients; modes are restored. With `max_tokens` as many sequences as hold so many tokens, at least
    one, are taken at even distances. `token_bytes` is the number of UTF-8 bytes of each token, [V]; bits per
    byte are left out when the counted targets stand for no bytes. `progress` is told the part that is begun.

    Raises:
        DataError: no target is counted.
    """
    indices = spread_indices(sequences, max_tokens)
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    num_tokens = 0
    bytes_V = None if token_bytes is None else torch.as_tensor(token_bytes, device=device)
    with evaluating(model):
        for start in range(0, len(indices), batch_size):
            if progress is not None:
                progress(start / len(indices))
            batch = sequences.batch(indices[start : start + batch_size], batch_size).to(device)
            with autocast():
                terms = task.terms(model(**task.inputs(batch)), batch)
            sums[0] += terms.token_loss_BT.sum(dtype=torch.float64)
            sums[1] += terms.correct
            if bytes_V is not None:
                bytes_BT = bytes_V[batch.targets_BT.clamp_min(0)]
                sums[2] += (bytes_BT * (batch.targets_BT != IGNORED)).sum()
            num_tokens += batch.count
    if num_tokens == 0:
        raise DataError("there is nothing to evaluate on: no token of these sequences is counted")
    total_nats, num_correct, num_bytes = sums.tolist()
    loss = total_nats / num_tokens
    metrics = {"loss": loss, "accuracy": num_correct / num_tokens, "perplexity": perplexity_of(loss)}
    if num_bytes > 0:
        metrics["bits_per_byte"] = total_nats / math.log(2) / num_bytes
    return metrics


def spread_indices(sequences: Sequences, max_tokens: int | None) -> NDArray[np.int64]:
    """All indices, or those of as many sequences as hold `max_tokens`, at even distances; at least one."""
    length = len(sequences)
    if max_tokens is None or max_tokens >= length * sequences.sequence_length:
        return np.arange(length)
    num_taken = max(1, max_tokens // sequences.sequence_length)
    return np.arange(num_taken) * length // num_taken


def perplexity_of(loss: float) -> float:
    """exp(loss), infinite where that is beyond a float."""
    return math.inf if loss > 709.0 else math.exp(loss)


def calculate_perplexity(
    model: nn.Module, dataloader: Iterable[Batch | tuple[Tensor, Tensor]], device: torch.device | str
) -> float:
    """exp of the negative log-likelihood per counted token.

    `dataloader` gives trimtab's batches, for a model of trimtab, or pairs of tokens_BT and targets_BT
    (already shifted; -100 is not counted), for any module that turns tokens into logits_BTV. Eval mode, no
    gradients; modes are restored.

    Raises:
        DataError: no target is counted.
    """
    device = torch.device(device)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    with evaluating(model):
        for item in dataloader:
            if isinstance(item, Batch):
                batch = item.to(device)
                targets_BT = batch.targets_BT
                result = model(batch.tokens_BT, batch.positions_BT, batch.document_ids_BT)
            else:
                targets_BT = item[1].to(device)
                result = model(item[0].to(device))
            output = as_output(result)
            logits_BTV = output.logits_BTV if isinstance(output, ModelOutput) else output
            loss_N = F.cross_entropy(
                logits_BTV.float().flatten(0, -2),
                targets_BT.flatten(),
                ignore_index=IGNORED,
                reduction="none",
            )
            sums[0] += loss_N.sum(dtype=torch.float64)
            sums[1] += (targets_BT != IGNORED).sum()
    total_nats, num_tokens = sums.tolist()
    if num_tokens == 0:
        raise DataError("there is nothing to evaluate on: no target is counted")
    return perplexity_of(total_nats / num_tokens)
