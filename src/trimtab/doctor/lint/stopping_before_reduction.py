"""stopping-before-reduction: the run stops before a plateau has lowered the learning rate.

Looks for: a patience of early stopping that is not above that of `control.learning_rate`, on the same metric.
Why: both count the same evaluations on end. Early stopping comes first, or at the same evaluation, and the lower
    rate is never tried: the controller has no effect.
Evidence: `stopping.patience` against `control.learning_rate.patience`.
Remedy: a patience of early stopping that leaves room for two reductions; or less patience of the controller.
False alarms: none, unless stopping.min_delta is below the threshold of the controller by much.
Source: own; the order of patiences in torch and Keras recipes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, PatienceStopping, PlateauControl
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns when early stopping cannot come after the first reduction."""
    stopping, plateau = config.stopping, config.control.learning_rate
    if not (isinstance(stopping, PatienceStopping) and isinstance(plateau, PlateauControl)):
        return
    if stopping.metric != plateau.metric or stopping.patience > plateau.patience:
        return
    from trimtab.runs import format  # which loads numpy: a configuration is checked without

    yield LintFinding(
        "stopping-before-reduction",
        "warning",
        "stopping.patience",
        f"early stopping waits for {format.counted(stopping.patience, 'evaluation')}, and the reduction of the "
        f"learning rate for {plateau.patience}",
        "the run ends before the lower rate is tried",
        f"stopping.patience={2 * plateau.patience + plateau.cooldown + 1}",
        "own",
    )
