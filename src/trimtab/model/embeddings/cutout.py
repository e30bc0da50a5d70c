"""Parts of a text's embeddings set to 0.

Shape suffixes: B texts · T positions · D hidden size.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor


@final
class Cutout:
    """Sets `rate` of each text's embeddings to 0: of a `span` its real positions that stand together, rounded to whole
    ones; of a `token` each position with that probability; of a `feature` each column, through the whole text.

    Source: Shen et al. 2020, arXiv 2009.13818, section 3.1 ("cutoff"); here positions are added afterwards.
    """

    def __init__(self, rate: float, kind: Literal["span", "token", "feature"]) -> None:
        self.rate, self.kind = rate, kind

    def __call__(self, embeddings_BTD: Tensor, real_BT: Tensor, generator: torch.Generator) -> Tensor:
        """The embeddings with parts cut out."""
        rows, positions, width = embeddings_BTD.shape
        shape = {"span": (rows, 1), "token": (rows, positions), "feature": (rows, width)}[self.kind]
        drawn = torch.rand(shape, generator=generator, device=embeddings_BTD.device)
        if self.kind == "feature":
            cut_BTD = (drawn < self.rate)[:, None, :]
        elif self.kind == "token":
            cut_BTD = (drawn < self.rate)[:, :, None]
        else:
            place_BT = real_BT.cumsum(1) - 1  # among the real positions
            length_B1 = real_BT.sum(1, keepdim=True)
            span_B1 = (self.rate * length_B1).round()
            first_B1 = (drawn * (length_B1 - span_B1 + 1)).floor()
            cut_BTD = ((place_BT >= first_B1) & (place_BT < first_B1 + span_B1) & real_BT)[:, :, None]
        return torch.where(cut_BTD, 0.0, embeddings_BTD)
