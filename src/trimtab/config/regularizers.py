"""Which regularizers a run has that may be turned up and down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from trimtab.config.control import GapControl, Regularizer
from trimtab.config.model import OutsideModel
from trimtab.config.objective import BinaryCrossEntropyConfig, CrossEntropyConfig

if TYPE_CHECKING:
    from trimtab.config.run import Config

_ABSENT: Final[dict[Regularizer, str]] = {
    "dropout": "every rate of model.dropout is 0",
    "weight_decay": "optimizer.weight_decay is 0",
    "label_smoothing": "there is no objective.label_smoothing above 0",
}


def regularizers(config: Config) -> dict[Regularizer, str]:
    """Each regularizer by name, with why `config` has nothing of it to adjust; "" where it has."""
    model, objective = config.model, config.objective
    present: dict[Regularizer, bool] = {
        "dropout": isinstance(model, OutsideModel) or any(model.dropout.rates.values()),
        "weight_decay": any(one.weight_decay > 0.0 for one in config.optimizers),
        "label_smoothing": isinstance(objective, CrossEntropyConfig | BinaryCrossEntropyConfig)
        and objective.label_smoothing > 0.0,
    }
    return {name: "" if is_there else _ABSENT[name] for name, is_there in present.items()}


def regularized(config: Config) -> tuple[Regularizer, ...]:
    """The settings that the gap is to adjust: those asked for, or all that `config` has."""
    control = config.control.regularization
    if not isinstance(control, GapControl):
        return ()
    return control.settings or tuple(name for name, why_not in regularizers(config).items() if not why_not)


def unregularized(config: Config) -> Iterator[str]:
    """Why `control.regularization` could do nothing in `config`, in words."""
    control = config.control.regularization
    if not isinstance(control, GapControl):
        return
    if config.evaluation.gap_tokens == 0:
        yield "control.regularization follows the generalization gap, and evaluation.gap_tokens is 0"
    if "" not in config.variants:
        yield (
            "control.regularization follows the generalization gap of the plain weights, which averaging.evaluate "
            "average leaves out"
        )
    known = regularizers(config)
    for name in control.settings or ():
        if known[name]:
            yield f"control.regularization.settings {name} has nothing to adjust: {known[name]}"
    if not regularized(config):
        yield f"control.regularization has nothing to adjust: {'; '.join(known.values())}"
