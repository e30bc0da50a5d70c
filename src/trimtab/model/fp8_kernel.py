"""A weight in fp8, row by row and transposed, and its largest absolute value: one Triton kernel that reads it once."""

from __future__ import annotations

from typing import Any, Final

import triton
import triton.language as tl
from torch import Tensor

_BLOCK: Final = 64

Kernel = Any


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _cast(  # type: ignore[no-untyped-def]
    weight, scale, narrow, transposed, largest, rows, columns, most, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    w = tl.load(weight + row[:, None] * columns + column[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.atomic_max(largest, tl.max(tl.abs(w)))
    w = w * tl.load(scale)
    # Minimum and maximum may take the number for a NaN, which is to stay one.
    w = tl.where(w == w, tl.minimum(tl.maximum(w, -most), most), w).to(narrow.dtype.element_ty)
    tl.store(narrow + row[:, None] * columns + column[None, :], w, mask=inside)
    tl.store(transposed + column[:, None] * rows + row[None, :], tl.trans(w), mask=tl.trans(inside))


def cast(weight_FD: Tensor, scale: Tensor, narrow_FD: Tensor, narrow_DF: Tensor, largest: Tensor) -> None:
    """Write `narrow_FD`, `narrow_DF` and into `largest`, which holds 0, the maximum; `scale` is read on the device."""
    kernel: Kernel = _cast
    rows, columns = weight_FD.shape
    kernel[(triton.cdiv(rows, _BLOCK), triton.cdiv(columns, _BLOCK))](
        weight_FD, scale, narrow_FD, narrow_DF, largest, rows, columns, 448.0, BLOCK=_BLOCK, num_warps=4
    )  # fmt: skip
