"""What settings did over the runs of a project, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.doctor.effects import Effect, Effects
from trimtab.report.text import wrapped
from trimtab.runs import format
from trimtab.runs.printable import printable

MOST: Final = 20


def render_effects(effects: Effects, *, width: int = 100) -> str:
    """Each setting with the change of the outcome, its interval, and what was not kept apart; no line end after."""
    return "\n".join(_lines(effects, width))


def _lines(effects: Effects, width: int) -> Iterator[str]:
    metric = printable(effects.metric)
    yield f"effects on the best {metric} ({effects.better} is better) over {effects.num_runs} runs judged alike"
    if effects.seeds is not None:
        told = (
            f"chance: a standard deviation of {format.decimal(effects.seeds.deviation)}, from {effects.seeds.num_runs} "
            "runs that are equal but for the seed"
        )
        yield from wrapped(told, width, "  ")
    else:
        yield "  chance: not known; no two runs are equal but for the seed"
    if not effects.effects:
        yield "  no setting that acts on the model differs between them"
    for effect in effects.effects[:MOST]:
        yield ""
        yield from wrapped(_head(effect), width, "    ", "")
        yield from wrapped(_told(effect, effects), width, "  ")
    if (more := len(effects.effects) - MOST) > 0:
        yield f"{more} more (--json has all)"
    controlled = sum(one.low is not None for one in effects.effects)
    if controlled > 4:
        told = (
            f"of {controlled} intervals of 95 % about {max(1, round(controlled / 20))} leaves out 0 by chance alone, "
            "so repeat what looks clear once"
        )
        yield ""
        yield from wrapped(told, width, "")
    if effects.left_out:
        named = ", ".join(printable(name) for name in effects.left_out[:6]) + (
            " …" if len(effects.left_out) > 6 else ""
        )
        yield from wrapped(f"left out, as not ended or judged otherwise: {named}", width, "  ", "")


def _head(effect: Effect) -> str:
    interval = "no interval: too few repeats"
    if effect.low is not None and effect.high is not None:
        interval = f"95 %: {format.signed(effect.low)} to {format.signed(effect.high)}"
    return f"{' with '.join(effect.settings)}, {effect.contrast}: {format.signed(effect.change)} ({interval})"


def _told(effect: Effect, effects: Effects) -> str:
    direction = "better" if (effect.change < 0) == (effects.better == "lower") else "worse"
    clear = (
        f"clearly {direction}" if effect.is_clear else "not told from chance" if effect.low is not None else direction
    )
    together = "; these only ever changed together, so that no run tells them apart" if len(effect.settings) > 1 else ""
    if effect.controlled:
        return f"{clear}, in {effect.num_runs} runs that are equal in all other settings but the seed{together}"
    beside = ", ".join(effect.beside[:4]) + (" …" if len(effect.beside) > 4 else "")
    confounded = f"; confounded: {beside} changed along with it" if beside else "; other settings differ, too"
    return f"{clear}, in all {effect.num_runs} runs{confounded}{together}"
