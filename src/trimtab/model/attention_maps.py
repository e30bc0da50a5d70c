"""What each head attends to, read where a model computes it.

The fused kernels never hold the weights of attention. What they are given does: queries and keys after
normalization and rotation, and the mask. So the weights are computed anew beside the model, which runs as it always
does. A model that computes them by itself calls softmax; there they are read as they are.

Shape suffixes: B sequences · T positions of queries · S positions of keys · H heads · G heads of keys · K head size.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from trimtab.model.attention import Attention
from trimtab.model.mode import uncompiled

_AT_ONCE: Final = 1 << 24
"""Weights that are measured at once, 64 MiB: those of a long text would not fit into memory."""


@final
@dataclass(frozen=True, slots=True)
class AttentionCall:
    """One module's attention in one pass; what is asked of it is computed then, in fp32."""

    name: str
    """The module that called; from the second call of a pass on with its number behind it, `…:2`."""
    num_sequences: int
    num_heads: int
    num_queries: int
    num_keys: int
    _row: Callable[[int, slice], tuple[Tensor, Tensor]]
    knows_logits: bool = True
    """False where only the weights are known; logits are then their logarithms, right but for a constant."""

    def logits(self, sequence: int, queries: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Of some queries of one sequence: what softmax is taken of, fp32 [H, T, S], and which keys they see."""
        return self._row(sequence, queries)

    def weights(self, sequence: int) -> Tensor:
        """Of one sequence, fp32 [H, T, S]: how much of each key a query reads; 0 all along where it sees nothing."""
        return _weights(*self.logits(sequence))


@contextmanager
def attention_read(model: nn.Module, tell: Callable[[AttentionCall], None]) -> Iterator[None]:
    """Inside, each time a module of `model` attends, `tell` is told of it, at once: tensors live no longer.

    The model computes what it always does, eagerly where it was compiled, and in torch's kernels where ours are in
    one with what follows. What is seen: torch's scaled_dot_product_attention, softmax of four dimensions, and
    nn.MultiheadAttention, which is called once more.
    """
    inside: list[str] = []
    handles = []
    packed = [module for module in model.modules() if isinstance(module, Attention) and module.packs]
    calls: Counter[str] = Counter()

    def named(call: Callable[[str], AttentionCall | None]) -> None:
        name = inside[-1] if inside else ""
        if (found := call(name if calls[name] == 0 else f"{name}:{calls[name] + 1}")) is not None:
            calls[name] += 1
            tell(found)

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(_entering(inside, name)))
        handles.append(module.register_forward_hook(_leaving(inside), always_call=True))
    try:
        for attention in packed:
            attention.packs = False
        with uncompiled(), _Reader(named):
            yield
    finally:
        for attention in packed:
            attention.packs = True
        for handle in handles:
            handle.remove()


def _entering(inside: list[str], name: str) -> Callable[..., None]:
    def enter(module: nn.Module, _: Any) -> None:
        inside.append(name)

    return enter


def _leaving(inside: list[str]) -> Callable[..., None]:
    def leave(module: nn.Module, _: Any, __: Any) -> None:
        inside.pop()

    return leave


class _Reader(TorchFunctionMode):
    """Sees each call of a torch function before it is made."""

    def __init__(self, named: Callable[[Callable[[str], AttentionCall | None]], None]) -> None:
        super().__init__()
        self._named = named

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if (read := _READ.get(func)) is not None:
            with torch.no_grad():
                self._named(lambda name: read(name, *args, **kwargs))
        return func(*args, **kwargs)


def _of_fused(
    name: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionCall:
    q_BHTK, k_BGSK = (one.detach().reshape(-1, *one.shape[-3:]) for one in (query, key))
    num_sequences, num_heads, num_queries, head_size = q_BHTK.shape
    num_keys, each = k_BGSK.shape[2], num_heads // k_BGSK.shape[1]
    factor = 1.0 / math.sqrt(head_size) if scale is None else scale
    shape = (num_sequences, num_heads, num_queries, num_keys)
    mask_BHTS = None if attn_mask is None else attn_mask.detach().expand(shape)

    places_T, places_S = (torch.arange(size, device=query.device) for size in (num_queries, num_keys))

    def row(sequence: int, queries: slice) -> tuple[Tensor, Tensor]:
        k_HSK = k_BGSK[sequence].float().repeat_interleave(each, dim=0)
        logits_HTS = (q_BHTK[sequence, :, queries].float() @ k_HSK.transpose(1, 2)) * factor
        seen_HTS = torch.ones_like(logits_HTS, dtype=torch.bool)
        if is_causal:
            seen_HTS = seen_HTS & (places_T[queries, None] >= places_S)
        if mask_BHTS is not None:
            mask_HTS = mask_BHTS[sequence, :, queries]
            if mask_HTS.dtype == torch.bool:
                return logits_HTS, seen_HTS & mask_HTS
            return logits_HTS + mask_HTS.float(), seen_HTS & _not_hidden(mask_HTS)
        return logits_HTS, seen_HTS

    return AttentionCall(name, num_sequences, num_heads, num_queries, num_keys, row)


def _of_softmax(name: str, input: Tensor, dim: int | None = None, *_: Any, **__: Any) -> AttentionCall | None:
    logits = input.detach()
    if logits.dim() != 4 or dim not in (-1, 3):
        return None

    def row(sequence: int, queries: slice) -> tuple[Tensor, Tensor]:
        logits_HTS = logits[sequence, :, queries]
        return logits_HTS.float(), _not_hidden(logits_HTS)

    num_sequences, num_heads, num_queries, num_keys = logits.shape
    return AttentionCall(name, num_sequences, num_heads, num_queries, num_keys, row)


def _of_whole(name: str, *args: Any, **kwargs: Any) -> AttentionCall:
    given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs).arguments
    asked = dict(given) | {"training": False, "need_weights": True, "average_attn_weights": False}
    weights_BHTS = F.multi_head_attention_forward(**asked)[1]
    assert weights_BHTS is not None  # asked for
    weights = weights_BHTS.detach().reshape(-1, *weights_BHTS.shape[-3:])

    def row(sequence: int, queries: slice) -> tuple[Tensor, Tensor]:
        weights_HTS = weights[sequence, :, queries]
        return weights_HTS.float().log(), weights_HTS > 0

    num_sequences, num_heads, num_queries, num_keys = weights.shape
    return AttentionCall(name, num_sequences, num_heads, num_queries, num_keys, row, knows_logits=False)


_READ: Final[Mapping[Any, Callable[..., AttentionCall | None]]] = {
    F.scaled_dot_product_attention: _of_fused,
    F.softmax: _of_softmax,
    torch.softmax: _of_softmax,
    torch.Tensor.softmax: _of_softmax,
    F.multi_head_attention_forward: _of_whole,
}
"""How attention is read from a function of torch, which is given the name and all arguments."""


def _not_hidden(added: Tensor) -> Tensor:
    """False where something was added that hides a key: minus infinity, or the least number or half of it."""
    return added > torch.finfo(added.dtype).min / 2


def _weights(logits_HTS: Tensor, seen_HTS: Tensor) -> Tensor:
    weights_HTS = logits_HTS.masked_fill(~seen_HTS, -math.inf).softmax(dim=-1)
    return torch.where(seen_HTS.any(-1, keepdim=True), weights_HTS, 0.0)


@final
@dataclass(frozen=True, slots=True)
class HeadMeasures:
    """Of each head, [H], over the queries that are counted and see more than one key: others have no choice."""

    entropy: Tensor
    """Of the weights, in nats: 0 where one key has all."""
    relative_entropy: Tensor
    """The same as a part of the largest that it can be, log of how many keys are seen: 1 where all have the same."""
    first: Tensor
    """Weight on the first key that is seen, which is where heads look that look at nothing (an attention sink)."""
    largest_logit: Tensor
    """The largest value that softmax is taken of, scale and bias included."""


def measure_heads(call: AttentionCall, counted_BT: Tensor | None = None) -> HeadMeasures:
    """What heads do in `call`, over all sequences; `counted_BT` is True at queries that are no padding.

    Does not wait for the device; not a number where no query counts. Source: Zhai et al. 2023, arXiv 2303.06296
    (entropy, largest logit); Xiao et al. 2023, arXiv 2309.17453 (sinks).
    """
    at_once = max(1, _AT_ONCE // (call.num_heads * call.num_keys))
    portions: list[tuple[Tensor, Tensor, Tensor]] = []
    for sequence in range(call.num_sequences):
        for begin in range(0, call.num_queries, at_once):
            queries = slice(begin, begin + at_once)
            counted_T = None if counted_BT is None else counted_BT[sequence, queries]
            portions.append(_measured(*call.logits(sequence, queries), counted_T))
    sums_3H, num_H, largest_H = (torch.stack(each) for each in zip(*portions, strict=True))
    sums_3H, num_H, largest_H = sums_3H.sum(0), num_H.sum(0), largest_H.amax(0)
    entropy_H, relative_H, first_H = (sums_3H / num_H).float()
    known_H = largest_H.isfinite() & call.knows_logits
    return HeadMeasures(entropy_H, relative_H, first_H, torch.where(known_H, largest_H, math.nan))


def _measured(logits_HTS: Tensor, seen_HTS: Tensor, counted_T: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Over some queries: sums of the first three measures, how many queries count, and the largest logit."""
    weights_HTS = _weights(logits_HTS, seen_HTS)
    choices_HT = seen_HTS.sum(-1)
    counted_HT = choices_HT > 1
    if counted_T is not None:
        counted_HT = counted_HT & counted_T.to(counted_HT.device)
    entropy_HT = torch.special.entr(weights_HTS).sum(-1)
    relative_HT = entropy_HT / choices_HT.clamp_min(2).log()
    first_HT = weights_HTS.gather(-1, seen_HTS.int().argmax(-1, keepdim=True))[..., 0]
    sums_3H = (torch.stack((entropy_HT, relative_HT, first_HT)) * counted_HT).sum(-1, dtype=torch.float64)
    largest_H = logits_HTS.masked_fill(~(seen_HTS & counted_HT[..., None]), -math.inf).amax((1, 2))
    return sums_3H, counted_HT.sum(-1), largest_H
