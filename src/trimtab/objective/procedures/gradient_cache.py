"""The gradient of a loss over all texts of a step, in the memory of one micro-batch.

Shape suffixes: B texts · T positions · S positions of a second text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.signals import Batch, ModelOutput


def cached_gradients(
    count: int,
    forward: Callable[[int], ModelOutput],
    judge: Callable[[ModelOutput], Tensor],
    backward: Callable[[Tensor, Tensor | None], None],
) -> None:
    """Leave the gradient that `judge` has over the features of all `count` micro-batches together.

    `forward(i)` gives the output of micro-batch i and must draw the same random numbers each time; features of whole
    texts, [B, D], which stand one behind the other in what `judge` is given, as a loss that `backward` is called with.
    `backward(tensor, gradient)` adds to the gradients of parameters; without a gradient that of a scalar.

    First the features are computed without a graph; then the loss, and its gradient by the features and by all that
    stands behind them, head and temperature; then each micro-batch again, and its gradient from that of its features.
    Two passes forward and one back: about 4/3 of the time. Exact, however the micro-batches are cut.
    Source: Gao et al. 2021, arXiv 2101.06983, section 3.2.
    """
    with torch.no_grad():
        outputs = [forward(index) for index in range(count)]
    parts = [output.features.detach().requires_grad_() for output in outputs]
    backward(judge(replace(outputs[0], features=torch.cat(parts), signals={})), None)
    del outputs
    for index, part in enumerate(parts):
        features = forward(index).features
        backward(features, part.grad)


def joined(batches: Sequence[Batch]) -> Batch:
    """One batch of all rows of whole texts, in their order; each filled up to the longest."""
    longest = max(batch.tokens_BT.shape[1] for batch in batches)
    seconds = [batch.second_BS for batch in batches if batch.second_BS is not None]
    longest_second = max((second.shape[1] for second in seconds), default=0)
    return Batch(
        torch.cat([_filled(batch.tokens_BT, longest, 0) for batch in batches]),
        torch.cat([batch.targets for batch in batches]),
        torch.cat([_filled(batch.document_ids_BT, longest, -1) for batch in batches]),
        torch.cat([_filled(batch.positions_BT, longest, 0) for batch in batches]),
        torch.cat([batch.sample_ids_B for batch in batches]),
        sum(batch.count for batch in batches),
        torch.cat([_filled(second, longest_second, -1) for second in seconds]) if seconds else None,
    )


def _filled(values: Tensor, width: int, filler: int) -> Tensor:
    return F.pad(values, (0, width - values.shape[1]), value=filler)
