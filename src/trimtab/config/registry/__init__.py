"""What can be chosen: one literal table per room, torch-free, from a name to the part's card."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from trimtab.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Spec:
    """The card of one part: where it is, what it is, who described it, what it needs and can do."""

    path: str
    """'package.module:name'."""
    description: str
    source: str
    needs: tuple[str, ...] = ()
    """Extras of trimtab that must be installed."""
    capturable: bool = False
    """May run inside a CUDA graph: keeps no step count or other state in Python."""
    compilable: bool = False
    """May be compiled by torch.compile."""
    layouts: tuple[str, ...] = ()
    """Optimizers: parameter storage they work on, `flat` or `per_tensor`."""
    state: str = ""
    """Optimizers: the memory of their state, besides the weights."""
    cost: str = ""
    """Optimizers: what an update costs."""
    decouples: bool = False
    """Optimizers: weight decay acts on the weight alone, apart from gradient and state."""
    fuses_clip: bool = False
    """Optimizers: the factor of clipping is applied in the update's own pass over the gradient."""
    held_back: str = ""
    """Why it is not capturable."""


EXTRAS: dict[str, str] = {
    "lowbit": "bitsandbytes",
    "huggingface": "transformers",
    "peft": "peft",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
}
"""Extra to the module that it brings, of parts whose spec needs one."""


def require(spec: Spec, where: str) -> None:
    """Nothing, where all is installed that the part needs.

    Raises:
        ConfigError: something is missing; the message names the setting `where`, the hint how to install it.
    """
    for extra in spec.needs:
        require_module(EXTRAS[extra], extra, where)


def require_module(module: str, extra: str, where: str) -> None:
    """Nothing, where `module`, which `extra` brings, is installed. Raises: ConfigError naming the setting `where`."""
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"{where}: needs {module}, which is not installed", hint=f"pip install 'trimtab[{extra}]'")


def load_target(path: str, where: str) -> Any:
    """The object that 'package.module:name' names.

    Raises:
        ConfigError: it is not there; the message names the setting `where`.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{where}: cannot import {module_name!r} ({error}). Received: {path!r}",
            hint="the module must be importable from where trimtab runs: install it, or set PYTHONPATH",
        ) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise ConfigError(f"{where}: module {module_name!r} has no {name!r}. Received: {path!r}") from error
