"""repeated-source: of a mixture, one source is gone through more than four times.

Looks for: a source whose share of the planned steps is more than 4 times what it has.
Why: up to about 4 times, repeated text teaches nearly as much as new text; beyond, it is learnt by heart, while the
    loss over the whole mixture still falls.
Evidence: the facts `mixture` and `epochs`; without them nothing is said.
Remedy: a lower weight, or temperature; more text of that source; fewer steps.
False alarms: rows with targets, and sources that are meant to be known by heart.
Source: Muennighoff et al. 2023, arXiv 2305.16264, section 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, MixtureSource, RowTask
from trimtab.doctor.lint.finding import LintFinding

_AS_GOOD_AS_NEW = 4.0


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of the source that is repeated most."""
    source, mixture, epochs = config.data.source, facts.get("mixture"), facts.get("epochs")
    if not isinstance(source, MixtureSource) or mixture is None or epochs is None or isinstance(config.task, RowTask):
        return
    if not source.weights and source.temperature == 1.0:  # no source more often than the others
        return
    name = max(mixture, key=lambda one: mixture[one]["repeats"])
    times = mixture[name]["repeats"] * epochs
    if times > _AS_GOOD_AS_NEW:
        yield LintFinding(
            "repeated-source",
            "warning",
            "data.source.weights" if source.weights else "data.source.temperature",
            f"the run goes through the source {name} {times:.1f} times, and through all data {epochs:.1f} times",
            "beyond about 4 times, repeated text is learnt by heart",
            None if source.weights else "data.source.temperature=1.0",
            "Muennighoff et al. 2023, arXiv 2305.16264, section 6",
        )
