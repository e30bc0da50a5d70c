"""Parts of a run in a line each, as people read them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any, Final

from trimtab.runs import format
from trimtab.runs.printable import printable
from trimtab.runs.program import from_here

YARDSTICKS = ("bigram", "zlib", "lzma")
"""What a model's bits per byte are held against, the weakest first."""


def describe_decision(line: Mapping[str, Any]) -> str:
    """A DecisionTaken, as `event_to_json` gives it, in a sentence."""
    decision = line["decision"]
    what = str(decision["kind"]).lower()
    if decision["kind"] == "Adjust":
        what = f"adjust {printable(str(decision['name']))} ({float(decision['value']):g})"
    elif decision["kind"] == "Rollback":
        what = f"roll back before step {decision['onset_step']}"
        spans = line.get("details", {}).get("positions", ())
        left_out = " and ".join(f"{format.count(start)} to {format.count(end - 1)}" for start, end in spans)
        what += f", data positions {left_out} are left out" if left_out else ""
    overruled = " (overruled)" if line["outcome"] == "overruled" else ""
    note = f" ({printable(str(line['note']))})" if line["note"] else ""
    who = printable(str(line["controller"]))
    return f"{who}: {what}{overruled}: {printable(str(decision['reason']))}{note}"


def wrapped(text: str, width: int = 100) -> list[str]:
    """`text` in lines of at most `width` characters; "41 %" stays in one."""
    whole = printable(text).replace(" %", "\u00a0%")
    lines = textwrap.wrap(whole, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\u00a0%", " %") for line in lines]


def describe_pace(pace: Mapping[str, Any]) -> str:
    """What `Pace.to_json` gave, in a line."""
    low, high = (format.step_time(seconds) for seconds in pace["quartiles"])
    waited = format.share(pace["data_seconds"] / pace["mean_seconds"])
    return f"{format.step_time(pace['step_seconds'])} (quartiles {low} to {high}), waiting for data {waited}"


def describe_finding(finding: Mapping[str, Any]) -> str:
    """A finding of the doctor in a line: severity, code, cause."""
    parts = [str(finding.get(key, "")) for key in ("severity", "code")]
    return printable(f"{' '.join(parts).strip()}: {finding.get('cause', '')}")


MOST_DIFFERENCES: Final = 8


def describe_differences(differences: Mapping[str, Mapping[str, Any]], base: str) -> str:
    """What was set otherwise than in `base`, a preset or the defaults: `training.steps 60 (was 300)`."""
    if not differences:
        return f"those of {base}"
    told = [
        f"{printable(key)} {printable(from_here(str(one['now'])), limit=60)} (was {_or_unset(one['was'])})"
        for key, one in list(differences.items())[:MOST_DIFFERENCES]
    ]
    more = len(differences) - len(told)
    return f"{base}, but {', '.join(told)}" + (f" and {more} more (show --json has all)" if more else "")


def _or_unset(value: Any) -> str:
    return "not set" if value is None else printable(str(value), limit=40)


LEARNED_LITTLE: Final = "no fault found, but it learned little"


def describe_verdict(verdict: str, beaten_by: str = "") -> str:
    """The doctor's verdict as people read it: healthy, needs attention, failed; `beaten_by` as in a diagnosis."""
    if verdict == "healthy" and beaten_by:
        return LEARNED_LITTLE
    return "needs attention" if verdict == "attention" else verdict


def describe_metrics(metrics: Mapping[str, float]) -> str:
    """An evaluation's metrics in a line, without the "validation/" of the main set."""
    parts = []
    for name, value in metrics.items():
        if name.endswith("/bits_per_byte"):
            parts.append(format.bits_per_byte(value))
        else:
            parts.append(f"{printable(name.removeprefix('validation/'))} {format.decimal(value)}")
    return ", ".join(parts)


def describe_quality(bits_per_byte: float | None, yardsticks: Mapping[str, Any]) -> str:
    """Bits per byte beside what counting and compressing reach on the same text: '1.51 bits/byte, better than …'."""
    if bits_per_byte is None or not math.isfinite(bits_per_byte):
        return ""
    text = format.bits_per_byte(bits_per_byte)
    known = {name: float(yardsticks[name]) for name in YARDSTICKS if isinstance(yardsticks.get(name), int | float)}
    beaten = [f"{name} ({value:.2f})" for name, value in known.items() if bits_per_byte < value]
    ahead = [f"{name} ({value:.2f})" for name, value in known.items() if bits_per_byte >= value]
    text += f", better than {', '.join(beaten)}" if beaten else ""
    return text + (f", not yet better than {', '.join(ahead)}" if ahead else "")


def describe_split(split: Mapping[str, float]) -> str:
    """Seconds by cause, as parts of the whole, the largest first; "" when there are none."""
    whole = sum(split.values())
    parts = sorted(split.items(), key=lambda item: -item[1])
    return ", ".join(f"{printable(name)} {100 * part / whole:.0f} %" for name, part in parts if part > 0)
