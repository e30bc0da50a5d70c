"""loss-spike: the loss leaves and comes back.

Looks for: losses far above the median of the steps before, by the noise of the steps there, by what single steps reach
    there, by how much levels of stretches wander, and by a part of all that was gained, after which the loss returns.
    The median of the past makes a fast early descent invisible, and noise is that of the steps before, as a loss that
    scatters at first may lie flat in the end. Where single steps scatter too much to tell, and layers are measured:
    weights of all of them that jump between two updates, beside evaluations that rise with them and come back. Or one
    rise of evaluations that are smooth but for it, where the training loss rose beside it.
Why it matters: a spike costs the steps until it is made good, and often comes before a divergence.
Evidence: where, how high, how long, and what the gradient and the rate did there.
Remedy: skip such updates, clip lower, look at the batches of those steps; a lower rate when spikes come again.
False alarms: a step or two up to twice the warm-up, where the rate first is at its height, and jumps of up to five
    rows that are made good soon after it: remarks. Data of mixed difficulty, whose hard batches look like spikes of one
    step: remarks, not warnings; so is a step in which one answer more than usual was wrong, which is much where nothing
    else costs anything. A rate that rises again as the schedule plans (warm restarts, triangles) lifts the loss until
    it falls: a remark at most. So is what evaluations within it do not follow, as when a task begins, and what comes
    again at even distances where there are none. A loss that crept up to its height did not jump: a remark.
Source: own; Chowdhery et al. 2022, arXiv 2204.02311, section 5.1 for what spikes are like in large runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.bumps import bump_beside_training, bump_in_evaluations, not_in_evaluations, of_one_answer
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.medians import is_median_at_most
from trimtab.doctor.reading.restarts import by_plan, raised_before
from trimtab.doctor.reading.spikes import Spike, crept, spikes_of
from trimtab.doctor.reading.thrown import thrown_once
from trimtab.doctor.reading.undone import undone
from trimtab.doctor.reading.unsteady_steps import early_until
from trimtab.doctor.remedies import change, lower_rate
from trimtab.doctor.rules.unshuffled_data import comes_again
from trimtab.runs import format

FEWEST: Final = 24
MOST_SHOWN: Final = 5
BRIEF: Final = 5
"""Rows in which a jump is made good, while the rate is on its way to its height."""
SOON: Final = 0.05
"""Of the run, after the rate came to its height: of a long warm-up twice as long is most of the run."""
HARD_BATCHES: Final = 3
"""So many single steps that stand out are the nature of the data."""


def check(case: Case) -> Iterator[Finding]:
    """A warning for spikes that are high, long or many; a remark for a small one."""
    yield from undone(case, "loss-spike")
    series = case.loss()
    assert series is not None
    curve = Curve.of(series)
    if curve is None or len(curve) < FEWEST:
        return
    peaks = series.maximum[np.isfinite(series.mean)]
    spikes = spikes_of(curve, peaks, buckets=series.width > 1)
    if not spikes:
        yield from list(_thrown(case)) or _in_evaluations(case)
        return
    jumps = [spike for spike in spikes if case.target == "trimtab" or not crept(curve, spike)]
    if not jumps:
        yield _that_crept(case, curve, spikes)
        return
    spikes = jumps
    planned = by_plan(case, curve, spikes)
    others = [spike for spike in spikes if spike not in planned]
    if not others:
        yield _as_planned(case, curve, planned)
        return
    spikes = others
    highest = max([spike.height for spike in spikes])
    longest = max([spike.last - spike.first + 1 for spike in spikes])
    part = highest / curve.descent if curve.descent > 0 else float("inf")
    spans = [(int(curve.steps[spike.first]), int(curve.steps[spike.last])) for spike in spikes]
    raised, changes = raised_before(Curve.of(case.history.get("learning_rate")), spans), ""
    if raised is not None:
        changes = f"it had risen {raised[1] / raised[0]:.0f}-fold, from {raised[0]:.2g} to {raised[1]:.2g}"
    grave = (
        (part >= 0.2 and (longest >= 3 or len(spikes) >= 3))
        or any(spike.height >= 0.5 * curve.descent and spike.height > 12 * spike.noise for spike in spikes)
        or (part >= 0.1 and longest >= max(10, 0.02 * len(curve)))
        or bool(changes)
    )
    until = early_until(Curve.of(case.history.get("learning_rate")))
    if longest < 3 and not changes:
        # The first meeting with the full rate: one step that is made good at once is no more than that.
        grave = grave and any(int(curve.steps[spike.first]) > until for spike in spikes)
        # Where each of several is made good in the next row, no update did it: those batches are the harder ones.
        grave = grave and len(spikes) < HARD_BATCHES
    elif not changes:
        soon = min(until, until / 2 + SOON * curve.last_step)
        grave = grave and any(int(curve.steps[one.last]) > soon or one.last - one.first >= BRIEF for one in spikes)
    alone = not_in_evaluations(case, curve, spikes)
    grave = grave and not alone and not comes_again(case, curve)
    grave = grave and not all(of_one_answer(case, curve, spike) for spike in spikes)
    onset = int(curve.steps[spikes[0].first])
    last = int(curve.steps[spikes[0].last])
    length = f" and took {last - onset + 1:,} steps to come back" if last > onset else " and came back"
    again = f"; {len(spikes)} such spikes in all" if len(spikes) > 1 else ""
    remedies = [Remedy(f"look at the batches from step {onset:,} on, and leave them out if they are damaged")]
    if changes:
        remedies = [Remedy(f"take out what raised the learning rate at step {onset:,}: {changes}")]
    else:
        remedies += clipping(case)
    if len(spikes) >= 2:
        remedies.append(lower_rate(case, 0.5))
    yield Finding(
        "loss-spike",
        "warning" if grave else "info",
        0.9 if grave else 0.6,
        onset,
        f"the training loss jumped at step {onset:,}{length}{again}"
        + ("; evaluations there did not follow: it was what was asked that changed" if alone else "")
        + (f"; the learning rate did it: {changes}" if changes else ""),
        _evidence(case, curve, spikes),
        remedies=tuple(remedies),
    )


def _that_crept(case: Case, curve: Curve, spikes: list[Spike]) -> Finding:
    """A remark on a loss that rose over some rows, and came back."""
    onset, last = int(curve.steps[spikes[0].first]), int(curve.steps[spikes[0].last])
    return Finding(
        "loss-spike",
        "info",
        0.5,
        onset,
        f"the training loss crept up around step {onset:,} and was back after step {last:,}",
        _evidence(case, curve, spikes),
        remedies=(Remedy(f"look at the batches before step {onset:,}, and at what else changed there"),),
    )


def _thrown(case: Case) -> Iterator[Finding]:
    """A warning where weights were thrown, whatever single steps show."""
    if (found := thrown_once(case)) is None:
        return
    (begin, end, times), steps, was, top, last = found
    told = f"from step {begin:,} to {end:,} the median weight grew {times:.1f}-fold"
    rose = f"the validation loss was {format.decimal(was)} before, {format.decimal(top)} then, and"
    yield Finding(
        "loss-spike",
        "warning",
        0.85,
        begin + 1,
        "the weights of all layers were thrown at once, by what no update does, and the loss with them; it came back",
        (
            Evidence("layer/*/weight_norm", (begin, end), times, 1.0, told),
            Evidence("validation/loss", steps, top, was, f"{rose} {format.decimal(last)} at the end"),
        ),
        remedies=(
            Remedy(
                "look for what writes weights beside the optimizer at that step: a callback, an average that is copied "
                "back, memory that is not sound"
            ),
        ),
    )


def _in_evaluations(case: Case) -> Iterator[Finding]:
    """A warning where evaluations tell what single steps hide."""
    sliced = bump_in_evaluations(case)
    bump = sliced or bump_beside_training(case)
    if bump is None:
        return
    steps = bump.onset, bump.last
    told = (
        f"the loss of the validation set and that of the training {'slice' if sliced else 'batches'} rose together by "
        f"{format.decimal(bump.height)} from {format.decimal(bump.usual)}, and were back by step {bump.last:,}"
    )
    yield Finding(
        "loss-spike",
        "warning",
        0.75,
        bump.onset,
        f"the loss jumped near step {bump.onset:,} and came back, as evaluations show: single steps scatter too much",
        (Evidence("validation/loss", steps, bump.usual + bump.height, bump.usual, told),),
        remedies=(
            Remedy(f"look at the batches from step {bump.onset:,} on, and leave them out if they are damaged"),
            *clipping(case),
        ),
    )


def _as_planned(case: Case, curve: Curve, spikes: list[Spike]) -> Finding:
    """A remark on spikes that the schedule's own rises explain."""
    onset = int(curve.steps[spikes[0].first])
    again = f"; {len(spikes)} such rises in all" if len(spikes) > 1 else ""
    name = case.setting("schedule.name")
    by = "whose schedule begins anew there" if name is None else f"as planned by schedule.name = {name}"
    return Finding(
        "loss-spike",
        "info",
        0.6,
        onset,
        f"the training loss rose at step {onset:,} with the learning rate, {by}, and came back{again}",
        _evidence(case, curve, spikes),
        remedies=(Remedy("where a rise costs more than it gains: a lower full rate, or a schedule that rises once"),),
    )


def _evidence(case: Case, curve: Curve, spikes: list[Spike]) -> tuple[Evidence, ...]:
    """Where the highest were, and how high."""
    norms, evidence = Curve.of(case.history.get("grad_norm")), []
    for spike in sorted(spikes, key=attrgetter("height"), reverse=True)[:MOST_SHOWN]:
        first, last, height, usual = spike[:4]
        steps = int(curve.steps[first]), int(curve.steps[last])
        evidence.append(
            Evidence(
                "train/loss",
                steps,
                usual + height,
                usual,
                f"the loss jumped from {format.decimal(usual)} to {format.decimal(usual + height)} "
                f"{_where(steps)}, {height / max(spike.noise, 1e-12):.0f} times the noise of a step there"
                f"{_gradient(norms, steps)}",
            )
        )
    return tuple(evidence)


def clipping(case: Case) -> list[Remedy]:
    """Half of the threshold in use; clipping at all where there is none; nothing for clips without a threshold."""
    name, now = case.setting("gradients.clip.name"), case.setting("gradients.clip.threshold")
    if name == "none":
        return [Remedy("clip the gradient to norm 1", case.target, {"gradients.clip.name": "norm"})]
    if name is not None and now is None:
        return []
    lower = min(0.5, now / 2) if isinstance(now, int | float) else 0.5
    return [change(case, "clip the gradient lower", clip=lower)]


def _where(steps: tuple[int, int]) -> str:
    return f"at step {steps[0]:,}" if steps[0] == steps[1] else f"at steps {steps[0]:,} to {steps[1]:,}"


def _gradient(norms: Curve | None, steps: tuple[int, int]) -> str:
    if norms is None or (part := norms.between(*steps)) is None:
        return ""
    if not is_median_at_most(norms.values, (largest := float(part.values.max())) / 2.999):
        return ""  # as most often, without the median itself
    usual = norms.median
    return f", and the gradient norm to {largest / usual:.0f} times its usual size" if largest > 3 * usual > 0 else ""
