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
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from trimtab.model.attention import Attention, CrossAttention
from trimtab.model.encoder_decoder import EncoderDecoder
from trimtab.model.mode import in_backward, uncompiled
from trimtab.model.trunk import Trunk

_AT_ONCE: Final = 1 << 26
"""Weights that are measured at once, 256 MiB, and four times that for a moment: a few sequences, as each kernel has its
price, and not all, as those of a long text would not fit into memory."""


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
    _rows: Callable[[slice, slice], tuple[Tensor, Tensor]]
    """Some queries of some sequences: logits, fp32 [B, H, T, S], and what is seen, of a shape that goes with these."""
    knows_logits: bool = True
    """False where only the weights are known; logits are then their logarithms, right but for a constant."""

    def logits(self, sequence: int, queries: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Of some queries of one sequence: what softmax is taken of, fp32 [H, T, S], and which keys they see."""
        logits_BHTS, seen = self._rows(slice(sequence, sequence + 1), queries)
        return logits_BHTS[0], seen.expand_as(logits_BHTS)[0]

    def weights(self, sequence: int) -> Tensor:
        """Of one sequence, fp32 [H, T, S]: how much of each key a query reads; 0 all along where it sees nothing."""
        return _weights(*self.logits(sequence))


@contextmanager
def attention_read(model: nn.Module, tell: Callable[[AttentionCall], None]) -> Iterator[None]:
    """Inside, each time a module of `model` attends, `tell` is told of it, at once: tensors live no longer.

    The model computes what it always does, eagerly where it was compiled, and in torch's kernels where ours are in
    one with what follows. What is seen: torch's scaled_dot_product_attention, softmax of four dimensions, and
    nn.MultiheadAttention, which is called once more; not what is computed again in backward.
    """
    inside: list[str] = []
    handles = []
    packed = [module for module in model.modules() if isinstance(module, Attention) and module.packs]
    flexed = [module for module in model.modules() if isinstance(module, Trunk) and module.flex]
    calls: Counter[str] = Counter()

    def named(call: Callable[[str], AttentionCall | None]) -> None:
        name = inside[-1] if inside else ""
        if (found := call(name if calls[name] == 0 else f"{name}:{calls[name] + 1}")) is not None:
            calls[name] += 1
            tell(found)

    reader = _Reader(named)
    ours = {name: one for name, one in model.named_modules() if isinstance(one, Attention | CrossAttention)}
    # Of a model of ours it is known which modules attend: what the rest calls need not go through Python.
    narrow = isinstance(model, Trunk | EncoderDecoder) and bool(ours)
    for name, module in ours.items() if narrow else model.named_modules():
        handles.append(module.register_forward_pre_hook(_entering(inside, name, reader if narrow else None)))
        handles.append(module.register_forward_hook(_leaving(inside, reader if narrow else None), always_call=True))
    try:
        for attention in packed:
            attention.packs = False
        for trunk in flexed:
            trunk.flex = False
        with uncompiled(), nullcontext() if narrow else reader:
            yield
    finally:
        for attention in packed:
            attention.packs = True
        for trunk in flexed:
            trunk.flex = True
        for handle in handles:
            handle.remove()


def _entering(inside: list[str], name: str, reader: _Reader | None) -> Callable[..., None]:
    def enter(module: nn.Module, _: Any) -> None:
        if in_backward():
            return
        inside.append(name)
        if reader is not None:
            reader.__enter__()  # type: ignore[no-untyped-call]

    return enter


def _leaving(inside: list[str], reader: _Reader | None) -> Callable[..., None]:
    def leave(module: nn.Module, _: Any, __: Any) -> None:
        if in_backward():
            return
        inside.pop()
        if reader is not None:
            reader.__exit__(None, None, None)  # type: ignore[no-untyped-call]

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
        if (read := _READ.get(func)) is not None and not in_backward():
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
    mask: Tensor | None = None
    if attn_mask is not None:
        mask = attn_mask.detach()
        if mask.dim() > 4:
            mask = mask.expand(*query.shape[:-1], num_keys).reshape(-1, *mask.shape[-3:])
        mask = mask[(None,) * (4 - mask.dim())]

    def rows(sequences: slice, queries: slice) -> tuple[Tensor, Tensor]:
        k_BHSK = k_BGSK[sequences].float()
        if each > 1:
            k_BHSK = k_BHSK.repeat_interleave(each, dim=1)
        logits_BHTS = (q_BHTK[sequences, :, queries].float() * factor) @ k_BHSK.transpose(2, 3)
        seen = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=query.device)
        if is_causal:
            places_T, places_S = (torch.arange(size, device=query.device) for size in (num_queries, num_keys))
            seen = (places_T[queries, None] >= places_S)[None, None]
        if mask is not None:
            mask_BHTS = mask[sequences if len(mask) > 1 else slice(None)]
            mask_BHTS = mask_BHTS[:, :, queries if mask.shape[2] > 1 else slice(None)]
            if mask_BHTS.dtype == torch.bool:
                return logits_BHTS, seen & mask_BHTS
            return logits_BHTS + mask_BHTS.float(), seen & _not_hidden(mask_BHTS)
        return logits_BHTS, seen

    return AttentionCall(name, num_sequences, num_heads, num_queries, num_keys, rows)


def _of_softmax(name: str, input: Tensor, dim: int | None = None, *_: Any, **__: Any) -> AttentionCall | None:
    logits = input.detach()
    if logits.dim() != 4 or dim not in (-1, 3):
        return None

    def rows(sequences: slice, queries: slice) -> tuple[Tensor, Tensor]:
        logits_BHTS = logits[sequences, :, queries]
        return logits_BHTS.float(), _not_hidden(logits_BHTS)

    num_sequences, num_heads, num_queries, num_keys = logits.shape
    return AttentionCall(name, num_sequences, num_heads, num_queries, num_keys, rows)


def _of_whole(name: str, *args: Any, **kwargs: Any) -> AttentionCall:
    given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs).arguments
    asked = dict(given) | {"training": False, "need_weights": True, "average_attn_weights": False}
    weights_BHTS = F.multi_head_attention_forward(**asked)[1]
    assert weights_BHTS is not None  # asked for
    weights = weights_BHTS.detach().reshape(-1, *weights_BHTS.shape[-3:])

    def rows(sequences: slice, queries: slice) -> tuple[Tensor, Tensor]:
        weights_BHTS = weights[sequences, :, queries]
        return weights_BHTS.float().log(), weights_BHTS > 0

    num_sequences, num_heads, num_queries, num_keys = weights.shape
    return AttentionCall(name, num_sequences, num_heads, num_queries, num_keys, rows, knows_logits=False)


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
    num_queries = min(call.num_queries, max(1, _AT_ONCE // (call.num_heads * call.num_keys)))
    num_sequences = max(1, _AT_ONCE // (call.num_heads * call.num_keys * call.num_queries))
    portions: list[tuple[Tensor, Tensor, Tensor]] = []
    for first in range(0, call.num_sequences, num_sequences):
        sequences = slice(first, min(first + num_sequences, call.num_sequences))
        for begin in range(0, call.num_queries, num_queries):
            queries = slice(begin, begin + num_queries)
            counted = None if counted_BT is None else counted_BT[sequences, queries]
            portions.append(_measured(*call._rows(sequences, queries), counted))
    sums_3H, num_H, largest_H = (torch.stack(each) for each in zip(*portions, strict=True))
    sums_3H, num_H, largest_H = sums_3H.sum(0), num_H.sum(0), largest_H.amax(0)
    entropy_H, relative_H, first_H = (sums_3H / num_H).float()
    known_H = largest_H.isfinite() & call.knows_logits
    return HeadMeasures(entropy_H, relative_H, first_H, torch.where(known_H, largest_H, math.nan))


def _measured(logits_BHTS: Tensor, seen: Tensor, counted_BT: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Over some queries: sums of the first three measures, how many queries count, and the largest logit.

    What is seen is often the same of all heads and sequences, so that it is asked in its own shape.
    """
    num_keys = logits_BHTS.shape[-1]
    seen = seen.expand(*seen.shape[:-1], num_keys)
    choices = seen.sum(-1)
    counted_BHT = choices > 1
    if counted_BT is not None:
        counted_BHT = counted_BHT & counted_BT.to(counted_BHT.device)[:, None]
    counted_BHT = counted_BHT.expand(logits_BHTS.shape[:-1])
    masked_BHTS = logits_BHTS.masked_fill(~seen, -math.inf)
    del logits_BHTS
    largest_H = masked_BHTS.amax(-1).masked_fill(~counted_BHT, -math.inf).amax((0, 2))
    weights_BHTS = masked_BHTS.softmax(dim=-1)
    del masked_BHTS
    first = seen.int().argmax(-1, keepdim=True).expand(*weights_BHTS.shape[:-1], 1)
    first_BHT = weights_BHTS.gather(-1, first)[..., 0]
    entropy_BHT = torch.special.entr(weights_BHTS).sum(-1)
    relative_BHT = entropy_BHT / choices.clamp_min(2).log()
    each_3BHT = torch.stack((entropy_BHT, relative_BHT, first_BHT))
    # A query that sees nothing has no weights, and does not count.
    sums_3H = torch.where(counted_BHT, each_3BHT, 0.0).sum((1, 3), dtype=torch.float64)
    return sums_3H, counted_BHT.sum((0, 2)), largest_H
