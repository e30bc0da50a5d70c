"""frozen-parameters: parameters that should learn do not change.

Looks for: parameters in the optimizer whose gradient is exactly zero in every window while the rate is not; and
    parameters without a gradient at all, in a model whose first loss is that of a guess: what is frozen is random.
Why it matters: part of the model takes no part in learning, and no curve says so.
Evidence: the names and the share of such parameters.
Remedy: unfreeze them; look for a detach, a no_grad, a branch that is not used, or units that give 0 for every input.
False alarms: fine-tuning on purpose, with adapters or a new head, is a remark: its first loss is better than a guess,
    or what is still has the names of a published model, and what learns those of a head or an adapter. So is what is
    unfrozen by and by, as `model.unfreeze` plans.
Source: own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.levels import uniform_loss
from trimtab.runs import format
from trimtab.runs.printable import printable

FEWEST_WINDOWS = 3
_PRETRAINED = re.compile(
    r"\b(?:backbone|base_model|pretrained|bert|roberta|distilbert|deberta|electra|vit|clip|whisper|wav2vec2|t5|llama)\b"
    r"|\bencoder\.layers?\.\d|\bmodel\.layers\.\d|\btransformer\.h\.\d|\blayer[1-4]\.\d|\bfeatures\.\d",
    re.IGNORECASE,
)
"""Names that published models give their parameters."""
_HEAD = re.compile(r"\b(?:head|fc|classifier|score|projection|lora_\w*|adapter\w*|prompt\w*)\b|lora_", re.IGNORECASE)


def check(case: Case) -> Iterator[Finding]:
    """A warning when no gradient reaches parameters that are to learn, or random ones are frozen."""
    steps, names, norms_WL = case.history.layers.values("grad_norm")
    rates = Curve.of(case.history.get("learning_rate"))
    if rates is None and case.target == "trimtab":
        return
    if len(steps) < FEWEST_WINDOWS or (rates is not None and float(rates.values.max()) <= 0):
        return
    dead_L = np.zeros(len(names), np.bool_)
    if not norms_WL.size or not norms_WL.min() > 0:
        dead_L = (np.isfinite(norms_WL).sum(axis=0) >= FEWEST_WINDOWS) & ~(np.abs(norms_WL) > 0).any(axis=0)
    dead = [name for name, is_dead in zip(names, dead_L, strict=True) if is_dead]
    total, frozen = case.number("parameters", "total"), case.number("parameters", "frozen") or 0.0
    share = frozen / total if total else 0.0
    evidence = []
    if dead:
        shown = ", ".join(printable(name, limit=60) for name in dead[:6]) + (" …" if len(dead) > 6 else "")
        evidence.append(
            Evidence(
                "layer/*/grad_norm",
                (int(steps[0]), int(steps[-1])),
                0.0,
                None,
                f"the gradient of {len(dead)} of {len(names)} parameter tensors is exactly zero in all "
                f"{len(steps)} windows: {shown}",
            )
        )
    if share > 0:
        evidence.append(
            Evidence(
                "facts.parameters.frozen",
                (1, case.history.last_step),
                share,
                None,
                f"{format.short(frozen)} of {format.short(total or 0)} parameters ({100 * share:.0f} %) are frozen"
                f"{_named(case)}",
            )
        )
    if not evidence:
        return
    from_scratch = _begins_like_a_guess(case)
    if from_scratch is not None and share > 0:
        evidence.append(from_scratch)
    planned = bool(case.setting("model.unfreeze"))  # frozen at first alone
    planned = planned or case.setting("control.unfreezing.name") not in (None, "none")
    random = share > 0.05 and from_scratch is not None and not planned
    grave = len(dead) >= 2 or len(dead) > 0.1 * len(names) or random
    backbone = _is_backbone(dead, [name for name in names if name not in dead])
    grave = grave and not backbone
    what = (
        f"no gradient reaches {len(dead)} of {len(names)} parameter tensors"
        if dead
        else f"{100 * share:.0f} % of the parameters are frozen"
    )
    yield Finding(
        "frozen-parameters",
        "warning" if grave else "info",
        (0.97 if 2 * len(dead) >= len(names) else 0.9) if dead and grave else 0.85 if grave else 0.6,
        int(steps[0]) if dead else 1,
        what
        + (": a pretrained model under a new head, if that is meant" if backbone else "")
        + (", at random values, since the model is not pretrained" if not dead and from_scratch is not None else ""),
        tuple(evidence),
        remedies=(
            Remedy(
                "look for detach(), no_grad(), a branch that is not used, or units that give 0 for every input, as "
                "dead ReLUs do, on the way from the loss to them"
            )
            if dead
            else Remedy("set requires_grad to True for what should learn, before the trainer is built"),
        ),
    )


def _is_backbone(dead: list[str], living: list[str]) -> bool:
    """Whether all that is still is of a published model, and all that learns a head or an adapter."""
    there = bool(dead) and bool(living)
    return there and all(map(_PRETRAINED.search, dead)) and all(map(_HEAD.search, living))


def _named(case: Case) -> str:
    """The first of the frozen parameters by name, where facts.json has them."""
    names = case.fact("frozen_parameters")
    if not isinstance(names, list) or not names:
        return ""
    return ": " + ", ".join(printable(str(name), limit=60) for name in names[:6]) + (" …" if len(names) > 6 else "")


def _begins_like_a_guess(case: Case) -> Evidence | None:
    """The first loss, when it is what a uniform guess costs, or more: no weight has learned anything yet."""
    loss, uniform = Curve.of(case.loss()), uniform_loss(case)
    if loss is None or uniform is None or loss.first_step > 20 or loss.start < 0.85 * uniform:
        return None
    return Evidence(
        "train/loss",
        (loss.first_step, loss.last_step),
        loss.start,
        uniform,
        f"the first loss, {format.decimal(loss.start)}, is that of uniform guessing ({format.decimal(uniform)}): "
        "nothing is pretrained",
    )
