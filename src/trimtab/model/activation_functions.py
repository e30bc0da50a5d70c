"""Which activation functions run in a model, and what goes into them.

Shape suffixes: B sequences · T positions · F feed-forward size, or units in general.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from trimtab.model.feed_forward import Activation, FeedForward
from trimtab.model.mode import in_backward, uncompiled
from trimtab.model.structure import layers_of

Function = Callable[[Tensor], Tensor]
"""An activation function: elementwise."""
Tell = Callable[[str, Tensor, Function, str], None]
Read = Callable[[str, Function, Tensor, str], None]

_OURS: Final[Mapping[Activation, Function]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "swiglu": F.silu,
    "relu_squared": lambda x: F.relu(x).square(),
}
"""Of swiglu the function of its gate."""
_RECTIFIERS: Final = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardswish,
    nn.LeakyReLU,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
)
_IN_LAYERS: Final = (nn.Sigmoid, nn.Softplus, nn.Tanh)
"""Read inside of layers alone: elsewhere they make gates and outputs."""
_CALLED: Final[Mapping[Callable[..., Any], Callable[..., Tensor]]] = {
    **{
        one: one
        for one in (
            F.celu,
            F.elu,
            F.gelu,
            F.hardswish,
            F.leaky_relu,
            F.mish,
            F.relu,
            F.relu6,
            F.selu,
            F.silu,
        )
    },
    **dict.fromkeys((torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), F.relu),
}
"""Activation functions that are called, and what gives the same without writing into what it is given."""


@contextmanager
def activations_read(model: nn.Module, tell: Tell) -> Iterator[None]:
    """Inside, `tell` is told of each activation function before it runs: the name of what it belongs to, what goes in,
    detached, its units last, the function, and the name of the module with a matrix or kernel which ran last, whose
    units these are; empty where that is known by the name.

    Of our models these are [B, T, F] of the feed-forward blocks, the gate alone of gated ones. Of others they are
    torch's rectifiers and transformers' functions, as modules or called, and what saturates inside of layers; the name
    is that of the layer they are in, elsewhere that of the module with a matrix or kernel which ran last. What a
    convolution gave has its channels as units. What is computed again in backward is not told again.
    """

    def read(name: str, function: Function, before: Tensor, source: str) -> None:
        if not in_backward():
            with torch.no_grad():
                tell(name, before.detach(), function, source)

    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        ours = [(name, one) for name, layer in layers_of(model).items() for one in _feed_forwards(layer)]
        for name, block in ours:
            stack.callback(setattr, block, "fuses", block.fuses)
            block.fuses = False  # there the argument would stay inside of a kernel
            stack.callback(block.up.register_forward_hook(_told_of(name, block, read)).remove)
        if not ours:
            stack.enter_context(_Reader(model, read).attached())
        yield


def _feed_forwards(layer: nn.Module) -> Iterator[FeedForward]:
    return (one for one in layer.modules() if isinstance(one, FeedForward))


def _told_of(name: str, block: FeedForward, read: Read) -> Callable[..., None]:
    def ran(module: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        argument = output.chunk(2, dim=-1)[0] if block.activation == "swiglu" else output
        read(name, _OURS[block.activation], argument, "")

    return ran


@final
class _Reader(TorchFunctionMode):
    """Of other models: follows where a pass is, and sees functions that are called beside those that are modules."""

    def __init__(self, model: nn.Module, read: Read) -> None:
        super().__init__()
        self._model = model
        self._read = read
        self._within: list[str] = []
        """Names of the layers that are running, the outermost first; of the whole model the empty one."""
        self._newest: tuple[str, nn.Module] | None = None
        """The module with a matrix or a kernel that ran last."""
        self._in_functions = 0
        """How many modules that are activation functions are running."""

    @contextmanager
    def attached(self) -> Iterator[None]:
        layers = layers_of(self._model)
        inside = {one for layer in layers.values() for one in layer.modules()}
        with ExitStack() as stack:
            for name, module in {"": self._model, **layers}.items():
                if isinstance(module, torch.jit.ScriptModule):
                    continue
                enter, leave = partial(self._enter, name), self._leave
                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave, always_call=True).remove)
            for name, module in self._model.named_modules():
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # takes no hooks
                if _is_function(module, module in inside):
                    stack.callback(module.register_forward_pre_hook(self._begin).remove)
                    stack.callback(module.register_forward_hook(self._end, always_call=True).remove)
                elif any(one.ndim > 1 for one in module.parameters(recurse=False)):
                    stack.callback(module.register_forward_hook(partial(self._ran, name)).remove)
            stack.enter_context(self)
            yield

    def _enter(self, name: str, module: nn.Module, given: Any) -> None:
        self._within.append(name)

    def _leave(self, module: nn.Module, given: Any, output: Any) -> None:
        self._within.pop()

    def _ran(self, name: str, module: nn.Module, given: Any, output: Any) -> None:
        self._newest = (name, module)

    def _begin(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        self._in_functions += 1
        if self._in_functions == 1 and given:
            # Not `module` itself: its hooks would be called once more, and it may write into what it is given.
            function = copy.copy(module)
            if "inplace" in vars(function):
                vars(function)["inplace"] = False
            self._tell(given[0], _prelu(module) if isinstance(module, nn.PReLU) else function.forward)

    def _end(self, module: nn.Module, given: Any, output: Any) -> None:
        self._in_functions -= 1

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if args and not self._in_functions and (same := _CALLED.get(func)) is not None:
            rest = [one for one in args[1:] if not isinstance(one, bool)]
            named = {name: value for name, value in options.items() if name != "inplace"}
            self._tell(args[0], lambda x: same(x, *rest, **named))
        return func(*args, **options)

    def _tell(self, before: Any, function: Function) -> None:
        if not self._within or not isinstance(before, Tensor) or not _is_plain(before) or before.ndim < 2:
            return
        source, module = self._newest or ("", None)
        if isinstance(module, _ConvNd) and before.shape[1:2] == (module.out_channels,):
            before = before.movedim(1, -1) if before.ndim == module.weight.ndim else before
        if name := self._within[-1] or source:
            self._read(name, function, before, source)


def _prelu(module: nn.PReLU) -> Function:
    return lambda x: F.prelu(x, module.weight.to(x.dtype))


def _is_plain(values: Tensor) -> bool:
    """Whether slopes can be taken of it, here and now: not of whole numbers, sparse or nested ones, nor of what a
    transform of `torch.func` has wrapped, which must not outlive it."""
    strided = values.is_floating_point() and values.layout == torch.strided and not values.is_nested
    return strided and not (is_functorch_wrapped_tensor(values) or torch.is_inference_mode_enabled())


def _is_function(module: nn.Module, in_layer: bool) -> bool:
    """One's own classes that are made of them are not: they may take, give or keep more. What they call is seen."""
    known = (*_RECTIFIERS, *_IN_LAYERS) if in_layer else _RECTIFIERS
    is_known = any(isinstance(module, one) and type(module).forward is one.forward for one in known)
    return is_known or type(module).__module__ == "transformers.activations"
