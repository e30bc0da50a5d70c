"""The rest of the page: numbers, samples, decisions, time, data and model, settings, machine, how to do it again."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.report import words
from trimtab.report.blocks import command, folded, scrolled
from trimtab.report.gather import Report
from trimtab.report.markup import Content, Markup, element, join, percentage
from trimtab.runs import format
from trimtab.runs.goodput import shares
from trimtab.runs.machine import describe_machine, describe_parts

SAMPLE_CHARACTERS = 2000


def samples(report: Report) -> Markup:
    """What the model wrote, the newest open."""
    parts = []
    for index, artifact in enumerate(report.samples):
        prompt = _prompt(report, artifact.name)
        is_last = index == len(report.samples) - 1
        parts.append(
            folded(
                f"Step {format.count(artifact.step)}",
                artifact.name + (f", after “{prompt}”" if prompt else ""),
                element("pre", _clipped(artifact.text), class_="sample"),
                is_open=is_last,
            )
        )
    return join(parts)


def decisions(report: Report) -> Markup:
    """What steered the run."""
    rows = [
        element("tr", element("td", format.count(step), class_="n"), element("td", told))
        for step, told in report.steered()
    ]
    head = element("tr", element("th", "step", class_="n"), element("th", "who: what: why"))
    parts: list[Content] = [scrolled(element("table", head, rows)) if rows else None]
    if report.num_saves:
        times = "once" if report.num_saves == 1 else f"{format.count(report.num_saves)} times"
        parts.append(element("p", f"Checkpoints were asked for {times}.", class_="soft"))
    kept = [
        element(
            "tr",
            element("td", format.count(step), class_="n"),
            element("td", element("code", path)),
            element("td", format.size(size), class_="n"),
            element("td", reason),
        )
        for step, path, size, reason in report.checkpoints
    ]
    if kept:
        names = [
            element("th", "step", class_="n"),
            element("th", "checkpoint"),
            element("th", "size", class_="n"),
            element("th", "kept for"),
        ]
        parts.append(scrolled(element("table", element("tr", names), kept)))
    return join(parts)


def time_split(report: Report) -> Markup:
    """Where the time went, as one bar."""
    whole = sum(report.time_split.values())
    if whole <= 0:
        return Markup()
    percents = shares(report.time_split)
    parts = sorted(((name, part) for name, part in report.time_split.items() if part > 0), key=lambda item: -item[1])
    at, bars, keys = 0.0, [], []
    for index, (name, seconds) in enumerate(parts):
        colour = f"split-{min(index, 5)}"
        title = element("title", f"{name}: {format.duration(seconds)}")
        bars.append(
            element(
                "rect",
                title,
                class_=colour,
                x=percentage(at / whole),
                width=percentage(seconds / whole),
                y=0,
                height=26,
            )
        )
        swatch = element(
            "svg",
            element("rect", class_=colour, width=12, height=12, rx=3),
            width=12,
            height=12,
            class_="swatch",
            aria_hidden="true",
        )
        keys.append(
            element(
                "span",
                swatch,
                f"{name} ",
                element("b", format.duration(seconds)),
                f" {percents[name]:.1f} %",
            )
        )
        at += seconds
    label = ", ".join(f"{name} {format.duration(seconds)}" for name, seconds in parts)
    bar = element("svg", bars, class_="split", width="100%", height=26, role="img", aria_label=f"time: {label}")
    down = f"Down between attempts, not counted above: {format.duration(report.down_seconds)}."
    told = [
        down if report.down_seconds > 0 else "",
        f"Of a step: {parts_of_step}." if (parts_of_step := describe_parts(report.machine)) else "",
        f"The machine: {machine}." if (machine := describe_machine(report.machine)) else "",
        *(f"Profiled, {found}." for found in report.profiles),
    ]
    return join(bar, element("p", keys, class_="keys"), [element("p", line) for line in told if line])


def data_and_model(report: Report) -> Markup:
    """What was trained on what in a sentence, then all that was known before the first step."""
    facts: dict[str, Mapping[str, Any]] = {
        "run": {key: value for key, value in report.facts.items() if not isinstance(value, Mapping)}
    }
    facts |= {key: value for key, value in report.facts.items() if isinstance(value, Mapping)}
    facts |= {"execution": {key: value for key, value in report.plan.items() if not isinstance(value, Mapping)}}
    facts |= {key: value for key, value in report.plan.items() if isinstance(value, Mapping)}
    groups = join([_pairs(name, values) for name, values in facts.items()])
    if not groups:
        return Markup()
    num = sum(len(values) for values in facts.values())
    told = _in_short(report)
    return join(
        element("p", told) if told else None,
        folded("All facts", f"{num} in all", element("div", groups, class_="facts")),
    )


def _in_short(report: Report) -> str:
    """Data, model and budget, as far as they are known."""
    facts = report.facts

    def known(*path: str) -> float | None:
        value: Any = facts
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    source, device = facts.get("source"), facts.get("device")
    counts = [
        (known("training", "tokens"), "training tokens"),
        (known("validation", "tokens"), "validation tokens"),
        (known("tokenizer", "vocabulary_size"), "tokens in the vocabulary"),
        (known("parameters", "total"), "parameters"),
        (known("tokens_per_step"), "tokens a step"),
    ]
    parts = [
        f"{format.count(value) if value < 100_000 else format.short(value)} {what}" for value, what in counts if value
    ]
    parts = [str(source)] * isinstance(source, str) + parts + [f"on {device}"] * isinstance(device, str)
    return ", ".join(parts) + "." if parts else ""


def settings(report: Report) -> Markup:
    """What was set otherwise than the preset or the defaults, then all settings."""
    parts: list[Content] = []
    if report.differences:
        rows = [
            element(
                "tr",
                element("td", element("code", key)),
                element("td", element("code", words.value_text(was))),
                element("td", element("code", words.value_text(here)), class_="now"),
            )
            for key, was, here in report.differences
        ]
        names = element("tr", element("th", "setting"), element("th", report.base), element("th", "this run"))
        parts.append(scrolled(element("table", names, rows)))
    elif report.settings:
        parts.append(element("p", f"All settings are those of {report.base}."))
    if report.settings:
        keys = sorted(report.settings, key=lambda key: key.partition(".")[0])
        groups = [
            _pairs(name, {key.partition(".")[2] or key: report.settings[key] for key in members}, is_yaml=True)
            for name, members in itertools.groupby(keys, key=lambda key: key.partition(".")[0])
        ]
        parts.append(folded("All settings", f"{len(report.settings)} in all", element("div", groups, class_="facts")))
    return join(parts)


def environment(report: Report) -> Markup:
    """Versions, code and machine."""
    flat = {key: value for key, value in report.environment.items() if not isinstance(value, Mapping)}
    groups = [_pairs(name, value) for name, value in report.environment.items() if isinstance(value, Mapping)]
    inner = join(_pairs("process", flat), groups)
    return folded("Machine and versions", _machine(report), element("div", inner, class_="facts")) if inner else inner


def reproduce(report: Report) -> Markup:
    """The commands that made the run, and that make it again."""
    if not report.path:
        return Markup()
    parts: list[Content] = []
    git, folder = report.environment.get("git"), report.environment.get("working_directory")
    kept = f"trimtab train {words.quoted(report.kept)}" if report.kept else ""
    if report.again:
        where = (
            f"The same again, into a new directory, in {folder}:" if folder else "The same again, into a new directory:"
        )
        parts += [element("p", where, class_="soft"), command(report.again)]
    if kept and report.again not in ("", kept):
        why = "With the settings as they were, whatever the file or preset says by now:"
        parts += [element("p", why, class_="soft"), command(kept)]
    if isinstance(git, Mapping) and git.get("commit"):
        state = " with changes that were not committed" if git.get("dirty") else ""
        parts.append(
            element("p", "The code was commit ", element("code", str(git["commit"])), state, ".", class_="soft")
        )
    return join(parts)


def _machine(report: Report) -> str:
    hardware = report.environment.get("hardware")
    if not isinstance(hardware, Mapping):
        return ""
    gpu = hardware.get("gpu")
    device = gpu.get("name") if isinstance(gpu, Mapping) else gpu
    parts = [str(device or hardware.get("cpu") or ""), f"{hardware['cores']} cores" if "cores" in hardware else ""]
    return ", ".join(part for part in parts if part)


def _pairs(title: str, values: Mapping[str, Any], *, is_yaml: bool = False) -> Markup:
    rows = [
        element(
            "tr",
            element("td", str(key) if is_yaml else str(key).replace("_", " ")),
            element("td", words.value_text(value) if is_yaml else _fact(str(key), value)),
        )
        for key, value in values.items()
        if value is not None or is_yaml
    ]
    return element("div", element("h3", title.replace("_", " ")), element("table", rows)) if rows else Markup()


def _fact(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if key in ("bytes", "memory_bytes") or key.endswith("_bytes"):
            return format.size(value)
        if key.endswith("_seconds"):
            return format.duration(value)
        return format.count(value) if float(value).is_integer() and abs(value) < 1e15 else format.decimal(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(str(name), part)}" for name, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_fact("", part) for part in value)
    shown = str(value)
    return shown[:12] if len(shown) in (40, 64) and all(digit in "0123456789abcdef" for digit in shown) else shown


def _prompt(report: Report, name: str) -> str:
    number = name.rpartition("-")[2]
    return report.prompts[int(number)] if number.isdecimal() and int(number) < len(report.prompts) else ""


def _clipped(text: str) -> str:
    text = text.strip("\n")
    if len(text) <= SAMPLE_CHARACTERS:
        return text or "(nothing)"
    return text[:SAMPLE_CHARACTERS] + f"\n… and {format.count(len(text) - SAMPLE_CHARACTERS)} more characters"
