"""The documents of both sides, in order: what is trained on, and what is held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from trimtab.data.corpora import Corpus
from trimtab.data.left_out import LeftOut
from trimtab.data.split import Split


class Piece(NamedTuple):
    """A document, or the part of it on one side."""

    side: str
    name: str
    text: str
    source: str = ""


@final
@dataclass(slots=True)
class Pieces:
    """Can be gone through as often as needed; nothing is kept in memory."""

    corpus: Corpus
    held_out: Corpus | None
    split: Split
    most_bad: int
    dropped: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    """Which training documents are left out, by their number; none where it is empty."""

    def read(self, skipped: LeftOut | None = None, skipped_held_out: LeftOut | None = None) -> Iterator[Piece]:
        """All of them; those of the source are counted in `skipped` where they are left out."""
        skipped = LeftOut(self.most_bad) if skipped is None else skipped
        number = 0
        for document in self.corpus.documents(skipped):
            training, validation = document.text, ""
            if self.held_out is None:
                training, validation = self.split.divide(document)
            if training:
                if len(self.dropped) and self.dropped[number]:
                    skipped["duplicate"] += 1
                else:
                    yield Piece("training", document.name, training, document.source)
                number += 1
            if validation:
                yield Piece("validation", document.name, validation, document.source)
        if self.held_out is not None:
            left_out = LeftOut(self.most_bad) if skipped_held_out is None else skipped_held_out
            for document in self.held_out.documents(left_out):
                yield Piece("validation", document.name, document.text)

    def training_texts(self) -> Iterator[str]:
        """The texts that are trained on."""
        return (piece.text for piece in self.read() if piece.side == "training")
