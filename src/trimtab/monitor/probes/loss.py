"""The loss, sample by sample and position by position.

Shape suffixes: B samples · T positions · N samples of several batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, final

import numpy as np
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
        both_2N = torch.cat([torch.stack(_of_samples(*one)) for one in found], 1)
        means_N, tokens_N = both_2N.cpu().numpy()
        judged_N = means_N[(tokens_N > 0) & np.isfinite(means_N)]
        if len(judged_N):
            quantiles = np.quantile(judged_N, list(QUANTILES.values())).tolist()
            readings.metrics |= {
                f"probe/sample_loss/{name}": value for name, value in zip(QUANTILES, quantiles, strict=True)
            }
        ranked_N = np.where(tokens_N > 0, np.nan_to_num(means_N, nan=np.inf, posinf=np.inf), -np.inf)
        places = [(batch, losses, row) for batch, losses in found for row in range(len(batch.sample_ids_B))]
        for rank, index in enumerate(np.argsort(-ranked_N, kind="stable")[:HIGHEST].tolist(), start=1):
            if not tokens_N[index]:
                break
            batch, losses, row = places[index]
            readings.samples.append(_described(batch, losses, row, float(means_N[index]), int(tokens_N[index])))
            tokens_T, documents_T = torch.stack((batch.tokens_BT[row].long(), batch.document_ids_BT[row].long())).cpu()
            read = tokens_T[documents_T >= 0].tolist()
            readings.texts[f"highest-loss-{rank}"] = examined.text(read)[:MOST_CHARACTERS]
        return readings


def _counted(batch: Batch, losses: Tensor) -> Tensor:
    """Where a target counts, in the shape of `losses`."""
    targets = batch.targets
    if targets.dtype == torch.int64:
        return targets != IGNORED
    return (batch.sample_ids_B >= 0).view(-1, *[1] * (losses.ndim - 1)).expand_as(losses)


def _of_samples(batch: Batch, losses: Tensor) -> tuple[Tensor, Tensor]:
    """The mean loss [B] of each sample's counted targets, and how many these are: fp64."""
    counted = _counted(batch, losses).reshape(len(losses), -1)
    sums_B = torch.where(counted, losses.reshape(len(losses), -1), 0.0).sum(-1, dtype=torch.float64)
    tokens_B = counted.sum(-1, dtype=torch.float64)
    return sums_B / tokens_B.clamp_min(1), tokens_B


def _by_position(losses_BT: Tensor, batch: Batch) -> dict[str, Tensor | float]:
    """`probe/position_loss/<part>`: the mean loss in each eighth of the positions, where any target counts."""
    counted_BT = _counted(batch, losses_BT)
    parts = min(PARTS, losses_BT.shape[1])
    sums_T = torch.where(counted_BT, losses_BT, 0.0).sum(0, dtype=torch.float64)
    both_2T = torch.stack((sums_T, counted_BT.sum(0, dtype=torch.float64))).cpu()
    found = [(total, n) for total, n in (part.sum(1).tolist() for part in both_2T.tensor_split(parts, dim=1))]
    return {f"probe/position_loss/{part}": total / n for part, (total, n) in enumerate(found) if n}


def _described(batch: Batch, losses: Tensor, row: int, mean: float, tokens: int) -> Mapping[str, Any]:
    """JSON values: which sample it is, its loss, and of several targets the positions with the highest."""
    described: dict[str, Any] = {"sample": int(batch.sample_ids_B[row]), "loss": mean, "targets": tokens}
    if tokens > 1 and losses.ndim == 2:
        losses_T = losses[row].cpu()
        worst = losses_T.nan_to_num(torch.inf).argsort(descending=True)[: min(_WORST, tokens)].tolist()
        described["worst"] = [[position, float(losses_T[position])] for position in worst]
    return described
