"""What is to be said of a soup: of weights that were averaged, and not trained."""

from __future__ import annotations

from trimtab.doctor.case import Case
from trimtab.runs import format
from trimtab.runs.metrics import selection_direction
from trimtab.runs.printable import printable


def is_soup(case: Case) -> bool:
    """Whether the run is the mean of other runs' checkpoints."""
    return isinstance(case.fact("soup", "ingredients"), list)


def describe_soup(case: Case) -> str:
    """Three sentences: what it is made of, whether it is better than that, what to do next."""
    metric, ingredients = str(case.fact("soup", "metric")), case.fact("soup", "ingredients")
    kept = [one for one in ingredients if one.get("is_in")]
    of = "" if len(kept) == len(ingredients) else f" of {len(ingredients)}"
    made = f"It is a soup, the mean of {len(kept)}{of} checkpoints, and nothing was trained in it."
    value, gain = case.number("soup", "value"), case.number("soup", "gain")
    if value is None or gain is None:
        return f"{made} How good it is was not measured. Next: judge it with evaluate."
    sign = -1.0 if selection_direction(metric) == "higher" else 1.0
    best = min(ingredients, key=lambda one: sign * float(one["value"]))
    name = f"{printable(str(best['run']))} at step {format.count(best['step'])}"
    beside = f"the best of them, {name}, which has {format.decimal(float(best['value']))}"
    than = f"{format.decimal(abs(gain))} {'better' if gain > 0 else 'worse'} than" if gain else "the same as"
    judged = f"Its {printable(metric)} is {format.decimal(value)}, {than} {beside}."
    if gain > 0:
        return f"{made} {judged} Next: use it; what went well or badly in training, its ingredients' runs tell."
    return f"{made} {judged} Next: use that one, as the mean gains nothing."
