"""Which of CUDA's kernels attention goes through: chosen once per run, by measuring where there is a choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from trimtab.config import Config, TrainingConfig
from trimtab.model import Attention, Decoder, Transformer, hidden_by, packs_attention, refuses_flex, set_flex
from trimtab.model.masks import attend_to_blocks, seen, seen_blocks
from trimtab.planning import one_shape
from trimtab.signals import Batch

_ROUNDS: Final = 3
_FLEX_PAYS_AFTER_SECONDS: Final = 60.0
"""Of masked attention in a run: to compile FlexAttention, forward and backward, takes 10 s and more."""


def choose_attention(
    config: Config,
    model: nn.Module,
    dtype: torch.dtype,
    example: Batch,
    earlier: Mapping[str, Any] | None,
    *,
    accumulation: int,
    report: Callable[[str, float], None] = lambda what, fraction: None,
) -> dict[str, Any]:
    """Which kernel computes attention, and why; sets it for this process and `model`.

    `example` is a batch, `earlier` the choice in plan.json, which a resumed run keeps. Choose before anything is
    compiled: compiled code keeps the kernel it was made with.
    """
    why_not = _refuses(config, model, example)
    if earlier is not None and not (earlier["chosen"] == "flex" and why_not is not None):
        choice = dict(earlier)
    elif config.training.attention == "flex" and why_not is not None:
        choice = {"chosen": "torch", "reason": f"not flex: {why_not}", "fallback": True}
    elif config.training.attention == "flex":
        choice = {"chosen": "flex", "reason": "training.attention is flex"}
    elif config.training.attention == "auto" and why_not is None and isinstance(model, Transformer):
        choice = _measure_masked(config.training.steps, model, dtype, example, accumulation, report)
    else:
        choice = _measure_plain(config.training, model, dtype, example)
    set_flex(model, choice["chosen"] == "flex")
    if torch.cuda.is_available():
        torch.backends.cuda.enable_cudnn_sdp(choice["chosen"] != "flash")
        torch.backends.cuda.enable_flash_sdp(choice["chosen"] != "cudnn")
    return choice


def choose_packing(
    config: TrainingConfig, model: nn.Module, device: torch.device, attention: Mapping[str, Any]
) -> dict[str, Any]:
    """Whether attention writes its gradient in place, and why. Choose before anything is compiled."""
    if config.packed_attention == "off":
        return {"chosen": "apart", "reason": "training.packed_attention is off"}
    if config.deterministic:
        return {"chosen": "apart", "reason": "cuDNN's kernels do not repeat bit for bit"}
    if attention["chosen"] != "cudnn":
        return {"chosen": "apart", "reason": "only with cuDNN's attention"}
    if (why_not := packs_attention(model, device)) is not None:
        return {"chosen": "apart", "reason": why_not}
    return {"chosen": "packed", "reason": "cuDNN writes the gradient as the projection reads it"}


def _refuses(config: Config, model: nn.Module, example: Batch) -> str | None:
    """Why FlexAttention is not for this run, or None."""
    if not one_shape(config):
        return "batches are as long as their longest text, and it is compiled for one shape: task.padding=full"
    return refuses_flex(model, next(model.parameters()).device, example.tokens_BT.shape[1])


def _measure_masked(
    steps: int,
    model: Transformer,
    dtype: torch.dtype,
    example: Batch,
    accumulation: int,
    report: Callable[[str, float], None],
) -> dict[str, Any]:
    """torch's attention under a mask, or FlexAttention, on the documents of `example`."""
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    device = next(model.parameters()).device
    rows, length = example.tokens_BT.shape
    hidden = hidden_by(model, example.document_ids_BT.to(device))
    mask = seen(length, device=device, **hidden)
    q, k, v = _heads(rows, length, layers[0], dtype, device)
    grouped = layers[0].num_heads != layers[0].num_kv_heads

    def under_mask() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)

    def in_blocks() -> Tensor:
        return attend_to_blocks(q, k, v, seen_blocks(length, device=device, **hidden))

    milliseconds = {"torch": _milliseconds(under_mask, q.detach())}
    seconds = milliseconds["torch"] / 1e3 * len(layers) * accumulation * steps
    if seconds < _FLEX_PAYS_AFTER_SECONDS:
        from_when = f"flex is tried from {_FLEX_PAYS_AFTER_SECONDS:.0f} s on"
        why = f"masked attention takes about {seconds:.0f} s in all; {from_when}"
        return {"chosen": "torch", "reason": why, **milliseconds}
    report("compiling FlexAttention, to measure it", 0.0)
    try:
        milliseconds["flex"] = _milliseconds(in_blocks, q.detach())
    except Exception as error:  # the compiler and its back-ends raise errors of many kinds
        why = f"FlexAttention failed: {type(error).__name__}: {error}"[:300]
        return {"chosen": "torch", "reason": why, "fallback": True, **milliseconds}
    return _quickest(milliseconds)


def _measure_plain(config: TrainingConfig, model: nn.Module, dtype: torch.dtype, example: Batch) -> dict[str, Any]:
    """cuDNN's kernel of plain causal attention, or FlashAttention's."""
    device = next(model.parameters()).device
    if device.type != "cuda" or not isinstance(model, Decoder) or dtype == torch.float32:
        return {
            "chosen": "torch",
            "reason": "torch's own: only for our decoder in 16 bits on CUDA is it measured",
        }
    if config.attention != "auto":
        return {"chosen": config.attention, "reason": f"training.attention is {config.attention}"}
    if config.deterministic:
        return {"chosen": "flash", "reason": "cuDNN's kernels do not repeat bit for bit"}
    # Whatever the model's own grouping, as many heads of keys as of queries.
    layer = next(module for module in model.modules() if isinstance(module, Attention))
    rows, length = example.tokens_BT.shape
    q, k, v = _heads(rows, length, layer, dtype, device, grouped=False)
    milliseconds: dict[str, float] = {}
    for _ in range(_ROUNDS):  # in turn: what disturbs one for a moment does not decide
        for name, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
            try:
                took = _milliseconds(
                    lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), q.detach(), sdpa_kernel(backend)
                )
            except RuntimeError:  # a kernel that this GPU, or this head size, does not have
                continue
            milliseconds[name] = min(took, milliseconds.get(name, took))
    if not milliseconds:
        return {"chosen": "torch", "reason": "neither kernel takes these shapes", "fallback": True}
    return _quickest(milliseconds)


def _heads(
    rows: int, length: int, layer: Attention, dtype: torch.dtype, device: torch.device, *, grouped: bool = True
) -> list[Tensor]:
    """Queries, keys and values as a layer has them, strides included."""
    keys = layer.num_kv_heads if grouped else layer.num_heads
    shapes = [(rows, length, heads, layer.head_size) for heads in (layer.num_heads, keys, keys)]
    return [torch.randn(shape, device=device, dtype=dtype).transpose(1, 2).requires_grad_() for shape in shapes]


def _milliseconds(
    attend: Callable[[], Tensor], upstream: Tensor, inside: AbstractContextManager[Any] | None = None
) -> float:
    """Of one layer, forward and backward, on the device: the least of ten, as others may use it at the same time."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(11)]  # type: ignore[no-untyped-call]
    with inside or nullcontext():
        for _ in range(3):
            torch.autograd.backward(attend(), upstream)
        marks[0].record()
        for mark in marks[1:]:
            torch.autograd.backward(attend(), upstream)
            mark.record()
    torch.cuda.synchronize(upstream.device)
    return min(float(one.elapsed_time(other)) for one, other in pairwise(marks))


def _quickest(milliseconds: Mapping[str, float]) -> dict[str, Any]:
    chosen = min(milliseconds, key=lambda name: milliseconds[name])
    return {"chosen": chosen, "reason": "measured: milliseconds of a layer, forward and backward", **milliseconds}
