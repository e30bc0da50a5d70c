"""What a model that is no transformer of ours consists of, seen in one forward pass: for `trimtab plan`.

They are built within torch's FakeTensorMode: without weights, and a pass has shapes alone.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from trimtab.config import CnnConfig, Config, HuggingFaceConfig, MlpConfig
from trimtab.errors import UsageError
from trimtab.model.factory import build_model
from trimtab.model.mode import evaluating
from trimtab.model.pretrained import build_hollow
from trimtab.model.recompute import set_recompute, ways_to_recompute
from trimtab.model.size import parameter_counts
from trimtab.model.structure import layers_of
from trimtab.planning import Measured, ModelCounts, Product, Stream, outputs_in, vocabulary_of
from trimtab.signals import ModelOutput, Outputs, SpecialTokens

_ROWS: Final = 2
"""Sequences in the pass: a batch norm takes no single one."""


def measure_model(config: Config) -> ModelCounts:
    """What the model of `config` consists of, for one sequence, as `count_model` counts ours.

    No weights are read, and of a model of transformers none are made. Raises: UsageError for a module of one's own,
    which has no shape before it is built, and for a model that cannot be run so.
    """
    vocabulary = vocabulary_of(config)
    pooled, of_tokens, size = outputs_in(config, vocabulary)
    classes = () if of_tokens else tuple(str(index) for index in range(size))
    outputs = Outputs(size, pooled=pooled, of_tokens=of_tokens, task=config.task.name, classes=classes)
    length = config.data.sequence_length
    if not isinstance(config.model, HuggingFaceConfig | MlpConfig | CnnConfig):
        raise UsageError(
            f"model.name: a module of your own has no shape before it is built. Received: {config.model.name!r}",
            hint="name a preset of its size instead: trimtab plan --model gpt2",
        )
    with FakeTensorMode():
        tokens_BT = torch.zeros(_ROWS, length, dtype=torch.int64)
        if isinstance(config.model, HuggingFaceConfig):
            model: nn.Module = build_hollow(config.model, outputs, vocabulary, SpecialTokens(0, 0, 0))
            inputs = {"input_ids": tokens_BT}
            if config.task.name == "seq2seq":
                inputs["decoder_input_ids"] = tokens_BT
        else:
            model = build_model(
                config.model, vocabulary_size=vocabulary, sequence_length=length, seed=0, outputs=outputs
            )
            inputs = {"tokens_BT": tokens_BT}
        model.train()
        try:
            flops = _forward_flops(model, inputs)
            products, kept, kernels = _passed(model, inputs)
            again = kept
            if "full" in ways_to_recompute(model):
                set_recompute(model, "full")
                again = _passed(model, inputs)[1]
        except Exception as error:  # whatever a model from outside does that needs numbers
            raise UsageError(
                f"model: {type(model).__name__} cannot be counted without its weights: {type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else ''}"[:300]
            ) from error
    attention = max(0.0, flops - sum(one.flops for one in products))
    if attention < 1e-3 * flops:
        attention = 0.0
    rows = 1.0 if pooled else float(length)
    return ModelCounts(
        dict(parameter_counts(model)["groups"]),
        tuple((one.inputs, one.outputs, one.repeats) for one in products if one.group != "head"),
        products,
        (),
        (Stream(length, 0, 0),),
        Measured(kept, again, attention, kernels, max(1, len(layers_of(model)))),
        vocabulary,
        size,
        of_tokens,
        rows,
    )


def _passed(model: nn.Module, inputs: dict[str, Any]) -> tuple[tuple[Product, ...], float, float]:
    """Of one sequence: products with weights, and bytes kept for backward; and the kernels of the whole pass."""
    seen: Counter[tuple[str, float, int, int]] = Counter()
    own = {_storage(one) for one in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}  # held, so that no storage has the address of one before it

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor
        return tensor

    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    head = getattr(model, "head", None) if head is None else head

    def watch(module: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        inner, outer = _sides(module)
        seen["head" if module is head else "other", output.numel() / outer / _ROWS, inner, outer] += 1

    with ExitStack() as stack:
        for module in model.modules():
            if _sides(module) != (0, 0):
                stack.callback(module.register_forward_hook(watch).remove)
        calls = stack.enter_context(_Calls())
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor))
        _answers(model, inputs)
    products = tuple(Product(*what, repeats=times) for what, times in seen.items())
    held = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / _ROWS
    return products, float(held), float(calls.number)


def _forward_flops(model: nn.Module, inputs: dict[str, Any]) -> float:
    """Of one sequence. The counter knows the products of plain attention, but not every fused kernel."""
    with evaluating(model), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _answers(model, inputs)
    return float(counter.get_total_flops()) / _ROWS


def _answers(model: nn.Module, inputs: dict[str, Any]) -> None:
    output = model(**inputs)
    if isinstance(output, ModelOutput):
        output.head(output.features)


def _storage(tensor: Tensor) -> int:
    """Which memory it is in; on meta all addresses of numbers are 0."""
    return int(tensor.untyped_storage()._cdata)


def _sides(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a module that is a product with a matrix of weights; 0 and 0 of others."""
    match module:
        case nn.Linear():
            return module.in_features, module.out_features
        case nn.Conv1d():
            return module.in_channels * module.kernel_size[0], module.out_channels
        case _ if type(module).__module__ == "transformers.pytorch_utils":  # GPT-2's layers
            weight: Any = module.weight
            return int(weight.shape[0]), int(weight.shape[1])
    return 0, 0


@final
class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that compute."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += function.namespace == "aten" and not function.is_view
        return function(*args, **(kwargs or {}))
