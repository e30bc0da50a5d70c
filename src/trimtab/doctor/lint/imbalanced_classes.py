"""imbalanced-classes: one class is much rarer than another, and counts no more for it.

Looks for: a class with at least ten times the targets of another, with a loss that weighs every target the same; a
    class of the validation set that the training set does not have.
Why: the loss is lowest for a model that hardly ever says the rare class; accuracy hides it.
Evidence: the fact `balance`; without it nothing is said.
Remedy: weights of the classes, or focal loss; judge by macro_f1.
False alarms: a rare class that nobody asks about; costs of errors that are as uneven as the classes are.
Source: Japkowicz and Stephen 2002, doi 10.3233/IDA-2002-6504; Lin et al. 2017, arXiv 1708.02002.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Classification, Config, TokenClassification
from trimtab.doctor.lint.finding import LintFinding

_RATIO = 10.0


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of a ratio of ten, and of classes that cannot be learnt."""
    balance, task = facts.get("balance"), config.task
    if balance is None or not isinstance(task, Classification | TokenClassification):
        return
    source = "Japkowicz and Stephen 2002, doi 10.3233/IDA-2002-6504"
    key = "task.label" if isinstance(task, Classification) else "task.tags"
    if balance["never"]:
        yield LintFinding(
            "imbalanced-classes",
            "warning",
            key,
            f"the training set has no target of: {', '.join(balance['never'])}",
            "what is never shown cannot be learnt, and is judged all the same",
            None,
            source,
        )
    elif (
        balance["most_share"] >= _RATIO * balance["least_share"]
        and task.class_weights == "none"
        and config.objective.name != "focal"
    ):
        yield LintFinding(
            "imbalanced-classes",
            "warning",
            "task.class_weights",
            f"{balance['most_share']:.1%} of the targets are {balance['most']}, and {balance['least_share']:.2%} are "
            f"{balance['least']}",
            "the loss is lowest for a model that hardly ever says the rare class",
            "task.class_weights=balanced",
            source,
        )
