"""Linear layers that multiply in 8-bit floats, scaled by the maxima of the steps before.

Forward and the gradient of the input are products of fp8, with bf16 results; the gradient of the weight is a product of
bf16. Inputs and weights are e4m3, gradients e5m2. The linear layers of all blocks take part; embeddings, norms and the
head stay as they are, and in eval mode everything does.

Shape suffixes: N tokens · D width of the input · F width of the output · L layers · R roles (input, weight, gradient) ·
H steps of the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.errors import ConfigError

Role = Literal["input", "weight", "gradient"]
E4M3: Final = torch.float8_e4m3fn
E5M2: Final = torch.float8_e5m2
ROLES: Final[dict[Role, torch.dtype]] = {"input": E4M3, "weight": E4M3, "gradient": E5M2}
_MULTIPLE: Final = 16
"""Of which the widths of a product are, as cuBLASLt asks."""
_QUOTIENTS: Final = (2.0**-100, 2.0**100)
"""Between these a scale and its inverse are normal numbers."""


def saturated(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` times `scale` in `dtype`; what does not fit becomes the largest number, and NaN stays."""
    most = torch.finfo(dtype).max
    return (x.float() * scale).clamp(-most, most).to(dtype)


def note_largest(x_ND: Tensor, rows_N: Tensor, most: Tensor) -> None:
    """Write the largest absolute value of each row into `rows_N`, or of all into `most` where that has another length.

    The kernel that makes a row finds its maximum on the way, and those of all layers are put together at once:
    another kernel for each would cost more than the values themselves.
    """
    found_N = x_ND.abs().amax(-1)
    if rows_N.shape == found_N.shape:
        rows_N.copy_(found_N)
    else:
        most.copy_(torch.maximum(most, found_N.amax().float()))


def power_of_two(x: Tensor) -> Tensor:
    """The largest power of two that is not above `x`, exactly; `x` is fp32, positive and normal."""
    return (x.view(torch.int32) & 0x7F800000).view(torch.float32)


def product(
    a_NK: Tensor, b_KM: Tensor, inverse_a: Tensor, inverse_b: Tensor, bias_M: Tensor | None = None, *, fast: bool
) -> Tensor:
    """a b, divided by both scales, plus the bias, in bf16 [N, M]; `b_KM` is column-major.

    With `fast` the tensor cores keep fewer bits of the sums on their way. Off CUDA it is computed in fp32.
    """
    if a_NK.is_cuda:
        return torch._scaled_mm(
            a_NK, b_KM, inverse_a, inverse_b, bias=bias_M, out_dtype=torch.bfloat16, use_fast_accum=fast
        )
    sums_NM = (a_NK.float() @ b_KM.float()) * (inverse_a * inverse_b)
    return (sums_NM if bias_M is None else sums_NM + bias_M.float()).to(torch.bfloat16)


@final
class Fp8Linear(nn.Linear):
    """A linear layer over the parameters of another, which computes in fp8 while it trains."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        # torch.compile then traces through it as it is: it writes a maximum in backward.
        torch.compiler.allow_in_graph(_Product)  # type: ignore[no-untyped-call]
        self.measures = False
        """Whether maxima are found, and products are those of the weights themselves."""
        device = self.weight.device
        # No buffers: a checkpoint has the history they follow from, and a model for use has none of them.
        self.scale_input, self.scale_weight, self.scale_gradient = (torch.ones((), device=device) for _ in range(3))
        self.inverse_input, self.inverse_weight, self.inverse_gradient = (
            torch.ones((), device=device) for _ in range(3)
        )
        self.largest_input, self.largest_weight, self.largest_gradient = (
            torch.zeros((), device=device) for _ in range(3)
        )
        self.rows_input, self.rows_gradient = (torch.empty(0, device=device) for _ in range(2))
        rows, columns = self.weight.shape
        self.narrow_FD = torch.empty(rows, columns, dtype=E4M3, device=device)
        self.narrow_DF = torch.empty(columns, rows, dtype=E4M3, device=device)

    def forward(self, x: Tensor) -> Tensor:
        """x weightᵀ + bias, [..., F]."""
        if not self.training:
            return F.linear(x, self.weight, self.bias)
        x_ND = x.flatten(0, -2)
        with torch.no_grad():
            note_largest(x_ND, self.rows_input, self.largest_input)
        if self.measures:
            y = F.linear(x, self.weight, self.bias)
            watched: Tensor = _Watched.apply(y, self.rows_gradient, self.largest_gradient)  # type: ignore[no-untyped-call]
            return watched
        with torch.no_grad():
            narrow_ND = saturated(x_ND, self.scale_input, E4M3)
        y_NF: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
            x_ND,
            self.weight,
            self.bias,
            narrow_ND,
            self.narrow_FD,
            self.narrow_DF,
            self.inverse_input,
            self.inverse_weight,
            self.scale_gradient,
            self.inverse_gradient,
            self.rows_gradient,
            self.largest_gradient,
        )
        return y_NF.view(*x.shape[:-1], self.out_features)


class _Product(torch.autograd.Function):
    """Differentiable in its first three arguments; the largest gradients are written into the last two."""

    @staticmethod
    def forward(
        context: Any,
        x_ND: Tensor,
        weight_FD: Tensor,
        bias_F: Tensor | None,
        narrow_ND: Tensor,
        narrow_FD: Tensor,
        narrow_DF: Tensor,
        inverse_input: Tensor,
        inverse_weight: Tensor,
        scale_gradient: Tensor,
        inverse_gradient: Tensor,
        rows_gradient: Tensor,
        largest_gradient: Tensor,
    ) -> Tensor:
        context.save_for_backward(
            x_ND, narrow_DF, inverse_weight, scale_gradient, inverse_gradient, rows_gradient, largest_gradient
        )
        context.has_bias = bias_F is not None
        return product(narrow_ND.contiguous(), narrow_FD.t(), inverse_input, inverse_weight, bias_F, fast=True)

    @staticmethod
    def backward(context: Any, upstream_NF: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, narrow_DF, inverse_weight, scale_gradient, inverse_gradient, rows_N, most = context.saved_tensors
        note_largest(upstream_NF, rows_N, most)
        narrow_NF = saturated(upstream_NF, scale_gradient, E5M2).contiguous()
        x_gradient = product(narrow_NF, narrow_DF.t(), inverse_gradient, inverse_weight, fast=False)
        weight_gradient = upstream_NF.t() @ x_ND
        bias_gradient = upstream_NF.sum(0, dtype=torch.float32).to(x_ND.dtype) if context.has_bias else None
        return x_gradient, weight_gradient, bias_gradient, *(None,) * 9


class _Watched(torch.autograd.Function):
    """Its argument, whose gradient is measured."""

    @staticmethod
    def forward(context: Any, y: Tensor, rows_gradient: Tensor, largest_gradient: Tensor) -> Tensor:
        context.save_for_backward(rows_gradient, largest_gradient)
        return y.view_as(y)

    @staticmethod
    def backward(context: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        rows_N, most = context.saved_tensors
        note_largest(upstream.flatten(0, -2), rows_N, most)
        return upstream, None, None


@final
class DelayedScaling:
    """The maxima of each layer's input, weight and gradient, and the scales of the next step that follow from them.

    A scale is the largest power of two by which the largest maximum of the last steps still fits into fp8, over
    2^margin: so scaling itself rounds nothing, and what grows within a step saturates. A maximum that is not finite is
    not believed: the one before counts again. Nothing waits for the device.
    Source: Micikevicius et al. 2022, arXiv 2209.05433; the history as in NVIDIA's Transformer Engine.
    """

    def __init__(self, layers: Mapping[str, Fp8Linear], history: int, margin: int) -> None:
        self._layers, self._margin = dict(layers), margin
        each = list(self._layers.values())
        device = each[0].weight.device
        self._maxima_LRH = torch.zeros(len(each), len(ROLES), history, device=device)
        self._most_R = torch.tensor([torch.finfo(dtype).max for dtype in ROLES.values()], device=device)
        self._largest = [getattr(layer, f"largest_{role}") for layer in each for role in ROLES]
        self._passing = [tensor for layer in each for tensor in (layer.largest_input, layer.largest_gradient)]
        self._scales = [getattr(layer, f"scale_{role}") for layer in each for role in ROLES]
        self._of_weights = [layer.largest_weight for layer in each]
        self._rows: dict[int, list[Tensor]] = {}
        """By the number of tokens; kept, for a captured program writes into its own."""
        self._rows_in_use: list[Tensor] = []
        self._inverses = [getattr(layer, f"inverse_{role}") for layer in each for role in ROLES]
        self.is_measured = False
        """Whether inputs and gradients have a history; until then their scales are 1."""
        self.cast_weights()
        self._maxima_LRH[:, 1, 0] = torch.stack(self._of_weights)
        self._settle()

    def begin(self) -> None:
        """Forget what was seen of inputs and gradients since the last update."""
        torch._foreach_zero_(self._passing)

    def expect(self, num_tokens: int) -> None:
        """Before each forward pass: have room for the maxima of so many tokens."""
        if num_tokens not in self._rows:
            device = self._maxima_LRH.device
            self._rows[num_tokens] = [torch.zeros(num_tokens, device=device) for _ in self._passing]
        rows = self._rows[num_tokens]
        if rows is not self._rows_in_use:
            self._rows_in_use = rows
            for layer, of_input, of_gradient in zip(self._layers.values(), rows[::2], rows[1::2], strict=True):
                layer.rows_input, layer.rows_gradient = of_input, of_gradient
        torch._foreach_zero_(rows)

    @torch.no_grad()
    def collect(self) -> None:
        """After each backward pass: put the maxima of its tokens together with those of the passes before."""
        torch._foreach_maximum_(self._passing, list(torch._foreach_norm(self._rows_in_use, float("inf"))))

    @torch.no_grad()
    def update(self, skip: Tensor) -> None:
        """Take note of what a step has seen, unless it is skipped (1.0), and narrow the weights for the next."""
        seen_LR = torch.stack(self._largest).view(self._maxima_LRH.shape[:2])
        seen_LR = torch.where(torch.isfinite(seen_LR), seen_LR, self._maxima_LRH[:, :, 0])
        moved_LRH = torch.cat((seen_LR[:, :, None], self._maxima_LRH[:, :, :-1]), dim=-1)
        self._maxima_LRH.copy_(torch.where(skip > 0, self._maxima_LRH, moved_LRH))
        self._settle()

    @torch.no_grad()
    def cast_weights(self) -> None:
        """Narrow the weights as they are now, in both layouts, by their present scales, and find their maxima."""
        torch._foreach_zero_(self._of_weights)
        for layer in self._layers.values():
            cast_both_ways(layer.weight, layer.scale_weight, layer.narrow_FD, layer.narrow_DF, layer.largest_weight)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Inside, maxima are found while the layers compute with their weights as they are."""
        for layer in self._layers.values():
            layer.measures = True
        try:
            yield
        finally:
            for layer in self._layers.values():
                layer.measures = False

    def note_whether_measured(self) -> None:
        """Set `is_measured`; waits for the device."""
        self.is_measured = bool((self._maxima_LRH[:, ::2] > 0).any())

    def state(self) -> dict[str, Tensor]:
        """The maxima by layer, newest first, fp32 [R, H]."""
        return {name: self._maxima_LRH[index] for index, name in enumerate(self._layers)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says, over the weights as they are now; of other layers or lengths, begin anew."""
        own = self.state()
        if {name: tensor.shape for name, tensor in state.items()} == {name: t.shape for name, t in own.items()}:
            for name, tensor in own.items():
                tensor.copy_(state[name])
            self.note_whether_measured()
        else:
            self.is_measured = False
            self._maxima_LRH.zero_()
            self.cast_weights()
            self._maxima_LRH[:, 1, 0] = torch.stack(self._of_weights)
        self._settle()

    def _settle(self) -> None:
        """Scales from the maxima, and the weights narrowed by theirs."""
        top_LR = self._maxima_LRH.amax(-1)
        quotient_LR = torch.where(top_LR > 0, self._most_R / top_LR, 1.0).clamp(*_QUOTIENTS)
        scale_LR = power_of_two(quotient_LR) * 2.0**-self._margin
        torch._foreach_copy_(self._scales, list(scale_LR.flatten().unbind()))
        torch._foreach_copy_(self._inverses, list((1.0 / scale_LR).flatten().unbind()))
        self.cast_weights()


def prepare_fp8(model: nn.Module, history: int, margin: int) -> DelayedScaling:
    """Let the linear layers of `model`'s blocks compute in fp8, over their own bf16 parameters.

    Raises: ConfigError for a layer whose widths cuBLASLt does not take.
    """
    layers: dict[str, Fp8Linear] = {}
    for name, module in list(model.named_modules()):
        if not (name.startswith("blocks.") or ".blocks." in name) or not isinstance(module, nn.Linear):
            continue
        if module.in_features % _MULTIPLE or module.out_features % _MULTIPLE:
            raise ConfigError(
                f"training.precision.name: fp8 needs widths that are multiples of {_MULTIPLE}. "
                f"Received: {name} from {module.in_features} to {module.out_features}",
                hint=f"make model.hidden_size and model.feed_forward_size multiples of {_MULTIPLE}, or take bf16",
            )
        layers[name] = Fp8Linear(module).train(module.training)
        model.set_submodule(name, layers[name])
    return DelayedScaling(layers, history, margin)


def cast_both_ways(weight_FD: Tensor, scale: Tensor, narrow_FD: Tensor, narrow_DF: Tensor, most: Tensor) -> None:
    """Write `weight_FD` times `scale` in fp8, saturated, also transposed, and its largest absolute value."""
    if weight_FD.is_cuda:
        from trimtab.model.fp8_kernel import cast

        cast(weight_FD, scale, narrow_FD, narrow_DF, most)
        return
    narrow_FD.copy_(saturated(weight_FD, scale, E4M3))
    narrow_DF.copy_(narrow_FD.t())
    most.copy_(weight_FD.abs().amax().float())
