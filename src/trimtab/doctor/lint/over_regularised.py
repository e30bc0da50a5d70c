"""over-regularised: strong dropout and label smoothing, with strong weight decay or heavy augmentation besides.

Looks for: dropout of 0.2 or more and label smoothing of 0.1 or more together with weight decay of 0.1 or more, or with
    augmentation that changes 30 % or more of the tokens (left out, replaced, hidden, cut out of embeddings) or mixes
    embeddings of two texts.
Why: each holds the model back in its own way; together they keep it from fitting what it could. Without smoothing
    dropout, weight decay and augmentation are what small data is taught to need.
Evidence: `model.dropout`, `objective.label_smoothing`, `optimizer.weight_decay`, `data.augmentation`,
    `embedding`.
Remedy: halve one at a time, beginning with label smoothing, which language models seldom need.
False alarms: small data seen many times, where all of them may be wanted.
Source: the project's rules of thumb.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from trimtab.config import BinaryCrossEntropyConfig, Config, CrossEntropyConfig, OutsideModel
from trimtab.doctor.lint.finding import LintFinding

_HEAVY: Final = 0.3


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns when three strong regularizers come together, smoothing and dropout among them."""
    objective = config.objective
    if isinstance(config.model, OutsideModel) or not isinstance(
        objective, CrossEntropyConfig | BinaryCrossEntropyConfig
    ):
        return
    dropout, smoothing = max(config.model.dropout.rates.values()), objective.label_smoothing
    decay = max(one.weight_decay for one in config.optimizers)
    augmentation, embedding = config.data.augmentation, config.embedding
    changed = 1.0 - (1.0 - augmentation.changed_part) * (1.0 - embedding.cutout.rate)
    third = [f"weight decay {decay}"] if decay >= 0.1 else []
    third += [f"augmentation of {changed:.0%} of the tokens"] if changed >= _HEAVY else []
    third += [f"mixup of embeddings with alpha {embedding.mixup.alpha}"] if embedding.mixup.alpha > 0.0 else []
    if dropout >= 0.2 and smoothing >= 0.1 and third:
        together = [f"dropout {dropout}", f"label smoothing {smoothing}", *third]
        yield LintFinding(
            "over-regularised",
            "warning",
            "objective.label_smoothing",
            f"{', '.join(together[:-1])} and {together[-1]} together",
            "each holds the model back, and together they may keep it from fitting",
            "objective.label_smoothing=0.0",
            "rules of thumb",
        )
