"""Objects for another process on the same machine: arrays that are mapped from a file are opened there, not copied."""

from __future__ import annotations

import io
import pickle
from typing import Any, final

import numpy as np
from numpy.typing import NDArray


def packed_for_process(value: Any) -> bytes:
    """`value` for `pickle.loads` in another process; a mapped array is named by its file, and the place in it."""
    stream = io.BytesIO()
    _Pickler(stream, protocol=5).dump(value)
    return stream.getvalue()


@final
class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """How an array is told; everything else as always."""
        if type(value) not in (np.ndarray, np.memmap) or not value.flags.c_contiguous or not value.size:
            return NotImplemented
        base = value
        while base is not None and not (isinstance(base, np.memmap) and base.filename is not None):
            base = getattr(base, "base", None)
        while base is not None and isinstance(base.base, np.memmap):
            base = base.base  # the one that was opened
        if base is None:
            return NotImplemented
        place = value.__array_interface__["data"][0] - base.__array_interface__["data"][0] + base.offset
        return _mapped, (str(base.filename), value.dtype.str, value.shape, place)


def _mapped(path: str, dtype: str, shape: tuple[int, ...], offset: int) -> NDArray[Any]:
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape))
