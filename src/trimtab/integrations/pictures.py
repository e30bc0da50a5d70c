"""Pictures as PNG: arrays, PIL images, matplotlib figures and files."""

from __future__ import annotations

import io
import struct
import zlib
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import UsageError
from trimtab.integrations.late import Late, is_tensor, snapshot

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_COLOURS: Final = {1: 0, 3: 2, 4: 6}
"""Channels to the colour type of PNG."""
_CHANNELS: Final = tuple(_COLOURS)


def picture_now(picture: Any) -> bytes | NDArray[Any] | Late:
    """What the caller may change later, as it is now: bytes of a PNG, or values that `png` encodes when there is time.

    Raises: UsageError for what is no picture; OSError for a file that cannot be read.
    """
    if isinstance(picture, np.ndarray) or is_tensor(picture):
        now = snapshot(picture)
        if not isinstance(now, np.ndarray | Late):
            raise UsageError("a picture needs rows and columns. Received: a single number, or one without content")
        _check_shape(tuple(now.shape if isinstance(now, np.ndarray) else now.host.shape))
        return now
    if isinstance(picture, str | PathLike):
        content = Path(picture).read_bytes()
        return content if content.startswith(_SIGNATURE) else _by_pillow(content, Path(picture))
    if hasattr(picture, "savefig") or hasattr(getattr(picture, "figure", None), "savefig"):
        buffer = io.BytesIO()
        (picture if hasattr(picture, "savefig") else picture.figure).savefig(buffer, format="png")
        return buffer.getvalue()
    if hasattr(picture, "getbands") and hasattr(picture, "save"):
        return _saved(picture)
    raise UsageError(
        f"a picture is an array [H, W] or [H, W, C], a PIL image, a matplotlib figure, or a path. "
        f"Received: {type(picture).__name__}"
    )


def png(picture: bytes | NDArray[Any] | Late) -> bytes:
    """The bytes of a PNG file. Raises: UsageError for values of another shape than a picture's."""
    if isinstance(picture, bytes):
        return picture
    values = picture.resolve() if isinstance(picture, Late) else picture
    _check_shape(values.shape)
    if values.ndim == 3 and values.shape[2] not in _CHANNELS and values.shape[0] in _CHANNELS:
        values = np.moveaxis(values, 0, 2)  # torch has channels first
    if values.ndim == 2:
        values = values[:, :, None]
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    elif not np.issubdtype(values.dtype, np.integer):
        values = np.rint(np.clip(np.nan_to_num(values), 0.0, 1.0) * 255)
    pixels = np.clip(values, 0, 255).astype(np.uint8)
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    return (
        _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)) + _chunk(b"IEND", b"")
    )


def _check_shape(shape: tuple[int, ...]) -> None:
    fits = len(shape) == 2 or (len(shape) == 3 and (shape[2] in _CHANNELS or shape[0] in _CHANNELS))
    if not fits or 0 in shape:
        raise UsageError(f"a picture is [H, W], [H, W, 1 | 3 | 4] or [1 | 3 | 4, H, W]. Received: {shape}")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _by_pillow(content: bytes, path: Path) -> bytes:
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError(f"{path}: only PNG files are taken as they are", hint="pip install pillow") from error
    with Image.open(io.BytesIO(content)) as image:
        return _saved(image)


def _saved(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
