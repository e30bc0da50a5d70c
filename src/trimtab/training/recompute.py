"""The least that must be computed again in backward, so that a step fits into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

from torch import nn

from trimtab.errors import ResourceError
from trimtab.model.recompute import set_recompute, ways_to_recompute


class Find(Protocol):
    """Finds how a step is divided; with `tries` by trying, up to the micro-batch that is configured."""

    def __call__(self, *, tries: bool = False) -> dict[str, Any]:
        """As the entry of plan.json. Raises: ResourceError when not even one sequence fits."""
        ...


def least_recompute(
    asked: Literal["none", "selective", "full", "auto"],
    model: nn.Module,
    find: Find,
    micro_batch_size: int | None,
    report: Callable[[str, float], None],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is computed again, set on `model`, and how a step is divided then; both as entries of plan.json.

    `auto` is the first of none, selective and full, as far as the model can, with which a micro-batch of
    `micro_batch_size` fits, or, where that is to be found, too, a micro-batch of one sequence: smaller micro-batches
    take less time than computing again. Where none fits the one that takes least is taken, and the step may still be
    divided when memory runs out.

    Raises: ResourceError when one sequence does not fit with everything computed again.
    """
    if asked != "auto":
        set_recompute(model, asked)
        return {"chosen": asked, "reason": f"training.recompute is {asked}"}, find()
    tried: dict[str, str] = {}
    ways = ways_to_recompute(model)
    for how in ways:
        report(f"trying training.recompute={how}", 0.0)
        set_recompute(model, how)
        try:
            found = find(tries=True)
        except ResourceError as error:
            if how == ways[-1]:
                raise
            tried[how] = str(error).splitlines()[0]
            continue
        if micro_batch_size is None or found["chosen"] >= micro_batch_size:
            why = "the least with which a step fits" if tried else "a step fits without"
            return {"chosen": how, "reason": why, "tried": tried}, find() if micro_batch_size is not None else found
        tried[how] = f"no more than {found['chosen']} sequences fit: {found['reason']}"
    why = f"even so micro-batches of {micro_batch_size} do not fit: {tried[how]}"
    return {"chosen": how, "reason": why, "tried": tried, "fallback": True}, find()
