"""A short run as events: what every monitor and controller must be able to meet."""

from __future__ import annotations

import math

import numpy as np

from trimtab.events import (
    Adjust,
    Advise,
    AlertRaised,
    ArtifactLogged,
    CheckpointSaved,
    Decision,
    DecisionTaken,
    Evaluate,
    EvaluationEnded,
    Event,
    FindingsChanged,
    Rollback,
    RunEnded,
    RunStarted,
    Save,
    StepsEnded,
    Stop,
)


def sample_events(num_windows: int = 8) -> list[Event]:
    """One run of every event and decision, with a skipped step, a loss that is not finite, and a loss that rises."""
    events: list[Event] = [RunStarted(0, 1, 0, None, 10 * num_windows)]
    for window in range(num_windows):
        first, last = 10 * window + 1, 10 * window + 10
        loss = 3.0 - 0.2 * window + 0.01 * np.arange(10.0)
        skipped = np.zeros(10)
        if window == 2:
            loss[4], skipped[4] = math.nan, 1.0
        per_step = {
            "train/loss": loss,
            "train/accuracy": np.full(10, 0.1),
            "grad_norm": np.where(np.isfinite(loss), 1.0, math.inf),
            "skipped": skipped,
            "learning_rate": np.full(10, 1e-3),
            "tokens": np.full(10, 4096.0),
            "step_seconds": np.full(10, 0.1),
            "data_seconds": np.zeros(10),
        }
        values = {"tokens_per_second": 40_960.0, "memory_bytes": 1e9}
        events.append(StepsEnded(first, last, per_step, values, {"layer/blocks.0/activation_rms": 1.0}))
        validation = 2.5 + 0.1 * window if window else math.nan
        events.append(
            EvaluationEnded(
                last,
                {
                    "validation/loss": validation,
                    "validation/accuracy": 0.1,
                    "validation/x/loss": 3.0,
                    "generalization_gap": validation - 2.4,
                },
                0.5,
            )
        )
        events.append(CheckpointSaved(last, f"checkpoints/step-{last:08d}", 1_000, 0.01, "scheduled"))
    last = 10 * num_windows
    decisions: list[Decision] = [
        Save("best"),
        Evaluate("asked"),
        Adjust("noise", "learning_rate", 0.5),
        Rollback("spike", last - 5, ((last - 5, last - 4),), to_the_newest=True, learning_rate=0.5),
        Advise("look", {"code": "overfitting"}),
        Advise("a spike", steps=((last - 5, last - 4),)),
        Stop("no improvement", restore_best=True),
    ]
    events += [DecisionTaken(last, last - 10, "somebody", decision) for decision in decisions]
    data = {"positions": [[120, 140]], "samples": [7, 3]}
    events.append(DecisionTaken(last, last - 10, "somebody", decisions[3], details=data))
    details = {"step": 25, "loss": math.nan, "grad_norm": math.inf, **data}
    events.append(AlertRaised(last, "non_finite_step", "step 25 is not finite", details))
    events.append(FindingsChanged(last, ({"code": "overfitting", "severity": "warning"},)))
    events.append(ArtifactLogged(last, "sample", "sample-0", text="def f(x):\n    return \x1b[31mx"))
    events.append(RunEnded(last, "stopped", "no improvement", 20, 2.6, 20, 8.0, {"training": 8.0}))
    return events
