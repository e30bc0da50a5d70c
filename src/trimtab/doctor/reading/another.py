"""Whether training takes another gradient than that of the loss which examinations take of a batch."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.doctor.case import Case


def trains_another_gradient(case: Case) -> bool:
    """Whether training takes the gradient of more than the loss that examinations take."""
    usual = {"procedure.name": "plain", "sharpness.name": "none", "embedding.mixup.alpha": 0.0}
    usual |= {"penalties.l2.strength": 0.0, "embedding.noise.alpha": 0.0, "embedding.cutout.rate": 0.0}
    weights = case.setting("task.class_weights")  # whose gradient is that of the few samples that weigh
    return isinstance(weights, Mapping) or any(case.setting(name) != value for name, value in usual.items())
