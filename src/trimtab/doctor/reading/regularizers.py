"""How strong dropout and weight decay are, wherever that is set."""

from __future__ import annotations

from trimtab.doctor.case import Case
from trimtab.doctor.remedies import learning_rate_in_use


def largest_dropout(case: Case) -> float | None:
    """The strongest rate of any place."""
    rates = [
        float(value)
        for name, value in case.config.items()
        if name.startswith("model.dropout") and isinstance(value, int | float) and not isinstance(value, bool)
    ]
    named = [("settings", name) for name in ("dropout", "dropout_rate", "hidden_dropout_prob", "p_drop")]
    found = (case.number(*path) for path in (*named, ("largest_dropout",)))  # of a model that was given
    return max([*rates, *(value for value in found if value is not None)], default=None)


def largest_decay(case: Case) -> float | None:
    """The larger of weight decay and an L2 penalty."""
    values = [case.setting(name) for name in ("optimizer.weight_decay", "penalties.l2.strength")]
    values.append(case.number("settings", "weight_decay"))
    return max((float(value) for value in values if isinstance(value, int | float)), default=None)


def taken_in_a_step(case: Case, decay: float) -> float:
    """The part of each weight that a decay takes in a step, at the rate in use; with descent that adds it to the
    gradient also what its momentum takes again, a geometric series."""
    taken = decay * (learning_rate_in_use(case) or 0.0)
    momentum = case.setting("optimizer.momentum")
    is_added = case.setting("optimizer.name") == "sgd" and isinstance(momentum, int | float) and 0 < momentum < 1
    return taken / (1.0 - momentum) if is_added else taken
