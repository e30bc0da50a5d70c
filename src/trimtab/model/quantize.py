"""Training for 8 and 4 bits: linear layers that compute as if they were quantized, and then are.

The linear layers of all blocks take part; embeddings, norms and the head stay as they are. The arithmetic is torchao's,
imported when it is needed. A quantized weight's tensors are named `quantized/<name>/values` (int8; for 4 bits uint8,
two values a byte, the first in the low half) and `quantized/<name>/scale` (fp32); value times scale is the weight.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from trimtab.config import Int4Quantization, Int8Quantization
from trimtab.errors import CheckpointError, ConfigError

QuantizedConfig = Int8Quantization | Int4Quantization

_PREFIX: Final = "quantized/"
_INT4: Final[Any] = vars(torch)["int4"]  # torch has the name, and its type stubs do not


def prepare_quantization(model: nn.Module, config: QuantizedConfig) -> list[str]:
    """Let the linear layers of `model`'s blocks round weights, and with `activations` int8 their inputs, in forward.

    Gradients pass through the rounding as if it were not there (Bengio et al. 2013, arXiv 1308.3432), but for values
    beyond the largest integer. Parameters keep their names and stay fp32. Gives the names of the layers.

    In eval mode they always round; in training mode, too, until `set_rounding` says otherwise.

    Source: Jacob et al. 2018, arXiv 1712.05877, section 3, with scales of the present weights, symmetric, and of the
    present inputs, per token. Raises: ConfigError when torchao is missing or a layer is not wholly divided into groups.
    """
    torchao, qat = _torchao()
    names = [name for name, module in model.named_modules() if _is_of_a_block(name) and isinstance(module, nn.Linear)]
    if isinstance(config, Int4Quantization):
        for name in names:
            layer = model.get_submodule(name)
            if isinstance(layer, nn.Linear) and layer.in_features % config.group_size:
                raise ConfigError(
                    f"training.quantize.group_size: {name} reads {layer.in_features} values, which are no whole number "
                    f"of groups. Received: {config.group_size}"
                )
    chosen = set(names)
    torchao.quantize_(
        model, qat.QATConfig(_base(torchao, config), step="prepare"), filter_fn=lambda module, name: name in chosen
    )
    for name in names:
        layer = model.get_submodule(name)
        layer.train(model.training).register_forward_pre_hook(_decide)
        _set(layer, rounds_in_training=True, rounds_never=False)
    return names


def set_rounding(model: nn.Module, *, in_training: bool) -> None:
    """Whether a prepared `model` rounds in training mode."""
    for layer in _prepared(model):
        _set(layer, rounds_in_training=in_training)


def quantized_copy(model: nn.Module, config: QuantizedConfig) -> nn.Module:
    """A copy of a prepared `model` whose linear layers hold integers and scales."""
    torchao, qat = _torchao()
    converted = copy.deepcopy(model)
    torchao.quantize_(
        converted,
        qat.QATConfig(_base(torchao, config), step="convert"),
        filter_fn=lambda module, name: isinstance(module, qat.FakeQuantizedLinear),
    )
    return converted


@contextmanager
def without_quantization(model: nn.Module) -> Iterator[None]:
    """Inside, a prepared `model` computes with its weights and inputs as they are."""
    layers = _prepared(model)
    for layer in layers:
        _set(layer, rounds_never=True)
    try:
        yield
    finally:
        for layer in layers:
            _set(layer, rounds_never=False)


def quantized_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What `quantized_copy` gave, as plain host tensors: the quantized ones packed, others as `model/<name>`."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if not _is_quantized(parameter):
            tensors[f"model/{name}"] = parameter.detach().cpu()
            continue
        whole: Any = parameter
        if bool(whole.zero_point.any()):
            raise CheckpointError(f"{name}: quantized with a zero point, which is not kept")
        values = whole.qdata.cpu()
        tensors[f"{_PREFIX}{name}/values"] = _pack(values) if whole.target_dtype == _INT4 else values
        tensors[f"{_PREFIX}{name}/scale"] = whole.scale.float().cpu()
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, value in model.state_dict().items():
        if name not in known and isinstance(value, Tensor):
            tensors[f"model/{name}"] = value.detach().cpu()
    return tensors


@torch.no_grad()
def load_quantized(model: nn.Module, config: QuantizedConfig, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The model that `quantized_tensors` was taken from; `model` is one like it, prepared, with any weights.

    Raises: CheckpointError when names or shapes are others.
    """
    converted = quantized_copy(model, config)
    ours = quantized_tensors(converted)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if {name: tuple(tensor.shape) for name, tensor in ours.items()} != shapes:
        different = sorted(set(ours) ^ set(tensors)) or "shapes"
        raise CheckpointError(f"the quantized model is another one. Different: {different}")
    state = converted.state_dict()
    for name, tensor in tensors.items():
        if not name.startswith(_PREFIX):
            state[name.removeprefix("model/")].copy_(tensor)
    for name, parameter in converted.named_parameters():
        if _is_quantized(parameter):
            whole: Any = parameter
            values = tensors[f"{_PREFIX}{name}/values"]
            whole.qdata.copy_(_unpack(values) if whole.target_dtype == _INT4 else values)
            whole.scale.copy_(tensors[f"{_PREFIX}{name}/scale"])
    return converted


def _prepared(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if type(module).__name__ == "FakeQuantizedLinear"]


def _set(layer: nn.Module, **flags: bool) -> None:
    vars(layer).update(flags)


def _decide(layer: nn.Module, inputs: Any) -> None:
    """Before each forward pass of a prepared layer."""
    flags: dict[str, Any] = vars(layer)
    rounds = not flags["rounds_never"] and (flags["rounds_in_training"] or not layer.training)
    for part in ("activation_fake_quantizer", "weight_fake_quantizer"):
        quantizer: Any = getattr(layer, part)
        if quantizer is not None:
            quantizer.enabled = rounds


def _is_of_a_block(name: str) -> bool:
    return name.startswith("blocks.") or ".blocks." in name


def _is_quantized(parameter: Tensor) -> bool:
    return type(parameter).__name__ == "IntxUnpackedToInt8Tensor"


def _pack(values: Tensor) -> Tensor:
    """Pairs of values from -8 to 7 along the last dimension, as bytes."""
    nibbles = values.view(torch.uint8) & 0xF
    packed: Tensor = nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)
    return packed


def _unpack(packed: Tensor) -> Tensor:
    pairs = torch.stack((packed & 0xF, packed >> 4), dim=-1).to(torch.int8).flatten(-2)
    return torch.where(pairs > 7, pairs - 16, pairs)


def _base(torchao: Any, config: QuantizedConfig) -> Any:
    if isinstance(config, Int4Quantization):
        dtype, granularity = _INT4, torchao.PerGroup(config.group_size)
    else:
        dtype, granularity = torch.int8, torchao.PerAxis(0)
    if config.activations == "int8":
        return torchao.Int8DynamicActivationIntxWeightConfig(weight_dtype=dtype, weight_granularity=granularity)
    return torchao.IntxWeightOnlyConfig(weight_dtype=dtype, granularity=granularity)


def _torchao() -> tuple[Any, Any]:
    """torchao's two modules; what it logs while it is imported, of kernels that are not used here, is left out."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import torchao.quantization
        import torchao.quantization.qat
    except ImportError as error:
        raise ConfigError(
            "training.quantize: quantization-aware training needs torchao, which is not installed",
            hint="pip install 'trimtab[lowbit]'",
        ) from error
    finally:
        logging.disable(before)
    return torchao.quantization, torchao.quantization.qat
