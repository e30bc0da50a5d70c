"""Text from outside, made harmless for a terminal, a log and a table."""

from __future__ import annotations

import re
import unicodedata

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|[ -/]*[0-~])?"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
_BREAKS = re.compile("\r\n|[\n\r\v\f\x85\u2028\u2029]")
# Joiners shape Persian, Indic and emoji text; every other format character can hide or reorder what is shown.
_JOINERS = "\u200c\u200d"


def printable(text: str, *, lines: bool = False, limit: int | None = None) -> str:
    """`text` without terminal sequences, control characters and marks that reorder or hide text.

    Line breaks become spaces, or "\\n" when `lines`; what is longer than `limit` characters ends in "…".
    """
    text = _BREAKS.sub("\n" if lines else " ", _ESCAPES.sub("", text)).replace("\t", " ")
    kept = "".join(
        "\ufffd" if unicodedata.category(character) == "Cs" else character
        for character in text
        if character in _JOINERS or character == "\n" or unicodedata.category(character) not in ("Cc", "Cf")
    )
    return kept if limit is None or len(kept) <= limit else kept[: max(limit - 1, 0)] + "…"


def shortened(text: str, room: int) -> str:
    """`text` in at most `room` characters, once and at a word: what is left out ends it as "…"."""
    if len(text) <= room:
        return text
    kept = text[: max(room - 1, 0)]
    if not text[len(kept)].isspace() and " " in kept.strip():
        kept = kept.rpartition(" ")[0]
    return kept.rstrip(" ,;:(") + "…" if room > 0 else ""
