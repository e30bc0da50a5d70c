"""Two texts in one, and the losses of both targets.

Shape suffixes: B texts · T positions · D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from trimtab.signals import Batch


@final
@dataclass(frozen=True, slots=True)
class Mixed:
    """Which texts of a micro-batch are mixed, and how."""

    share: float
    """Of a text itself; the rest is its partner's."""
    partners_B: Tensor

    def inputs(self, batch: Batch) -> Batch:
        """The batch whose texts are as long as the longer of the two; its targets are as they were."""
        return replace(
            batch,
            # A row is one text, whatever its number.
            document_ids_BT=torch.where(
                torch.maximum(batch.document_ids_BT, batch.document_ids_BT[self.partners_B]) >= 0, 0, -1
            ).to(batch.document_ids_BT.dtype),
            positions_BT=torch.maximum(batch.positions_BT, batch.positions_BT[self.partners_B]),
        )

    def others(self, batch: Batch) -> Batch:
        """The batch of the partners, whose targets count, too, and which a teacher may read."""
        return batch.each(lambda tensor: tensor[self.partners_B])

    def __call__(self, embeddings_BTD: Tensor, real_BT: Tensor) -> Tensor:
        """share · x + (1 - share) · the partner's, where padding is 0. `real_BT` is that of the texts themselves."""
        real_BTD = torch.where(real_BT[:, :, None], embeddings_BTD, 0.0)
        return self.share * real_BTD + (1.0 - self.share) * real_BTD[self.partners_B]


@final
class Mixup:
    """Draws shares from Beta(alpha, alpha), one for a micro-batch, and partners.

    Source: Guo et al. 2019, arXiv 1905.08941, section 3.2 (wordMixup), here on the embeddings of all positions;
    the loss of both targets: Zhang et al. 2018, arXiv 1710.09412.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def draw(self, seed: int, rows: int, device: torch.device) -> Mixed:
        """A pure function of `seed`; drawn on the host."""
        generator = np.random.default_rng(seed)
        share = float(generator.beta(self.alpha, self.alpha))
        partners_B = torch.from_numpy(generator.permutation(rows))
        return Mixed(share, partners_B.to(device, non_blocking=True))
