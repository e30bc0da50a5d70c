"""no-loss: no training loss is known, so that the run is not judged.

Looks for: steps, and no metric that is known for a training loss. Columns whose names look like one are named, for the
    training and for the validation. Several that are minimized together (`box_loss`, `cls_loss`) are read as their sum;
    those of a game or of rewards (`loss_G`, `loss_D`) are not, as each is measured by what another one learns.
Why it matters: nearly every rule reads the loss. That nothing was found says nothing where nothing could be.
Evidence: the columns that there are.
Remedy: name the columns: `trimtab doctor LOG --map <column>=train/loss --map <column>=validation/loss`; in a loop of
    your own log it as `loss`.
False alarms: a log of evaluations alone, with a validation loss: a remark, unless a column looks like a training loss.
Source: own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.codes import UNJUDGED
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.runs.printable import printable
from trimtab.runs.unnamed_losses import played, unnamed_losses

MOST_SHOWN: Final = 12


def check(case: Case) -> Iterator[Finding]:
    """A warning: nothing that counts was read."""
    history = case.history
    if history.has("train/loss") or history.last_step == 0:
        return
    is_evaluated = case.validation_loss() is not None
    others = [name.removeprefix("user/") for name in history.series if name.startswith("user/")]
    like = {theirs: ours for theirs, ours in unnamed_losses(others).items() if not history.has(ours)}
    grave = not is_evaluated or "train/loss" in like.values()
    if not grave and case.target == "trimtab":
        return
    known = [name for name in history.series if not name.startswith("user/")]
    shown = ", ".join(printable(name, limit=60) for name in [*others, *known][:MOST_SHOWN]) or "none"
    game = [printable(name, limit=60) for name in played(others)]
    why = "no column is known for a training loss" + ("" if is_evaluated else ", nor for a validation loss")
    when = "if {} is it"
    if len(game) > 1:
        two = " and ".join(game[:2])
        why = f"{two} are of a game or of rewards: each is measured by what another learns, and a sum says nothing"
        when = "to have {} alone watched for what nothing excuses, such as losses that are no numbers"
    remedies = [
        Remedy(f"{when.format(theirs)}: --map {theirs}={ours}")
        for theirs, ours in ((printable(name, limit=60), ours) for name, ours in like.items())
    ]
    if "train/loss" not in like.values():
        remedies.append(Remedy("name the column of the training loss: --map <column>=train/loss"))
    if not is_evaluated and "validation/loss" not in like.values():
        remedies.append(Remedy("name that of the validation loss, if there is one: --map <column>=validation/loss"))
    yield Finding(
        UNJUDGED,
        "warning" if grave else "info",
        0.99,
        0,
        f"not judged: {why}",
        (Evidence("train/loss", (0, history.last_step), None, None, f"the columns are {shown}"),),
        remedies=tuple(remedies),
    )
