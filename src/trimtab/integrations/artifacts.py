"""Texts, pictures and histograms that a logger was handed, as what goes into the record and into files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Literal, final

import numpy as np

from trimtab.config.secrets import hide
from trimtab.integrations.late import resolved
from trimtab.integrations.pictures import png

LONGEST_TEXT: Final = 4_000
"""Longer texts become files."""
LINE_BYTES: Final = 180
"""What a line of the record has besides its content."""


@final
@dataclass(slots=True)
class Artifact:
    """A text, picture or histogram on its way."""

    step: int
    kind: Literal["text", "picture", "histogram"]
    name: str
    content: Any
    num_bytes: int


def encoded(artifact: Artifact) -> tuple[str, bytes]:
    """What goes into the record, and what into a file. Raises: whatever reading its content raises."""
    match artifact.kind:
        case "picture":
            return "", png(artifact.content)
        case "histogram":
            return _histogram(resolved(artifact.content)), b""
        case "text":
            text = hide(str(artifact.content))  # also what becomes a file, and before it is cut
            long = len(text) > LONGEST_TEXT
            return text[:LONGEST_TEXT], text.encode("utf-8", "replace") if long else b""


def line_bytes(name: str, text: str, *, has_file: bool) -> int:
    """Bytes of an artifact's line in the record, with what JSON escapes in it; its file is named after it."""
    return LINE_BYTES + len(json.dumps((name, text))) + (len(name) + 40 if has_file else 0)


def _histogram(values: Any, num_bins: int = 64) -> str:
    """Edges and counts as JSON; values that are not finite are counted apart."""
    if values is None:
        raise ValueError("a tensor without content")
    flat = np.asarray(values, np.float64).reshape(-1)
    finite = flat[np.isfinite(flat)]
    counts, edges = np.histogram(finite, bins=num_bins)
    content = {
        "edges": [float(f"{edge:.7g}") for edge in edges],
        "counts": counts.tolist(),
        "non_finite": len(flat) - len(finite),
    }
    return json.dumps(content, separators=(",", ":"))
