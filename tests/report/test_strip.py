"""Layers as a picture that any reader of PNG can decode."""

from __future__ import annotations

import base64
import re
import struct
import zlib

import numpy as np

from trimtab.report.gather import Layer
from trimtab.report.strip import strip


def test_a_picture_has_a_row_for_each_layer_and_marks_what_is_not_finite() -> None:
    values = np.array([[1.0, 100.0], [1.0, np.nan], [2.0, np.inf], [1.0, 90.0]])
    layer = Layer("grad_norm", np.array([10, 20, 30, 40]), ("blocks.0.<b>", "blocks.1"), values)
    drawn = strip(layer, 1, 40)
    assert "&lt;b&gt;" in drawn
    encoded = re.search(r"data:image/png;base64,([^\"]+)", drawn)
    assert encoded
    data = base64.b64decode(encoded[1])
    width, height = struct.unpack(">II", data[16:24])
    assert height == 2
    begin = data.index(b"IDAT") + 4
    (size,) = struct.unpack(">I", data[begin - 8 : begin - 4])
    rows = np.frombuffer(zlib.decompress(data[begin : begin + size]), np.uint8).reshape(height, width + 1)[:, 1:]
    assert set(rows[1]) >= {64, 65}, "one was not measured, one is infinite"
    assert rows[0].max() < rows[1][0]


def test_nothing_to_show() -> None:
    assert strip(Layer("grad_norm", np.array([1, 2]), ("a",), np.full((2, 1), np.nan)), 1, 2) == ""
