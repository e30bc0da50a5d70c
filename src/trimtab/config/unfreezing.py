"""When gradual unfreezing goes on before its time, and what it does not go with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from trimtab.config.base import Count, Section

if TYPE_CHECKING:
    from trimtab.config.run import Config


class NoUnfreezingControl(Section):
    """Each entry of model.unfreeze at its time."""

    name: Literal["none"] = "none"


class PlateauUnfreezing(Section):
    """The next entry of model.unfreeze as soon as the metric no longer improves, and at its time at the latest."""

    name: Literal["plateau"] = "plateau"
    metric: str = Field("validation/loss", min_length=1, description="what must improve; its direction is known")
    patience: Count = Field(2, description="evaluations on end without improvement before the next entry")


UnfreezingControl = Annotated[NoUnfreezingControl | PlateauUnfreezing, Field(discriminator="name")]


def beside_unfreezing(config: Config) -> str:
    """Why `config` cannot unfreeze parameters as it says; "" where it can."""
    control, stopping = config.control.unfreezing, config.stopping
    if not config.model.unfreeze:
        return "" if control.name == "none" else "control.unfreezing has nothing to unfreeze: model.unfreeze is empty"
    if (
        isinstance(control, PlateauUnfreezing)
        and stopping.name == "patience"
        and stopping.metric == control.metric
        and stopping.patience <= control.patience
    ):
        return (
            f"control.unfreezing.patience {control.patience} has no effect: stopping.patience {stopping.patience} on "
            "the same metric ends the run before"
        )
    if not config.model.freeze:
        return "model.unfreeze has no effect: model.freeze is empty"
    others = {
        "optimizer_switch: both begin the optimizer anew": config.optimizer_switch is not None,
        f"averaging.name {config.averaging.name}: the average has no values of what was frozen": (
            config.averaging.name != "none"
        ),
        "optimizer.name schedule_free_adamw: the weights that it trains are not those that it is judged by": (
            config.optimizer.name == "schedule_free_adamw"
        ),
        "optimizer.rates.schedules: groups differ before and after": bool(config.optimizer.rates.schedules),
        "gradients.clip.groups: groups differ before and after": bool(getattr(config.gradients.clip, "groups", None)),
    }
    return next((f"model.unfreeze does not go with {other}" for other, is_there in others.items() if is_there), "")
