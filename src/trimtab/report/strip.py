"""Every layer over time as colours: a small picture in the page, each row a layer, each column some steps."""

from __future__ import annotations

import base64
import math
import re
import struct
import zlib
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.report.axes import step_labels
from trimtab.report.gather import Layer
from trimtab.report.markup import Markup, element
from trimtab.report.words import metric_name
from trimtab.runs import format

COLUMNS: Final = 240
ROWS: Final = 160
_LEVELS: Final = 64
_NOT_MEASURED, _NOT_FINITE = _LEVELS, _LEVELS + 1
_COLOURS: Final = ((0, 34, 78), (53, 69, 108), (102, 105, 112), (148, 142, 119), (200, 184, 102), (254, 232, 56))
"""Cividis at equal distances: the same to every eye, in light and in dark (Nunez et al. 2018, PLOS ONE 13(7))."""


class Strip(NamedTuple):
    """One metric of all layers, in parts."""

    title: str
    legend: Markup
    told: str
    """Which values are dark and which bright, in words."""
    note: str
    names: Markup
    field: Markup
    height: int


def strip(layer: Layer, first: int, last: int) -> Markup:
    """A figure of one metric of all layers, between two steps."""
    parts = strip_parts(layer, first, last)
    if parts is None:
        return Markup()
    caption = element(
        "figcaption",
        element("span", parts.title, class_="panel-title"),
        parts.legend,
        element("span", parts.note, class_="note"),
    )
    return element(
        "figure", caption, element("div", parts.names, parts.field, class_="plot wide-scale"), class_="panel strip"
    )


def strip_parts(layer: Layer, first: int, last: int) -> Strip | None:
    """The parts of such a figure; None when nothing was measured between the steps."""
    inside = (layer.steps >= first) & (layer.steps <= last)
    steps, values_WL = layer.steps[inside], layer.values_WL[inside]
    names = layer.names
    finite = values_WL[np.isfinite(values_WL)]
    if not len(finite) or last <= first:
        return None
    stride = math.ceil(len(names) / ROWS)
    names, values_WL = names[::stride], values_WL[:, ::stride]
    low, high = (float(bound) for bound in np.quantile(finite, [0.01, 0.99]))
    is_log = low > 0 and high / low > 12
    levels_CL = _levels(steps, values_WL, first, last, low, high, is_log)
    row = max(3, min(15, 420 // len(names)))
    height = row * len(names)
    image = element(
        "image",
        href=Markup("data:image/png;base64," + base64.b64encode(_png(levels_CL.T)).decode()),
        width="100%",
        height=height,
        preserveAspectRatio="none",
        class_="pixels",
    )
    every = max(1, math.ceil(11 / row))
    labels = [
        element("text", _shortened(name), x="100%", dx=-8, y=row * (index + 0.5) + 3.5)
        for index, name in enumerate(names)
        if index % every == 0
    ]
    labels.append(element("text", "step", x="100%", dx=-8, y=height + 16))
    ticks = step_labels(first, last, height)
    title = {"grad_norm": "gradient norm", "activation_rms": "activation scale"}.get(
        layer.metric, metric_name(layer.metric)
    )
    told = f"{title} of {len(names)} layers, {format.decimal(low)} to {format.decimal(high)}"
    scale = element("svg", labels, class_="layer-names", width="100%", height=height + 22, aria_hidden="true")
    field = element("svg", image, ticks, class_="field", width="100%", height=height + 22, role="img", aria_label=told)
    note = f"every {stride}th layer" if stride > 1 else ""
    shades = f"{format.decimal(low)} (dark) to {format.decimal(high)} (bright){', logarithmic' if is_log else ''}"
    return Strip(f"{title} of every layer", _legend(low, high, is_log), shades, note, scale, field, height + 22)


def _levels(
    steps: NDArray[np.int64],
    values_WL: NDArray[np.float64],
    first: int,
    last: int,
    low: float,
    high: float,
    is_log: bool,
) -> NDArray[np.uint8]:
    """The colour of each column and layer: that of the newest window at the column's last step."""
    num = min(COLUMNS, max(len(steps), 1))
    ends = first + (last - first) * (np.arange(num) + 1) / num
    newest = np.searchsorted(steps, ends, side="right") - 1
    rows = np.where(newest < 0, 0, newest)
    chosen_CL = values_WL[rows]
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = (
            np.log(np.maximum(chosen_CL, low / 1e6) / low) / math.log(high / low)
            if is_log
            else (chosen_CL - low) / ((high - low) or 1.0)
        )
    levels_CL = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0), 0, 1) * (_LEVELS - 1)
    coded = np.rint(levels_CL).astype(np.uint8)
    coded[np.isnan(chosen_CL)] = _NOT_MEASURED
    coded[np.isinf(chosen_CL)] = _NOT_FINITE
    return coded


def _palette() -> NDArray[np.uint8]:
    at = np.linspace(0, len(_COLOURS) - 1, _LEVELS)
    table = np.array(_COLOURS, np.float64)
    colours = np.stack([np.interp(at, np.arange(len(table)), table[:, channel]) for channel in range(3)], axis=1)
    return np.concatenate([np.rint(colours), [[128, 128, 128], [213, 60, 60]]]).astype(np.uint8)


def _png(levels_HW: NDArray[np.uint8]) -> bytes:
    """A picture of palette indices, not compressed: the same bytes with every version of zlib."""
    height, width = levels_HW.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), levels_HW], axis=1).tobytes()
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", _palette().tobytes()),
        (b"IDAT", _stored(rows)),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _stored(data: bytes) -> bytes:
    """A zlib stream of stored blocks (RFC 1950, RFC 1951 3.2.4)."""
    blocks = [data[begin : begin + 65_535] for begin in range(0, len(data), 65_535)]
    stored = b"".join(
        struct.pack("<BHH", index == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for index, block in enumerate(blocks)
    )
    return b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(data))


def _legend(low: float, high: float, is_log: bool) -> Markup:
    num = 24
    at = np.rint(np.linspace(0, _LEVELS - 1, num)).astype(int)
    colours = _palette()[at]
    cells = [
        element("rect", x=index * 4, width=4.5, height=10, fill="#" + bytes(colour).hex())
        for index, colour in enumerate(colours)
    ]
    ramp = element("svg", cells, width=num * 4, height=10, class_="ramp", aria_hidden="true")
    return element(
        "span",
        format.decimal(low),
        " ",
        ramp,
        " ",
        format.decimal(high),
        " (logarithmic)" if is_log else "",
        class_="key",
    )


def _shortened(name: str) -> str:
    name = name.removesuffix(".weight")
    if re.fullmatch(r"blocks\.\d+", name):
        return name.replace("blocks.", "block ")
    name = name.replace("blocks.", "").replace("attention", "attn").replace("feed_forward", "ffn")
    return name if len(name) <= 22 else "…" + name[-21:]
