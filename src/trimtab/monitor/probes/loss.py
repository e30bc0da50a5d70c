"""The loss, sample by sample and position by position.

Shape suffixes: B samples · T positions · N samples of several batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from trimtab.signals import IGNORED, Batch, Examined, Readings

QUANTILES: Final = {"minimum": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "maximum": 1.0}
PARTS: Final = 8
HIGHEST: Final = 3
MOST_CHARACTERS: Final = 400
_WORST: Final = 5


@final
class LossExamination:
    """Quantiles of the loss over the newest step's samples, the three of them with the highest, and on the probe
    batch the loss in each eighth of a sequence.

    The loss of a sample is the mean plain loss over its counted targets. The newest samples are judged after the
    update that they took part in, in eval mode and without gradients: so over a run other samples come up each time,
    while the probe batch is always the same. A sample without a counted target, or whose loss is no number, has no
    place in the quantiles; the latter leads the highest.
    """

    name = "loss"

    def __init__(self, seed: int) -> None:
        """Nothing here is drawn."""

    def attach(self, model: nn.Module) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def read(self, examined: Examined) -> Readings:
        """The loss of the probe batch, up to 8 by position and 6 quantiles, and 3 samples."""
        readings = Readings({"probe/loss": examined.loss})
        if examined.losses.ndim == 2 and examined.batch.targets.dtype == torch.int64:
            readings.metrics |= _by_position(examined.losses, examined.batch)
        found = [(batch, losses) for batch, losses in examined.newest() if batch.count]
        if not found:
            return readings
        means_N, tokens_N = (torch.cat(parts) for parts in zip(*(_of_samples(*one) for one in found), strict=True))
        judged_N = means_N[(tokens_N > 0) & torch.isfinite(means_N)].double()
        if len(judged_N):
            asked = torch.tensor(list(QUANTILES.values()), dtype=torch.float64, device=judged_N.device)
            quantiles = torch.quantile(judged_N, asked)
            readings.metrics |= {
                f"probe/sample_loss/{name}": value for name, value in zip(QUANTILES, quantiles.unbind(), strict=True)
            }
        order = torch.where(tokens_N > 0, means_N.nan_to_num(torch.inf), -torch.inf).argsort(descending=True)
        means, tokens = means_N.tolist(), tokens_N.tolist()
        places = [(batch, losses, row) for batch, losses in found for row in range(len(batch.sample_ids_B))]
        for rank, index in enumerate(order[:HIGHEST].tolist(), start=1):
            if not tokens[index]:
                break
            batch, losses, row = places[index]
            readings.samples.append(_described(batch, losses, row, means[index], int(tokens[index])))
            read = batch.tokens_BT[row][batch.document_ids_BT[row] >= 0].tolist()
            readings.texts[f"highest-loss-{rank}"] = examined.text(read)[:MOST_CHARACTERS]
        return readings


def _counted(batch: Batch, losses: Tensor) -> Tensor:
    """Where a target counts, in the shape of `losses`."""
    targets = batch.targets
    if targets.dtype == torch.int64:
        return targets != IGNORED
    return (batch.sample_ids_B >= 0).view(-1, *[1] * (losses.ndim - 1)).expand_as(losses)


def _of_samples(batch: Batch, losses: Tensor) -> tuple[Tensor, Tensor]:
    """The mean loss [B] of each sample's counted targets, and how many these are."""
    counted = _counted(batch, losses).reshape(len(losses), -1)
    sums_B = torch.where(counted, losses.reshape(len(losses), -1), 0.0).sum(-1, dtype=torch.float64)
    tokens_B = counted.sum(-1)
    return sums_B / tokens_B.clamp_min(1), tokens_B


def _by_position(losses_BT: Tensor, batch: Batch) -> dict[str, Tensor | float]:
    """`probe/position_loss/<part>`: the mean loss in each eighth of the positions, where any target counts."""
    counted_BT = _counted(batch, losses_BT)
    parts = min(PARTS, losses_BT.shape[1])
    sums = torch.where(counted_BT, losses_BT, 0.0).sum(0, dtype=torch.float64).tensor_split(parts)
    counts = counted_BT.sum(0).tensor_split(parts)
    means = [total.sum() / count.sum() for total, count in zip(sums, counts, strict=True)]
    found = [int(count.sum()) for count in counts]
    return {f"probe/position_loss/{part}": mean for part, (mean, n) in enumerate(zip(means, found, strict=True)) if n}


def _described(batch: Batch, losses: Tensor, row: int, mean: float, tokens: int) -> Mapping[str, Any]:
    """JSON values: which sample it is, its loss, and of several targets the positions with the highest."""
    described: dict[str, Any] = {"sample": int(batch.sample_ids_B[row]), "loss": mean, "targets": tokens}
    if tokens > 1 and losses.ndim == 2:
        worst = losses[row].nan_to_num(torch.inf).argsort(descending=True)[: min(_WORST, tokens)].tolist()
        described["worst"] = [[position, float(losses[row, position])] for position in worst]
    return described
