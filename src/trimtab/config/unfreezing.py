"""What gradual unfreezing does not go with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.config.run import Config


def beside_unfreezing(config: Config) -> str:
    """Why `config` cannot unfreeze parameters as it says; "" where it can."""
    if not config.model.unfreeze:
        return ""
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
