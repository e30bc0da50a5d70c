"""What a step is a mean over, and what its model reads: a classifier reads a whole text for one answer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from trimtab.signals import Batch


def counts_of(batches: Sequence[Batch], *, tells_read: bool) -> dict[str, float]:
    """`tokens`, the counted targets of micro-batches on the host; with `tells_read` also `tokens_read`, of both texts
    where there are two, without padding."""
    counts = {"tokens": float(sum(batch.count for batch in batches))}
    if tells_read:
        counts["tokens_read"] = float(sum(map(_read, batches)))
    return counts


def _read(batch: Batch) -> int:
    first, second = int((batch.document_ids_BT >= 0).sum()), batch.second_BS
    if second is None:
        return first
    # What a decoder reads is as long as what it is asked; the partner of a text is padded with -1.
    return first + (batch.count if _are_asked(batch.targets, second) else int((second >= 0).sum()))


def _are_asked(targets: Tensor, second_BS: Tensor) -> bool:
    return targets.shape == second_BS.shape
