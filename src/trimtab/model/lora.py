"""Low-rank updates beside frozen weights, by peft."""

from __future__ import annotations

import copy
import warnings
from typing import Any

from torch import nn

from trimtab.config import LoraConfig
from trimtab.errors import ConfigError
from trimtab.model.hugging_face import HuggingFaceModel


def add_lora(model: HuggingFaceModel, config: LoraConfig) -> None:
    """Put updates beside the weights of `model`, and freeze all else but a head that says classes or a number.

    The updates of a matrix W are alpha / rank · B A, with A random and B zero, so that nothing changes at first. Their
    names hold `lora_A` and `lora_B`, and W is called `….base_layer.weight`. With targets `auto`, an architecture that
    peft has no list for gets updates beside every matrix but the head, and `model.adapted` says so.
    Source: Hu et al. 2021, arXiv 2106.09685, section 4.1, by way of peft.

    Raises: ConfigError for targets that the model does not have.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    targets: Any = (
        {"auto": None, "all": "all-linear"}.get(config.targets)
        if isinstance(config.targets, str)
        else [*config.targets]
    )
    if config.targets == "auto" and not _is_listed(model):
        targets = "all-linear"
        model.adapted = f"low-rank updates beside every matrix but the head: peft has no list for {model.kind}"
    alpha: Any = config.alpha  # peft takes any number, and says int
    settings = PeftConfig(
        r=config.rank, lora_alpha=alpha, lora_dropout=config.dropout, target_modules=targets, bias="none"
    )
    heads = _heads(model)
    try:
        with warnings.catch_warnings():
            # peft says of Conv1D, which GPT-2 has, that it stores weights the other way round, and does so.
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            inject_adapter_in_model(settings, model.module)
    except (ValueError, KeyError) as error:
        linear = sorted({name.rpartition(".")[2] for name, one in model.module.named_modules() if _is_matrix(one)})
        raise ConfigError(
            f"model.lora.targets: {str(error).splitlines()[0][:200]}. Received: {config.targets!r}",
            hint="model.lora.targets=all takes every matrix but the head; the model's are called " + ", ".join(linear),
        ) from error
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith(heads))


def merged(module: nn.Module) -> nn.Module:
    """A copy of `module` with the updates added to the weights that they stand beside."""
    copied = copy.deepcopy(module)
    merge_lora(copied)
    return copied


def merge_lora(module: nn.Module) -> None:
    """Add the updates to the weights that they stand beside, which then have their old names. In place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = [(name, one) for name, one in module.named_modules() if isinstance(one, BaseTunerLayer)]
    for name, layer in found:
        layer.merge(safe_merge=True)
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, layer.get_base_layer())
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    if hasattr(module, "peft_config"):
        del module.peft_config


def _heads(model: HuggingFaceModel) -> tuple[str, ...]:
    """Beginnings of the names that stand outside the base model, where the task's head is no part of pretraining."""
    if model.task not in ("classification", "regression", "token_classification"):
        return ()
    base = getattr(model.module, "base_model_prefix", "")
    return tuple(f"{name}." for name, _ in model.module.named_children() if name != base)


def _is_listed(model: HuggingFaceModel) -> bool:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as LISTED

    return model.config.model_type in LISTED


def _is_matrix(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
