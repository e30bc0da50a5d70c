"""Why a run ended, as people read it, and what to run after that."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Final

from trimtab import errors
from trimtab.events import DecisionTaken, Event, RunEnded, Stop
from trimtab.runs.printable import printable
from trimtab.runs.program import command, from_here, in_python

_OURS: Final = tuple(
    name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, errors.TrimtabError)
)
_NAME: Final = re.compile(rf"^(?:{'|'.join(_OURS)}): ")
_HINT: Final = "\nhint: "


def reason_and_hint(reason: str) -> tuple[str, str]:
    """The reason of a RunEnded without the name of an error of ours, and its hint; "" where there is none."""
    told, _, hint = _NAME.sub("", reason).partition(_HINT)
    return printable(told), printable(hint)


def reason_in_a_line(reason: str) -> str:
    """Both, where there is room for one line."""
    told, hint = reason_and_hint(reason)
    return f"{told} ({hint})" if hint else told


def would_repeat(events: Iterable[Event]) -> bool:
    """Whether a run failed in its numbers, so that going on from its checkpoint would come to the same."""
    stop: Stop | None = None
    repeats = False
    for event in events:
        match event:
            case DecisionTaken(decision=Stop() as decision, outcome="taken"):
                stop = decision
            case RunEnded(status=status, reason=reason):
                by_decision = stop is not None and stop.exit_code == errors.NumericsError.exit_code
                by_error = reason.startswith(f"{errors.NumericsError.__name__}: ")
                repeats = status == "failed" and (by_decision or by_error)
                stop = None
    return repeats


def with_other_settings(run: str) -> str:
    """How a run goes on with settings that differ."""
    return f"{command('train', f'{run}/config.yaml')} SECTION.KEY=VALUE --run {from_here(run)} --accept-drift"


def next_command(
    status: str, run: str, source: str = "config", task: str = "causal_lm", *, repeats: bool = False
) -> str:
    """What a person is most likely to run after looking at a run of this status and task.

    `source` is what it was begun from, as in `RunDirectory`: the command line builds models of a "config" alone.
    `repeats`, as `would_repeat`: to go on would come to the same, so that the doctor is asked what to change.
    """
    if status == "running":
        return command("show", printable(run))
    over = status in ("finished", "stopped")
    if status == "failed" and repeats:
        return command("doctor", printable(run))
    if source == "python" and not over:
        return in_python(run)
    if source != "config":
        return command("report", printable(run))
    if over:
        return command("generate" if task in ("causal_lm", "seq2seq") else "evaluate", printable(run))
    return command("resume", printable(run))
