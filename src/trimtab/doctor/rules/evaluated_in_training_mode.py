"""evaluated-in-training-mode: dropout is active in evaluation, or the statistics of the batch are used.

Looks for: answers that change though the weights do not (the fact `first_batch`): when the same sequences are asked a
    second time (`repeats_differ`, dropout), or a sequence alone and beside another (`mates_differ`, BatchNorm). Or our
    callbacks in other trainers saw the model in training mode during an evaluation (`evaluated_in_training_mode`).
Why it matters: every evaluation is that of a crippled model, and no two are alike: the best checkpoint, patience and
    the reported figure are chosen by chance.
Evidence: how far the answers move, as a part of their deviation.
Remedy: `model.eval()` before evaluations and `model.train()` after; `F.dropout(x, p, self.training)`, which is always
    on without its third argument.
False alarms: dropout that is meant to be on (Monte Carlo dropout), and models that draw on purpose (noisy routing). No
    log tells this fault: its curves are those of a small validation set, or of a harder one. Without the fact it is
    withheld.
Source: own; the test by two evaluations is the first that PyTorch's own FAQ names for results that differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld

CODE: Final = "evaluated-in-training-mode"
BY_ITSELF: Final = 0.01
"""Of their deviation: answers that are asked twice differ by less, whatever the order of sums."""
BY_MATES: Final = 0.1
"""The same beside other sequences, where kernels of other shapes round otherwise: half precision by a hundredth."""


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning."""
    if case.fact("evaluated_in_training_mode") is True:
        told = "the model was in training mode while it was evaluated"
        yield Finding(
            CODE,
            "warning",
            0.9,
            1,
            "evaluations are of the model in training mode: dropout is active, or the statistics of the batch are used",
            (Evidence("facts.evaluated_in_training_mode", (0, case.history.last_step), None, None, told),),
            remedies=(Remedy("model.eval() before evaluations, and model.train() after"),),
        )
        return
    if case.fact("first_batch") is None:
        yield Withheld(CODE, ("two evaluations of the same weights (facts.first_batch)",))
        return
    repeats, mates = (case.number("first_batch", name) for name in ("repeats_differ", "mates_differ"))
    evidence: list[Evidence] = []
    if repeats is not None and repeats > BY_ITSELF:
        told = f"asked twice with the same weights, the answers differ by {repeats:.2g} of their deviation"
        evidence.append(Evidence("facts.first_batch.repeats_differ", (0, 1), repeats, 0.0, told))
    elif mates is not None and mates > BY_MATES:
        told = f"asked alone and beside another, a sequence's answers differ by {mates:.2g} of their deviation"
        evidence.append(Evidence("facts.first_batch.mates_differ", (0, 1), mates, 0.0, told))
    if not evidence:
        return
    by_itself = evidence[0].metric.endswith("repeats_differ")
    yield Finding(
        CODE,
        "warning",
        0.95,
        1,
        "evaluations draw anew each time: dropout, or other noise, is active in eval mode"
        if by_itself
        else "evaluations depend on which samples are judged together: statistics of the batch are used in eval mode",
        tuple(evidence),
        remedies=(
            Remedy(
                "let dropout follow the mode of the module: nn.Dropout, or F.dropout(x, p, self.training), and no "
                "train() or eval() of one's own that does not pass it on"
                if by_itself
                else "let BatchNorm follow the mode of the module: no training=True, track_running_stats=True, and no "
                "eval() of one's own that does not pass it on"
            ),
        ),
    )
