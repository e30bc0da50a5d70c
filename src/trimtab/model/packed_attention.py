"""Causal attention whose gradient is written as the projection to queries, keys and values reads it: in one tensor.

torch's kernels give the gradients of the three apart, and putting them together is a pass over memory a layer (2 % of a
step of GPT-2 on an H100). cuDNN can write them in place; its own Python package says so to it.
Source: NVIDIA, cuDNN frontend documentation, "Attention" (strides of dQ, dK and dV are the caller's).

Shape suffixes: B sequences · T positions · H heads · N = 3 H: queries, keys, values · K size of a head.
"""

from __future__ import annotations

import atexit
import threading
from functools import cache
from typing import Any, Final, final

import torch
from torch import Tensor

_KINDS: Final = (torch.bfloat16, torch.float16)
_LARGEST_HEAD: Final = 128


@cache
def frontend() -> Any:
    """cuDNN's Python package, or None where it, or the cuDNN that it needs, is missing."""
    try:
        import cudnn
    except (ImportError, OSError, RuntimeError):
        return None
    return cudnn


def takes(packed_BTNK: Tensor) -> bool:
    """Whether `packed_attention` computes this: 16 bits on CUDA, heads of at most 128, in steps of 8."""
    size = packed_BTNK.shape[-1]
    return packed_BTNK.is_cuda and packed_BTNK.dtype in _KINDS and size % 8 == 0 and size <= _LARGEST_HEAD


@torch.library.custom_op("trimtab::packed_attention", mutates_args=(), device_types="cuda")
def packed_attention(packed_BTNK: Tensor) -> tuple[Tensor, Tensor]:
    """What each position reads of itself and those before it, [B, T, H, K]; fp32 log-sum-exp of scores, [B, H, T, 1].

    The scores are scaled with 1 / √K. Backward goes through `packed_attention_gradient`.
    """
    q_BHTK, k_BHTK, v_BHTK = _apart(packed_BTNK)
    output_BHTK, log_normalizer_BHT1, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
        q_BHTK, k_BHTK, v_BHTK, None, True, 0.0, True, False
    )
    return output_BHTK.transpose(1, 2).contiguous(), log_normalizer_BHT1.contiguous()


@packed_attention.register_fake
def _(packed_BTNK: Tensor) -> tuple[Tensor, Tensor]:
    num_sequences, length, three_heads, size = packed_BTNK.shape
    output_BTHK = packed_BTNK.new_empty(num_sequences, length, three_heads // 3, size)
    normalizer = packed_BTNK.new_empty(num_sequences, three_heads // 3, length, 1, dtype=torch.float32)
    return output_BTHK, normalizer


@torch.library.custom_op("trimtab::packed_attention_gradient", mutates_args=(), device_types="cuda")
def packed_attention_gradient(
    upstream_BTHK: Tensor, packed_BTNK: Tensor, output_BTHK: Tensor, log_normalizer_BHT1: Tensor
) -> Tensor:
    """The gradient of `packed_BTNK`, in its layout."""
    gradient_BTNK = torch.empty_like(packed_BTNK)
    num_sequences, length, three_heads, size = packed_BTNK.shape
    shape = (num_sequences, length, three_heads // 3, size)
    backward = _backward(shape, packed_BTNK.dtype, packed_BTNK.device.index, threading.get_ident())
    backward(upstream_BTHK.contiguous(), packed_BTNK, output_BTHK, log_normalizer_BHT1, gradient_BTNK)
    return gradient_BTNK


@packed_attention_gradient.register_fake
def _(upstream_BTHK: Tensor, packed_BTNK: Tensor, output_BTHK: Tensor, log_normalizer_BHT1: Tensor) -> Tensor:
    return torch.empty_like(packed_BTNK)


def _keep(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, upstream_BTHK: Tensor | None, _: Tensor | None) -> Tensor | None:
    return None if upstream_BTHK is None else packed_attention_gradient(upstream_BTHK, *ctx.saved_tensors)


packed_attention.register_autograd(_differentiate, setup_context=_keep)


def _apart(packed_BTNK: Tensor) -> list[Tensor]:
    """Queries, keys and values, each a view [B, H, T, K]."""
    return [part.transpose(1, 2) for part in torch.chunk(packed_BTNK, 3, dim=2)]


@cache
def _backward(shape: tuple[int, int, int, int], dtype: torch.dtype, device: int, thread: int) -> _Backward:
    # A handle of cuDNN belongs to one thread.
    return _Backward(shape, dtype, device)


@final
class _Backward:
    """cuDNN's backward pass for one shape [B, T, H, K] on one device."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: int) -> None:
        cudnn = frontend()
        num_sequences, length, num_heads, size = shape
        place = torch.device("cuda", device)
        packed = torch.empty(num_sequences, length, 3 * num_heads, size, dtype=dtype, device=place)
        apart = torch.empty(shape, dtype=dtype, device=place).transpose(1, 2)
        normalizer = torch.empty(num_sequences, num_heads, length, 1, device=place)
        with torch.cuda.device(device):
            self._handle = cudnn.create_handle()
            self._graph = graph = cudnn.pygraph(
                io_data_type=cudnn.data_type.BFLOAT16 if dtype == torch.bfloat16 else cudnn.data_type.HALF,
                intermediate_data_type=cudnn.data_type.FLOAT,
                compute_data_type=cudnn.data_type.FLOAT,
                handle=self._handle,
            )

            def like(name: str, tensor: Tensor, kind: Any = None) -> Any:
                described = {"name": name, "dim": list(tensor.shape), "stride": list(tensor.stride())}
                return graph.tensor(**described, **({} if kind is None else {"data_type": kind}))

            inputs = [like(name, part) for name, part in zip("qkv", _apart(packed), strict=True)]
            inputs += [like("output", apart), like("upstream", apart)]
            inputs.append(like("log_normalizer", normalizer, cudnn.data_type.FLOAT))
            q, k, v, output, upstream, stats = inputs
            gradients = graph.sdpa_backward(
                q=q, k=k, v=v, o=output, dO=upstream, stats=stats, attn_scale=size**-0.5, use_causal_mask=True
            )
            for gradient, part in zip(gradients, _apart(packed), strict=True):
                gradient.set_output(True).set_dim(list(part.shape)).set_stride(list(part.stride()))
            self._tensors = [*inputs, *gradients]
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([cudnn.heur_mode.A])
            graph.check_support()
            graph.build_plans()
        self._workspace_bytes = max(1, graph.get_workspace_size())

    def __call__(
        self,
        upstream_BTHK: Tensor,
        packed_BTNK: Tensor,
        output_BTHK: Tensor,
        log_normalizer_BHT1: Tensor,
        gradient_BTNK: Tensor,
    ) -> None:
        """Write `gradient_BTNK`, on the current stream."""
        given = [*_apart(packed_BTNK), output_BTHK.transpose(1, 2), upstream_BTHK.transpose(1, 2)]
        given += [log_normalizer_BHT1, *_apart(gradient_BTNK)]
        workspace = torch.empty(self._workspace_bytes, dtype=torch.uint8, device=packed_BTNK.device)
        stream = torch.cuda.current_stream(packed_BTNK.device).cuda_stream
        frontend().set_stream(handle=self._handle, stream=stream)
        self._graph.execute(dict(zip(self._tensors, given, strict=True)), workspace, handle=self._handle)


# What cuDNN's package still holds when Python ends, it would complain of.
atexit.register(_backward.cache_clear)
