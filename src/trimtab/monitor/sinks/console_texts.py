"""The lines of a console that stay: what is known before step 1, evaluations, checkpoints, samples, findings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.panel import Panel
from rich.text import Text

from trimtab.events import CheckpointSaved, EvaluationEnded
from trimtab.runs import format
from trimtab.runs.described import YARDSTICKS, describe_finding
from trimtab.runs.metrics import METRICS
from trimtab.runs.printable import printable

LEADING: Final = ("validation/bits_per_byte", "validation/accuracy")
"""Of a run that does not say which metrics lead."""
_SEVERITY: Final = {"error": "bold red", "warning": "yellow"}


def evaluation_line(event: EvaluationEnded, metric: str, leading: Sequence[str] = LEADING) -> Text:
    """What an evaluation came to: losses, what else is `leading`, gap; `metric` where there is no loss."""
    text = Text()
    name = shown_name("loss", event.metrics)
    if (loss := event.metrics.get(name)) is not None:
        kind = name.partition("@")[2]
        text.append(f"val {printable(kind)} " if kind else "val ", "dim").append(format.decimal(loss), "bold")
        for other, value in event.metrics.items():
            if other.startswith("validation/loss@") and not kind:
                text.append(f"   {printable(other.partition('@')[2])} ", "dim").append(format.decimal(value), "bold")
    elif (judged := event.metrics.get(metric)) is not None:
        text.append(f"{printable(metric)} ", "dim").append(format.decimal(judged), "bold")
    for plain in dict.fromkeys(name.partition("@")[0].removeprefix("validation/") for name in leading):
        if plain == "loss" or (name := shown_name(plain, event.metrics)) not in event.metrics:
            continue
        value = event.metrics[name]
        if plain == "bits_per_byte":
            text.append("   " + format.bits_per_byte(value))
            continue
        row = METRICS.get(f"validation/{plain}")
        shown = f"{100 * value:.1f} %" if row is not None and row.unit == "fraction" else format.decimal(value)
        text.append(f"   {printable(plain.replace('_', ' '))} ", "dim").append(shown)
    if (gap := event.metrics.get(shown_name("generalization_gap", event.metrics, ""))) is not None:
        text.append("   gap ", "dim").append(format.signed(gap))
    return text


def shown_name(name: str, metrics: Mapping[str, float], room: str = "validation/") -> str:
    """The metric of the weights that are trained, or of their average where only that was judged."""
    plain = f"{room}{name}"
    return plain if plain in metrics else next((one for one in metrics if one.startswith(f"{plain}@")), plain)


def checkpoint_line(event: CheckpointSaved) -> Text:
    """What was written, and why."""
    shared = f" beside {format.size(event.shared_bytes)} unchanged" if event.shared_bytes else ""
    written = format.size(event.bytes - event.shared_bytes)
    return Text(f"saved {written}{shared} ({printable(event.reason, limit=100)})", "dim")


def finding_line(finding: Mapping[str, Any]) -> Text:
    """A finding of the doctor, and the first thing to do about it."""
    text = Text(describe_finding(finding), _SEVERITY.get(str(finding.get("severity")), ""))
    for remedy in list(finding.get("remedies", ()))[:1]:
        text.append(f" → {printable(str(remedy.get('summary', '')))}", "default")
    return text


def describe_facts(facts: Mapping[str, Any], total_steps: int) -> list[tuple[str, str]]:
    """What is known before step 1, label and text; only what is there."""
    lines: list[tuple[str, str]] = []

    def number(*path: str) -> float | None:
        value: Any = facts
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return float(value) if isinstance(value, int | float) else None

    def tell(label: str, *parts: str | None) -> None:
        if text := ", ".join(part for part in parts if part):
            lines.append((label, text))

    def worded(value: float | None, words: str) -> str | None:
        return None if value is None else f"{format.short(value)} {words}"

    frozen = number("parameters", "frozen")
    tell("model", worded(number("parameters", "total"), "parameters"), worded(frozen or None, "frozen"))
    tell("data", str(facts["source"]).replace(f"{os.getcwd()}{os.sep}", "") if facts.get("source") else None)
    tell(
        "tokens",
        worded(number("training", "tokens"), "to train on"),
        worded(number("validation", "tokens"), "to validate"),
        worded(number("tokenizer", "vocabulary_size"), "in the vocabulary"),
    )
    epochs = number("epochs")
    tell(
        "plan",
        f"{format.count(total_steps)} steps",
        worded(number("tokens_per_step"), "tokens each"),
        None if epochs is None else f"{epochs:.2g} epochs",
    )
    plan = facts.get("plan")
    if isinstance(plan, Mapping):
        compiled = plan.get("compile")
        threads = number("plan", "threads")
        tell(
            "machine",
            str(plan.get("device", "")),
            None if threads is None else f"{threads:.0f} thread{'s' if threads != 1 else ''}",
            str(plan.get("precision", "")),
            "compiled" if isinstance(compiled, Mapping) and compiled.get("chosen") else None,
        )
    yardsticks = {name: number("yardsticks", name) for name in YARDSTICKS}
    known = [f"{name} {value:.2f}" for name, value in yardsticks.items() if value is not None]
    tell("to beat", ", ".join(known) + " bits/byte" if known else None)
    tell("run", str(facts["run"]) if facts.get("run") else None)
    return lines


def panel(text: str, num_lines: int, title: str) -> Panel:
    """The first lines of a text that the model wrote."""
    lines = [line for line in printable(text, lines=True).splitlines() if line.strip()]
    shown = "\n".join(lines[:num_lines]) + (" …" if len(lines) > num_lines else "")
    body = Text(shown or " ", no_wrap=True, overflow="ellipsis")
    return Panel(body, box=box.ROUNDED, border_style="dim", style="", title=title, title_align="left", width=76)
