"""Writes the generated pages of docs/reference/ from the code.

    python docs/generate.py            write them
    python docs/generate.py --check    exit 1 naming the pages that are out of date

Nothing here imports torch: tables, commands and configuration are imported, the rest is read from the source.
"""

from __future__ import annotations

import argparse
import ast
import html
import importlib
import inspect
import json
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import typer
from pydantic_core import PydanticUndefined
from typer.models import ArgumentInfo, OptionInfo

import trimtab
from trimtab import errors as failures
from trimtab import events
from trimtab.config import ADJUSTABLE, Config, TransformerShape, list_presets, load_config
from trimtab.config.base import Section
from trimtab.config.dump import yaml_value
from trimtab.config.keys import Key, first_line, keys, listed_keys, tag_of
from trimtab.config.presets import preset_text
from trimtab.doctor.pages import codes_with_rules, page_of
from trimtab.doctor.schema import DOCTOR_SCHEMA
from trimtab.errors import TrimtabError
from trimtab.runs.metrics import METRICS

REFERENCE: Final = Path(__file__).parent / "reference"
SOURCE: Final = Path(trimtab.__file__).parent
_HEADER: Final = "<!-- Written by docs/generate.py from the code: change the code, then run it. -->\n\n"

_SAME_VARIANTS: Final = {
    "data.validation_source": "data.source",
    "decay_schedule": "schedule",
    "optimizer_switch.to": "optimizer",
    "dropout_schedule": "schedule",
}

Definition = ast.FunctionDef | ast.ClassDef


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or with --check compare them; gives the exit code."""
    parser = argparse.ArgumentParser(description="Writes docs/reference/ from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is out of date")
    check = parser.parse_args(arguments).check
    stale = {name: text for name, text in pages().items() if _current(REFERENCE / name) != text}
    for name, text in stale.items():
        if not check:
            (REFERENCE / name).parent.mkdir(parents=True, exist_ok=True)
            (REFERENCE / name).write_text(text, encoding="utf-8", newline="\n")
        print(f"docs/reference/{name} {'is out of date' if check else 'written'}")
    if check and stale:
        print("next: python docs/generate.py")
    return 1 if check and stale else 0


def pages() -> dict[str, str]:
    """File name to text of every generated page."""
    makers: dict[str, Callable[[], Iterator[str]]] = {
        "commands.md": commands,
        "configuration.md": configuration,
        "presets.md": presets,
        "metrics.md": metrics,
        "lint-rules.md": lint_rules,
        "doctor-rules.md": doctor_rules,
        "events.md": events_and_decisions,
        "adjustable.md": adjustable,
        "registries.md": registries,
        "probes.md": probes,
        "errors.md": errors,
        "python-api.md": python_api,
    }
    makers |= {f"doctor/{code}.md": partial(doctor_page, code) for code in codes_with_rules()}
    written = {name: _HEADER + "\n\n".join(part for part in make() if part) + "\n" for name, make in makers.items()}
    return written | {"doctor.schema.json": json.dumps(DOCTOR_SCHEMA, indent=1) + "\n"}


def _current(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


# ---- commands ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parameter:
    """An argument or option of a command."""

    name: str
    kind: Any
    default: Any
    info: ArgumentInfo | OptionInfo

    @property
    def shown(self) -> str:
        """As a user writes it."""
        if isinstance(self.info, ArgumentInfo):
            return f"{self.info.metavar}..." if "list" in str(self.kind) else str(self.info.metavar)
        # Inside Annotated, typer keeps the first name where the default would stand.
        given = [*(self.info.param_decls or ()), self.info.default]
        name = next((n for n in given if isinstance(n, str) and n.startswith("--")), f"--{self.name.replace('_', '-')}")
        kinds = {bool: "", int: " INTEGER", float: " NUMBER", str: " TEXT", Path: " PATH"}
        kind = self.kind
        while given := [one for one in typing.get_args(kind) if one is not type(None)]:  # list[Path] | None: of a path
            kind = given[0]
        return name + (f" {self.info.metavar}" if self.info.metavar else kinds[kind])

    @property
    def default_shown(self) -> str:
        """What it is when it is not given."""
        if self.default is inspect.Parameter.empty:
            return "must be given"
        return "" if self.default in (None, False, "") else f"`{self.default}`"


def commands() -> Iterator[str]:
    """Every command: what it does, its arguments and options."""
    from trimtab.cli import app

    yield "# Commands"
    yield _text("""
        `trimtab COMMAND --help` says the same in a terminal. How commands end: [exit codes](errors.md). With `--json` a
        command prints JSON to its standard output, and nothing else.
        """)
    for name, function in _commands(app, "trimtab"):
        parameters = list(_parameters(function))
        arguments = [one for one in parameters if isinstance(one.info, ArgumentInfo)]
        options = [one for one in parameters if isinstance(one.info, OptionInfo)]
        usage = [name, *(["[OPTIONS]"] if options else [])]
        usage += [one.shown if one.default is inspect.Parameter.empty else f"[{one.shown}]" for one in arguments]
        yield f"## {name}"
        yield str(inspect.getdoc(function))
        yield f"```text\n{' '.join(usage)}\n```"
        for kind, some in (("argument", arguments), ("option", options)):
            rows = [(f"`{one.shown}`", one.default_shown, one.info.help or "") for one in some]
            yield _table((kind, "default", "meaning"), rows)


def _commands(app: typer.Typer, prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    for command in app.registered_commands:
        assert command.callback is not None
        yield f"{prefix} {command.name or command.callback.__name__}", command.callback
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from _commands(group.typer_instance, f"{prefix} {group.name}")


def _parameters(function: Callable[..., Any]) -> Iterator[_Parameter]:
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = typing.get_args(hints[name])
        yield _Parameter(name, kind, parameter.default, info)


# ---- configuration and presets -------------------------------------------------------------------------------------


def configuration() -> Iterator[str]:
    """Every section and key, the variants of a section apart."""
    yield "# Configuration"
    yield _text("""
        Every key. A file gives some of them; the others keep the value of the `preset` that the file names, or their
        default. How files, environment and overrides go together: [change settings](../how-to/change-settings.md).
        `trimtab config explain SECTION.KEY` says the same in a terminal, and `trimtab config schema` prints a JSON
        Schema for editors.
        """)
    yield _text("""
        A section with variants is told by its `name`. Naming another variant starts the section afresh: what a preset
        or file gave for the other variant is dropped. A stretch of a run, such as `schedule.warmup`, counts steps when
        it is a whole number, is a part of the run when it is a number from 0.0 to 1.0, and may be a text with a unit:
        `500 steps`, `2e6 tokens`, `0.5 epochs`.
        """)
    yield "```yaml\npreset: gpt-1m\noptimizer: {name: adamw, learning_rate: 1e-3}\ntraining:\n  steps: 500\n```"
    yield "## At the top"
    yield _key_table(key for key in _keys_of(Config, "") if not key.sections)
    yield from _sections([Config], "", 2)
    yield from _lists()


def _keys_of(section: type[Section], prefix: str) -> list[Key]:
    return [next(key for key in keys()[prefix + name] if key.owner is section) for name in section.model_fields]


def _sections(owners: Sequence[type[Section]], prefix: str, level: int) -> Iterator[str]:
    """What stands below the sections `owners`, which are variants of one another, in the order of their fields."""
    told: set[str] = set()
    for key in [key for owner in owners for key in _keys_of(owner, prefix) if key.sections]:
        if key.path in told:
            continue
        told.add(key.path)
        variants = list(key.sections.values())
        yield f"{'#' * level} {key.path}"
        having = [str(tag_of(one.owner)) for one in keys()[key.path]]
        if len(having) < len(owners):
            yield f"With `{prefix}name: {', '.join(having)}`."
        if len(variants) == 1:
            yield first_line(variants[0])
            yield _key_table(one for one in _keys_of(variants[0], f"{key.path}.") if not one.sections)
        else:
            yield _introduction(key)
            if key.path in _SAME_VARIANTS:
                continue
            for name, variant in key.sections.items():
                yield f"**`name: {name}`**"
                yield first_line(variant)
                own = [one for one in _keys_of(variant, f"{key.path}.") if not one.sections and not one.is_tag]
                yield _key_table(own)
        yield from _sections(variants, f"{key.path}.", level + 1)
        for entry in [one for one in _keys_of(variants[0], f"{key.path}.") if set(one.entries) == {""}]:
            section = entry.entries[""]
            yield f"{'#' * (level + 1)} {entry.path}"
            yield f"{first_line(section)} Each has a name of yours, NAME."
            fields = section.model_fields.items()
            yield _key_table(Key(f"{entry.path}.NAME.{name}", section, field, {}) for name, field in fields)


def _lists() -> Iterator[str]:
    """The sections that stand in lists, each with its keys."""
    for several in keys().values():
        for key in (one for one in several if one.is_list and one.entries):
            yield f"## {key.path}, a list"
            yield f"{key.description[:1].upper()}{key.description[1:]}. A name alone is the section with its defaults."
            for name, section in key.entries.items():
                yield f"**`name: {name}`**"
                yield first_line(section)
                listed = [one for found in listed_keys().values() for one in found if one.owner is section]
                yield _key_table(one for one in listed if one.path.startswith(f"{key.path}[].") and not one.is_tag)


def _introduction(key: Key) -> str:
    own = key.description if key.description not in map(first_line, key.sections.values()) else ""
    said = f"{own[:1].upper()}{own[1:].rstrip('.')}. " if own else ""
    if key.path in _SAME_VARIANTS:
        there = _SAME_VARIANTS[key.path]
        return f"{said}Its variants are those of [{there}](#{there.replace('.', '')})."
    return f"{said}One of {len(key.sections)} variants; if not given, `{key.default_name}`."


def _key_table(shown: Iterable[Key]) -> str:
    rows = []
    for key in shown:
        default = "must be given" if key.default is PydanticUndefined else f"`{yaml_value(key.default)}`"
        takes = re.sub("(?<=text that matches )(.+)", r"`\1`", key.allowed)
        rows.append((f"`{key.path}`", takes, default, key.description))
    return _table(("key", "takes", "default", "meaning"), rows)


def presets() -> Iterator[str]:
    """Every preset, with its text."""
    yield "# Presets"
    yield _text("""
        A preset is a configuration to start from: `trimtab train PRESET`, or `preset: PRESET` in a file. Which one to
        take: [choose a preset](../how-to/choose-a-preset.md). `trimtab config show PRESET` prints one with every
        default filled in.
        """)
    yield _table(("preset", "what it is for"), [(f"[{name}](#{name})", text) for name, text in list_presets().items()])
    head = ("preset", "layers", "hidden size", "sequence length", "steps", "tokens in a step", "tokens in all")
    rows = []
    for name in list_presets():
        config = load_config(name, environment={})
        model, tokens = config.model, config.tokens_per_step
        ours = isinstance(model, TransformerShape)
        shape = (f"{model.num_layers:,}", f"{model.hidden_size:,}") if ours else ("as the model has it", "")
        numbers = (config.data.sequence_length, config.training.steps, tokens, tokens * config.training.steps)
        rows.append((name, *shape, *(f"{number:,}" for number in numbers)))
    yield _table(head, rows)
    for name in list_presets():
        yield f"## {name}"
        yield f"```yaml\n{preset_text(name).rstrip()}\n```"


# ---- literal tables ------------------------------------------------------------------------------------------------


def metrics() -> Iterator[str]:
    """The table of metrics."""
    yield "# Metrics"
    yield _text("""
        What trimtab may write, from `runs/metrics.py`. Names with `<…>` stand for a family. Losses are sums over
        counted tokens divided by counts ([exact losses](../explanation/exact-losses.md)). *Window* says how the steps
        of a window become what is written: `per step` keeps one value for each step, and what is measured by an
        evaluation says so. *Ranks* says how the values of several processes would become one; this version trains in
        one process.
        """)
    rows = [
        (f"`{name}`", m.unit, m.better, m.window.replace("_", " "), m.ranks, m.writer, m.description)
        for name, m in METRICS.items()
    ]
    yield _table(("metric", "unit", "better", "window", "ranks", "measured by", "what it is"), rows)
    yield "Where they are kept: [the run directory](run-directory.md)."


def adjustable() -> Iterator[str]:
    """The table of what may be changed in a running run."""
    yield "# What may be adjusted"
    yield _text("""
        What a controller may change while a run goes on, with the decision `Adjust`; nothing else may. A *setting* is
        a number that the step reads from the device: the controller gives a factor, and the value in use is the
        schedule's times one factor for each controller. A *structure* change gives the new value itself. An `Adjust`
        of another name, out of range, or of what a run has not (dropout, label smoothing, a z-loss, clipping, weight
        decay) is recorded as overruled, and changes nothing.
        """)
    rows = [
        (f"`{name}`", entry.kind, f"{entry.low:g}", f"{entry.high:g}", entry.description)
        for name, entry in ADJUSTABLE.items()
    ]
    yield _table(("name", "kind", "lowest", "highest", "meaning"), rows)
    yield "When a decision takes effect: [windows and decisions](../explanation/windows-and-decisions.md)."


def registries() -> Iterator[str]:
    """What can be chosen by name in a configuration."""
    yield "# Registries"
    yield _text("""
        What can be chosen by name, from the literal tables in `config/registry/`. A part of your own needs no entry:
        [extend](../how-to/extend.md). *Needs* names extras that must be installed. *Compilable* parts may be compiled
        by `torch.compile`; *capturable* ones may run inside a CUDA graph: with another the step is not captured,
        as the run then says. *Storage* is what an optimizer works on: all parameters in one buffer (`flat`) or each
        where it is (`per_tensor`); *state* what it keeps in memory besides weights and gradients. One that *decouples*
        lets weight decay act on the weight alone; one that *fuses clip* applies the factor of clipping in the
        update's own pass.
        """)
    tables: list[tuple[str, str, str, str, tuple[str, ...]]] = [
        ("Models", "model.name", "model", "MODELS", ("compilable", "capturable")),
        (
            "Optimizers",
            "optimizer.name",
            "optimizer",
            "OPTIMIZERS",
            ("needs", "capturable", "decouples", "fuses clip", "storage", "state", "cost"),
        ),
        ("Averages of the weights", "averaging.name", "averaging", "AVERAGES", ("capturable", "state")),
        ("Schedules", "schedule.name", "schedules", "SCHEDULES", ()),
        ("Tasks", "task.name", "objective", "TASKS", ()),
        ("Objectives", "objective.name", "objective", "OBJECTIVES", ("compilable", "capturable")),
        ("Sources of text", "data.source.name", "data", "SOURCES", ("needs",)),
        ("Tokenizers", "data.tokenizer.name", "data", "TOKENIZERS", ()),
        ("Controllers", "", "control", "CONTROLLERS", ()),
        ("Sinks", "sinks", "monitor", "SINKS", ("needs",)),
    ]
    for title, setting, room, table, flags in tables:
        specs = getattr(importlib.import_module(f"trimtab.config.registry.{room}"), table)
        yield f"## {title}"
        yield f"Chosen with `{setting}`." if setting else "Built as the configuration asks for them."
        rows = []
        for name, spec in specs.items():
            shown = {
                "compilable": "yes" if spec.compilable else "no",
                "capturable": "yes" if spec.capturable else "no",
                "storage": ", ".join(f"`{layout}`" for layout in spec.layouts),
                "state": spec.state,
                "cost": spec.cost,
                "decouples": "yes" if spec.decouples else "no",
                "fuses clip": "yes" if spec.fuses_clip else "no",
                "needs": ", ".join(spec.needs),
            }
            cells = [shown[flag] for flag in flags]
            rows.append((f"`{name}`", spec.description, *cells, spec.source, f"`{spec.path}`"))
        yield _table(("name", "what it is", *flags, "source", "where"), rows)


def probes() -> Iterator[str]:
    """What is read of a model, how often, at what cost, and for which findings."""
    module = importlib.import_module("trimtab.config.registry.examinations")

    def codes(spec: Any) -> str:
        return ", ".join(f"[{code}](doctor-rules.md)" for code in spec.serves)

    yield "# Probes"
    yield _text("""
        What is read of a model, from the literal tables in `config/registry/examinations.py`. What the numbers mean:
        [what is measured](../explanation/what-is-measured.md). How to ask for more, and how to write one of your own:
        [examine a model](../how-to/examine-a-model.md).
        """)
    yield "## In the step"
    yield "Read on the device, inside the step, whether it is compiled or captured or neither. A closed set."
    yield _table(
        ("what", "asked for by", "when", "cost", "findings", "where"),
        (
            (spec.sentence, f"`{spec.switch}`", spec.cadence, spec.cost, codes(spec), f"`{spec.path}`")
            for spec in module.INLINE.values()
        ),
    )
    yield "## Examinations"
    yield _text("""
        Chosen with `logging.examine.which`; made at the steps that `logging.examine.every`, `at_evaluations` and
        `apart` name. All share one eager forward and backward pass on the probe batch; the cost is what each adds to
        it. All are made where nothing is said.
        """)
    yield _table(
        ("name", "what", "cost", "findings", "where"),
        (
            (f"`{name}`", spec.sentence, spec.cost, codes(spec), f"`{spec.path}`")
            for name, spec in module.EXAMINATIONS.items()
        ),
    )


def lint_rules() -> Iterator[str]:
    """Every rule: its docstring is its page."""
    rules: Mapping[str, Any] = importlib.import_module("trimtab.doctor.lint").RULES
    yield "# Lint rules"
    yield _text("""
        `trimtab check` looks a configuration over before it costs compute, and `trimtab train` does the same before it
        begins. A `refusal` ends the command with exit code 2 unless `lint.allow` names its code. `check` tells all
        findings; a run tells refusals and warnings. A rule that needs a fact which is known only once the data and
        the model are there, such as the number of parameters, says nothing before.
        """)
    parsed = {code: _rule(rule) for code, rule in rules.items()}
    rows = [(f"[{code}](#{code})", severity, title) for code, (severity, title, _) in parsed.items()]
    yield _table(("code", "severity", "in a sentence"), rows)
    for code, (severity, title, body) in parsed.items():
        yield f"## {code}"
        yield f"{title} Severity: {severity}."
        yield body


def doctor_rules() -> Iterator[str]:
    """Every rule over a run's record in a line, and the closed table of codes."""
    codes = codes_of_all()
    yield "# What the doctor finds"
    yield _text("""
        `trimtab doctor` reads the record of a run, or the log of another trainer, and asks these rules; so does every
        run at its evaluations and at its end. A rule speaks only when what it needs was logged; otherwise its finding
        is withheld, and the diagnosis says what to log. When one finding explains another, it leads, and the other is
        listed under it. Each has a page with a picture of a real run; `trimtab doctor --explain CODE` says the same in
        a terminal.
        """)
    rules = codes_with_rules()
    rows = [
        (f"[{code}](doctor/{code}.md)", codes[code].kind, _list(codes[code].signals), codes[code].sentence)
        for code in rules
    ]
    yield _table(("code", "kind", "needs", "says that"), rows)
    yield "## All codes"
    yield _text("""
        The table is closed: no finding has another code. Those without a rule above are to come; `lint` marks what a
        [configuration](lint-rules.md) shows before it costs compute.
        """)
    shown = [(f"[{code}](doctor/{code}.md)" if code in rules else code, row) for code, row in codes.items()]
    yield _table(("code", "kind", "says that"), [(code, row.kind, row.sentence) for code, row in shown])


def doctor_page(code: str) -> Iterator[str]:
    """One rule: its docstring, with a picture of what it finds in a real run."""
    page, rules = page_of(code), codes_with_rules()
    yield f"# {code}"
    yield page.sentence[:1].upper() + page.sentence[1:]
    picture = REFERENCE / "doctor" / f"{code}.svg"
    if picture.exists():
        told = ElementTree.parse(picture).getroot().findtext("{http://www.w3.org/2000/svg}desc") or ""
        yield f"![{code}: curves of a real run]({code}.svg)"
        yield f"{html.escape(told, quote=False)} Shaded is what shows it; the dashed line is where it begins."
    yield "\n".join(f"- **{heading}**: {text}" if heading else f"- {text}" for heading, text in page.parts)
    linked = {name: f"[{name}]({name}.md)" if name in rules else f"`{name}`" for name in codes_of_all()}
    facts = [
        ("kind", page.kind),
        ("in a sentence", codes_of_all()[code].sentence),
        ("needs", _list(page.needs)),
        ("judged for", _list(page.tasks)),
        ("explains", ", ".join(linked[one] for one in page.explains)),
        ("explained by", ", ".join(linked[one] for one in page.explained_by)),
    ]
    yield _table(("", ""), [(name, told) for name, told in facts if told])
    yield _text("""
        When both are found, what explains another leads, and the other is listed under it.
        [All that the doctor finds](../doctor-rules.md), [how to ask it](../../how-to/ask-the-doctor.md).
        """)


def codes_of_all() -> Mapping[str, Any]:
    """The closed table."""
    codes: Mapping[str, Any] = importlib.import_module("trimtab.doctor.codes").CODES
    return codes


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _rule(rule: Callable[..., Any]) -> tuple[str, str, str]:
    """Severity, sentence and body of the page of a rule."""
    module = sys.modules[rule.__module__]
    title, _, body = inspect.cleandoc(module.__doc__ or "").partition("\n\n")
    calls = [node for node in ast.walk(_parse(Path(str(module.__file__)))) if isinstance(node, ast.Call)]
    given = [
        node.value
        for call in calls
        if ast.unparse(call.func) == "LintFinding"
        for node in ast.walk(call.args[1])
        if isinstance(node, ast.Constant)
    ]
    severity = " or ".join(one for one in ("refusal", "warning", "info") if one in given)
    sentence = title.partition(": ")[2]
    items = re.sub(r"\n +", "\n  ", re.sub(r"(?m)^([A-Z][A-Za-z ]+): ", r"- **\1**: ", body))
    return severity, sentence[:1].upper() + sentence[1:], items


EXIT_CODES: Final = {
    0: "done; a run that stopped early is done, and so is a finished run that is asked to go on",
    2: "usage or configuration: nothing was trained",
    3: "data: missing, not readable, or too little",
    4: "numerics: too many updates on end were not finite",
    5: "storage or checkpoint: a disk, a damaged checkpoint, or a second writer in one run",
    6: "findings at or above `doctor --fail-on`",
    7: "resources: out of memory, a worker that died, or a run that stood still",
    70: "a fault in trimtab: please report it",
    75: "interrupted once: a checkpoint was saved; run again to go on",
    130: "interrupted twice: ended at once",
}


def errors() -> Iterator[str]:
    """The error tree and every exit code."""
    classes = [kind for kind in vars(failures).values() if isinstance(kind, type) and issubclass(kind, TrimtabError)]
    constants = [value for name, value in vars(failures).items() if name.startswith("EXIT_")]
    codes = sorted({*constants, *(kind.exit_code for kind in classes)})
    if codes != sorted(EXIT_CODES):
        raise SystemExit(f"docs/generate.py: EXIT_CODES has {sorted(EXIT_CODES)}, the code has {codes}")
    yield "# Errors and exit codes"
    yield "## Exit codes"
    names = {code: ", ".join(f"`{kind.__name__}`" for kind in classes if kind.exit_code == code) for code in codes}
    yield _table(("code", "meaning", "errors"), [(f"`{code}`", EXIT_CODES[code], names[code]) for code in codes])
    yield _text("""
        An error is one message on the standard error: what is wrong and where, what was received, what is allowed, then
        a line that begins with `hint:`. How to act on exit codes: [use in scripts](../how-to/use-in-scripts.md).
        """)
    yield "## The error tree"
    yield "All are in `trimtab.errors`."
    drawn = inspect.cleandoc(failures.__doc__ or "").split("\n\n")[1]
    yield f"```text\n{textwrap.dedent(drawn)}\n```"
    rows = [(f"`{kind.__name__}`", f"`{kind.exit_code}`", inspect.getdoc(kind)) for kind in classes]
    yield _table(("error", "exit code", "what it is"), rows)


# ---- read from the source: events, Python API ----------------------------------------------------------------------


def events_and_decisions() -> Iterator[str]:
    """Every event and decision, with its fields."""
    classes = {node.name: node for node in _parse(SOURCE / "events.py").body if isinstance(node, ast.ClassDef)}
    yield "# Events and decisions"
    yield _text("""
        What happens in a run, as values on the host; all are in `trimtab.events`. The same events are the lines of
        [the record](run-directory.md#recordjsonl). When they come, and when a decision takes effect:
        [windows and decisions](../explanation/windows-and-decisions.md).
        """)
    unions = {"Events": typing.get_args(events.Event), "Decisions": typing.get_args(events.Decision)}
    for title, kinds in unions.items():
        yield f"## {title}"
        for kind in kinds:
            yield f"### {kind.__name__}"
            yield _docstring(classes[kind.__name__])
            yield _fields(classes[kind.__name__])
    yield "## Who looks and who steers"
    for name in ("Monitor", "Controller"):
        yield f"### {name}"
        yield _docstring(classes[name])
        yield _methods(classes[name])


def python_api() -> Iterator[str]:
    """What `import trimtab` gives, the rest of trainer.py, the conformance tests, and the names of every room."""
    yield "# Python API"
    yield _text("""
        `import trimtab` takes a moment only: the names below load torch when they are first used. A walk through them:
        [from Python](../tutorial/from-python.md).
        """)
    yield "## trimtab"
    for name in (name for name in trimtab.__all__ if not name.startswith("__")):
        yield from _definition("trimtab", trimtab._WHERE[name], name)
    assembly = _parse(SOURCE / "assembly.py").body
    yield "## trimtab.assembly"
    for node in assembly:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield from _definition("trimtab.assembly", "trimtab.assembly", node.name)
    yield "## trimtab.testing"
    yield str(ast.get_docstring(_parse(_file("trimtab.testing"))))
    for name in _exports("trimtab.testing"):
        yield from _definition("trimtab.testing", "trimtab.testing", name)
    yield "## The rooms"
    yield "What each package of trimtab exports, in a line; the docstrings say the rest."
    for room in sorted(path.parent.name for path in SOURCE.glob("*/__init__.py")):
        yield f"### trimtab.{room}"
        yield str(ast.get_docstring(_parse(_file(f"trimtab.{room}"))))
        ordered = sorted(_exports(f"trimtab.{room}"), key=str.lower)
        yield _table(("name", "what it is"), [(f"`{one}`", _one_line(f"trimtab.{room}", one)) for one in ordered])


def _definition(shown_in: str, module: str, name: str) -> Iterator[str]:
    node = _find(module, name)
    if not isinstance(node, Definition):
        raise SystemExit(f"docs/generate.py: {module} defines no class or function {name}")
    yield f"### {shown_in}.{name}"
    if isinstance(node, ast.FunctionDef):
        yield f"```python\n{_signature(node)}\n```"
        yield _docstring(node)
        return
    made = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
    if made is not None:
        yield f"```python\n{_signature(made, name)}\n```"
    yield _docstring(node)
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        yield _fields(node)
    yield _methods(node)


def _methods(node: ast.ClassDef) -> str:
    lines = []
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or method.name.startswith("_"):
            continue
        shown = _signature(method).replace("(\n    ", "(").replace(",\n)", ")").replace("\n   ", "")
        if any(ast.unparse(decorator) == "property" for decorator in method.decorator_list):
            shown = shown.replace("() -> ", ": ")
        lines.append(f"- `{shown}`: {' '.join(_docstring(method).split())}")
    return "\n".join(lines)


def _fields(node: ast.ClassDef) -> str:
    rows = []
    for field, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            default = "" if field.value is None else f"`{ast.unparse(field.value)}`"
            default = re.sub(r"field\(default_factory=(\w+)\)", r"\1()", default)
            name, kind = ast.unparse(field.target), ast.unparse(field.annotation)
            rows.append((f"`{name}`", f"`{kind}`", default, _said(following)))
    return _table(("field", "type", "default", "meaning"), rows)


def _said(statement: ast.stmt | None) -> str:
    """The text of a statement that is a docstring."""
    is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return " ".join(str(ast.literal_eval(statement.value)).split()) if is_text else ""  # type: ignore[union-attr]


def _signature(node: ast.FunctionDef, name: str | None = None) -> str:
    """The call, without self; on one line when it fits, else one parameter a line."""
    given = node.args
    defaults = [None] * (len(given.args) - len(given.defaults)) + list(given.defaults)
    parts = [_parameter(*pair) for pair in zip(given.args, defaults, strict=True) if pair[0].arg != "self"]
    if given.kwonlyargs:
        parts += ["*", *(_parameter(*pair) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True))]
    returns = "" if node.returns is None or name is not None else f" -> {ast.unparse(node.returns)}"
    flat = f"{name or node.name}({', '.join(parts)}){returns}"
    if len(flat) <= 100:
        return flat
    return f"{name or node.name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    annotation = "" if argument.annotation is None else f": {ast.unparse(argument.annotation)}"
    return f"{argument.arg}{annotation}" + ("" if default is None else f" = {ast.unparse(default)}")


def _one_line(module: str, name: str) -> str:
    """What a public name is: the beginning of its docstring, or the text below its assignment, or its value."""
    node = _find(module, name)
    if isinstance(node, Definition):
        return " ".join(_docstring(node).partition("\n\n")[0].split())
    if isinstance(node, tuple):
        statement, following = node
        value = getattr(statement, "value", None)
        shown = "" if value is None else ast.unparse(value)
        return _said(following) or (f"`{shown}`" if 0 < len(shown) < 80 else "")
    return ""


@cache
def _find(module: str, name: str) -> Definition | tuple[ast.stmt, ast.stmt | None] | None:
    """Where `module`, or a module that it imports `name` from, defines it."""
    body = _parse(_file(module)).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        match statement:
            case ast.FunctionDef() | ast.ClassDef() if statement.name == name:
                return statement
            case ast.Assign(targets=[ast.Name(id=found)]) | ast.AnnAssign(target=ast.Name(id=found)) if found == name:
                return statement, following
            case ast.ImportFrom(module=str(origin), names=aliases) if name in [one.name for one in aliases]:
                return _find(origin, name) if origin.startswith("trimtab") else None
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=lazy):  # names that are loaded when they are first used
                for node in lazy:
                    if isinstance(node, ast.ImportFrom) and name in [one.name for one in node.names]:
                        origin = str(node.module)
                        return _find(origin, name) if origin.startswith("trimtab") else None
    return None


def _exports(module: str) -> list[str]:
    found = _find(module, "__all__")
    return ast.literal_eval(found[0].value) if isinstance(found, tuple) else []  # type: ignore[attr-defined]


def _file(module: str) -> Path:
    path = SOURCE.joinpath(*module.split(".")[1:])
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


# ---- Markdown ------------------------------------------------------------------------------------------------------


def _docstring(node: Definition) -> str:
    """The docstring as Markdown: what is indented is no code here."""
    return re.sub(r"\n +", " ", ast.get_docstring(node) or "")


def _text(paragraph: str) -> str:
    return textwrap.dedent(paragraph).strip()


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines]) if lines else ""


def _cell(text: Any) -> str:
    """Text with `code` in it, as a cell: a bar must not end it, and < must not begin a tag."""
    parts = " ".join(str(text).split()).split("`")
    for index, part in enumerate(parts):
        if index % 2 == 0:
            parts[index] = part.replace("<", "&lt;").replace("|", "\\|")
        else:
            bars = html.escape(part, quote=False).replace("|", "&#124;")
            parts[index] = f"<code>{bars}</code>" if "|" in part else f"`{part}`"
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(main())
