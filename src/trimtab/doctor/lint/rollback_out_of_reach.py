"""rollback-out-of-reach: the checkpoints that are kept may all be younger than what a rollback undoes.

Looks for: rollbacks, with checkpoints that reach back less far than the steps from the first harmful one until it is
    acted on: those that must be high or skipped, up to two windows until they are told, and the margin.
Why: a rollback without a checkpoint to go back to is none: at a spike the run goes on, at skipped steps it ends.
Evidence: `checkpoint.every` and `checkpoint.keep_latest` against `logging.every` and what `recovery` waits for.
Remedy: keep more checkpoints.
False alarms: where `checkpoint.keep_best` happens to keep an older one.
Source: own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, RollBackSpikes
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """A warning when the oldest checkpoint that is surely kept is younger than the onset may be."""
    recovery = config.recovery
    if not recovery.goes_back:
        return
    spikes = recovery.spikes
    patience = max(
        spikes.patience if isinstance(spikes, RollBackSpikes) else 0,
        config.gradients.max_skipped if recovery.non_finite == "rollback" else 0,
    )
    delay = patience + 2 * config.logging.every + recovery.rollback.margin
    reach = (config.checkpoint.keep_latest - 1) * config.save_every
    if reach < delay:
        yield LintFinding(
            "rollback-out-of-reach",
            "warning",
            "checkpoint.keep_latest",
            f"{config.checkpoint.keep_latest} checkpoints, {config.save_every} steps apart, and up to {delay} steps "
            "until a rollback is decided",
            "A rollback may find no checkpoint before the steps that it is to undo",
            f"checkpoint.keep_latest={1 - (-delay // config.save_every)}",
            "own",
        )
