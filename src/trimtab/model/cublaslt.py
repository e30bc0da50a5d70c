"""Products of matrices with GELU in the same kernel, by cuBLASLt, which torch brings along.

torch's own products can apply GELU, but do not keep its argument, which backward needs. Elements are bf16 or fp16, sums
fp32. The GELU is the approximation by tanh.
Source: NVIDIA, cuBLAS documentation, cublasLtEpilogue_t (GELU_AUX, DGELU).
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from functools import cache
from typing import Any, Final, final

import torch
from torch import Tensor

_OPERATION_T: Final = 1
_COMPUTE_32F: Final = 68
_FLOAT32: Final = 0
_ELEMENTS: Final = {torch.float16: 2, torch.bfloat16: 14}
_TRANSPOSE_A, _EPILOGUE, _BIAS_POINTER, _AUX_POINTER, _AUX_LEADING = 3, 7, 8, 11, 12
_WORKSPACE_LIMIT: Final = 1
_GELU, _GELU_GRADIENT, _BIAS = 32 + 128, 64 + 128, 4
_WORKSPACE_BYTES: Final = 32 << 20
_CANDIDATES: Final = 8


class _Algorithm(ctypes.Structure):
    _fields_ = [
        ("data", c_uint64 * 8),
        ("workspace", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    ]


@cache
def library() -> Any:
    """cuBLASLt as this torch has loaded it, or None where there is none."""
    if torch.version.cuda is None:
        return None
    try:
        found = ctypes.CDLL(f"libcublasLt.so.{torch.version.cuda.split('.')[0]}")
        found.cublasLtMatmul.restype = c_int
    except (OSError, AttributeError):
        return None
    return found


def _check(status: int, what: str) -> None:
    if status != 0:
        raise RuntimeError(f"cuBLASLt: {what} failed with status {status}")


@cache
def _handle(device: int) -> c_void_p:
    handle = c_void_p()
    with torch.cuda.device(device):
        _check(library().cublasLtCreate(byref(handle)), "cublasLtCreate")
    return handle


@cache
def _workspace(device: int) -> Tensor:
    return torch.empty(_WORKSPACE_BYTES, dtype=torch.uint8, device=f"cuda:{device}")


def _layout(dtype: torch.dtype, rows: int, columns: int) -> c_void_p:
    """A column-major matrix without gaps: what torch calls contiguous, transposed."""
    layout = c_void_p()
    status = library().cublasLtMatrixLayoutCreate(
        byref(layout), c_int(_ELEMENTS[dtype]), c_uint64(rows), c_uint64(columns), c_int64(rows)
    )
    _check(status, "cublasLtMatrixLayoutCreate")
    return layout


@final
class _Product:
    """One shape of product on one device, with its algorithm chosen at the first call.

    Column-major, as cuBLAS sees it: output [m, n] = a [m, k] (transposed: [k, m]) times b [k, n].
    """

    def __init__(self, m: int, n: int, k: int, dtype: torch.dtype, device: int, *, transposes: bool, epilogue: int):
        self._device = device
        self._description = c_void_p()
        created = library().cublasLtMatmulDescCreate(byref(self._description), c_int(_COMPUTE_32F), c_int(_FLOAT32))
        _check(created, "cublasLtMatmulDescCreate")
        if transposes:
            self._set(_TRANSPOSE_A, c_int32(_OPERATION_T))
        self._set(_EPILOGUE, c_int32(epilogue))
        self._set(_AUX_LEADING, c_int64(m))
        self._a = _layout(dtype, k, m) if transposes else _layout(dtype, m, k)
        self._b, self._output = _layout(dtype, k, n), _layout(dtype, m, n)
        self._algorithm: _Algorithm | None = None

    def _set(self, attribute: int, value: Any) -> None:
        size = c_size_t(ctypes.sizeof(value))
        status = library().cublasLtMatmulDescSetAttribute(self._description, c_int(attribute), byref(value), size)
        _check(status, "cublasLtMatmulDescSetAttribute")

    def __call__(self, a: Tensor, b: Tensor, aux: Tensor, output: Tensor, bias: Tensor | None = None) -> None:
        """Write `output`, and write or read `aux`, on the current stream."""
        self._set(_AUX_POINTER, c_void_p(aux.data_ptr()))
        if bias is not None:
            self._set(_BIAS_POINTER, c_void_p(bias.data_ptr()))
        if self._algorithm is None:
            self._algorithm = self._choose(a, b, output)
        self._run(self._algorithm, a, b, output)

    def _run(self, algorithm: _Algorithm, a: Tensor, b: Tensor, output: Tensor) -> None:
        workspace = _workspace(self._device)
        status = library().cublasLtMatmul(
            _handle(self._device),
            self._description,
            byref(c_float(1.0)),
            c_void_p(a.data_ptr()),
            self._a,
            c_void_p(b.data_ptr()),
            self._b,
            byref(c_float(0.0)),
            c_void_p(output.data_ptr()),
            self._output,
            c_void_p(output.data_ptr()),
            self._output,
            byref(algorithm),
            c_void_p(workspace.data_ptr()),
            c_size_t(_WORKSPACE_BYTES),
            c_void_p(torch.cuda.current_stream(self._device).cuda_stream),
        )
        _check(status, "cublasLtMatmul")

    def _choose(self, a: Tensor, b: Tensor, output: Tensor) -> _Algorithm:
        """The quickest of cuBLASLt's candidates; the first where it must be the same in every process."""
        candidates = self._candidates()
        if torch.are_deterministic_algorithms_enabled() or torch.cuda.is_current_stream_capturing():
            return candidates[0]
        return min(candidates, key=lambda candidate: self._milliseconds(candidate, a, b, output))

    def _candidates(self) -> list[_Algorithm]:
        """What cuBLASLt proposes, the most promising first. Raises: RuntimeError where it knows none."""
        preference = c_void_p()
        _check(library().cublasLtMatmulPreferenceCreate(byref(preference)), "cublasLtMatmulPreferenceCreate")
        limit, size = c_uint64(_WORKSPACE_BYTES), c_size_t(8)
        status = library().cublasLtMatmulPreferenceSetAttribute(preference, c_int(_WORKSPACE_LIMIT), byref(limit), size)
        _check(status, "cublasLtMatmulPreferenceSetAttribute")
        found, count = (_Algorithm * _CANDIDATES)(), c_int()
        status = library().cublasLtMatmulAlgoGetHeuristic(
            _handle(self._device),
            self._description,
            self._a,
            self._b,
            self._output,
            self._output,
            preference,
            c_int(_CANDIDATES),
            found,
            byref(count),
        )
        library().cublasLtMatmulPreferenceDestroy(preference)
        _check(status, "cublasLtMatmulAlgoGetHeuristic")
        usable = [algorithm for algorithm in found[: count.value] if algorithm.state == 0]
        if not usable:
            raise RuntimeError("cuBLASLt: no algorithm for this product")
        return usable

    def _milliseconds(self, algorithm: _Algorithm, a: Tensor, b: Tensor, output: Tensor) -> float:
        """Of one product, the quickest of a few."""
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        best = float("inf")
        for _ in range(3):
            begun.record()
            for _ in range(4):
                self._run(algorithm, a, b, output)
            ended.record()
            ended.synchronize()
            best = min(best, begun.elapsed_time(ended) / 4)
        return best


@cache
def _product(
    m: int, n: int, k: int, dtype: torch.dtype, device: int, transposes: bool, epilogue: int, deterministic: bool
) -> _Product:
    # Whether the choice must repeat is part of the key alone.
    return _Product(m, n, k, dtype, device, transposes=transposes, epilogue=epilogue)


def _product_for(m: int, n: int, k: int, like: Tensor, *, transposes: bool, epilogue: int) -> _Product:
    deterministic = torch.are_deterministic_algorithms_enabled()
    return _product(m, n, k, like.dtype, like.device.index, transposes, epilogue, deterministic)


@torch.library.custom_op("trimtab::linear_gelu", mutates_args=(), device_types="cuda")
def linear_gelu(x_ND: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> tuple[Tensor, Tensor]:
    """gelu(x weightᵀ + bias) [N, F], and its argument [N, F]."""
    output_NF = x_ND.new_empty(x_ND.shape[0], weight_FD.shape[0])
    argument_NF = torch.empty_like(output_NF)
    epilogue = _GELU if bias_F is None else _GELU + _BIAS
    (num_features, width), num_tokens = weight_FD.shape, x_ND.shape[0]
    call = _product_for(num_features, num_tokens, width, x_ND, transposes=True, epilogue=epilogue)
    call(weight_FD, x_ND, argument_NF, output_NF, bias_F)
    return output_NF, argument_NF


@linear_gelu.register_fake
def _(x_ND: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> tuple[Tensor, Tensor]:
    output_NF = x_ND.new_empty(x_ND.shape[0], weight_FD.shape[0])
    return output_NF, torch.empty_like(output_NF)


@torch.library.custom_op("trimtab::linear_gelu_gradient", mutates_args=(), device_types="cuda")
def linear_gelu_gradient(upstream_ND: Tensor, weight_DF: Tensor, argument_NF: Tensor) -> Tensor:
    """(upstream weight) gelu'(argument), [N, F]."""
    gradient_NF = torch.empty_like(argument_NF)
    (width, num_features), num_tokens = weight_DF.shape, upstream_ND.shape[0]
    call = _product_for(num_features, num_tokens, width, upstream_ND, transposes=False, epilogue=_GELU_GRADIENT)
    call(weight_DF, upstream_ND, argument_NF, gradient_NF)
    return gradient_NF


@linear_gelu_gradient.register_fake
def _(upstream_ND: Tensor, weight_DF: Tensor, argument_NF: Tensor) -> Tensor:
    return torch.empty_like(argument_NF)
