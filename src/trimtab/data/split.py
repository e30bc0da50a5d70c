"""Which text is held out for validation: a pure function of the documents and the fraction."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from trimtab.data.corpora import Document

FEWEST_DOCUMENTS: Final = 20
"""With fewer, whole documents are too coarse a measure, and the end of each is held out."""


@dataclass(frozen=True, slots=True)
class Split:
    """How documents are divided into a part to train on and a part held out."""

    fraction: float
    num_documents: int
    num_bytes: int
    highest_held_out: int | None
    """Documents whose hash is not above it are held out; None: the end of each is."""

    @property
    def description(self) -> str:
        """In words."""
        if self.highest_held_out is not None:
            return f"{self.fraction:.1%} of the documents, chosen by hash"
        if self.num_documents == 1:
            return f"the last {self.fraction:.1%} of the only document"
        return f"the last {self.fraction:.1%} of each of the {self.num_documents} documents"

    def divide(self, document: Document) -> tuple[str, str]:
        """The part of its text to train on, and the part held out; '' for none."""
        text = document.text
        if self.highest_held_out is not None:
            return ("", text) if identity_hash(document.identity) <= self.highest_held_out else (text, "")
        cut = _tail(text, self.fraction)
        return text[:cut], text[cut:]


def choose_split(documents: Iterable[Document], fraction: float) -> Split:
    """The split that holds out `fraction` of `documents`; goes through all of them once.

    The documents with the smallest hash are held out, whole, and equal ones together: files by their name, so
    that they stay on their side when edited; rows by their text, because their numbers change.
    """
    hashes = array("Q")
    num_bytes = 0
    for document in documents:
        hashes.append(identity_hash(document.identity))
        num_bytes += len(document.text.encode())
    if len(hashes) < FEWEST_DOCUMENTS:
        return Split(fraction, len(hashes), num_bytes, None)
    ascending = np.sort(np.frombuffer(hashes, dtype=np.uint64))
    return Split(fraction, len(hashes), num_bytes, int(ascending[max(1, round(fraction * len(hashes))) - 1]))


def identity_hash(identity: str) -> int:
    """64 bits of SHA-256."""
    return int.from_bytes(hashlib.sha256(identity.encode("utf-8", "surrogateescape")).digest()[:8], "big")


def _tail(text: str, fraction: float) -> int:
    """Where the last `fraction` of `text` begins: at the start of a line, if there is one close by."""
    cut = round(len(text) * (1.0 - fraction))
    line = text.rfind("\n", 0, cut) + 1
    return line if line and cut - line <= len(text) * fraction / 2 else cut
