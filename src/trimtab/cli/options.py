"""What commands share: the application, options, and how things are printed."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

import typer
import typer.core

if TYPE_CHECKING:
    pass


app = typer.Typer(
    name="trimtab",
    help="Trains transformers, watches every run, and says in plain words what happens and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@final
class TakesSettings(typer.core.TyperCommand):
    """A command that answers an unknown option with the setting that is meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # By its attribute: typer brings a click of its own, whose name is not public.
            if (option := getattr(error, "option_name", None)) and (hint := _setting_for(option, given, ctx)):
                vars(error).update(message=f"No such option: {option}\nhint: {hint}", possibilities=None)
            raise


def _setting_for(option: str, given: list[str], ctx: Any) -> str | None:
    """How the setting is given that `option` most likely means; None when an option is meant."""
    from trimtab.config import Config
    from trimtab.config.keys import keys
    from trimtab.config.nearest import did_you_mean, likeness, nearest_keys, remark

    name = option.lstrip("-")
    if any(likeness(name, one) > 0.7 for parameter in ctx.command.params for one in parameter.opts):
        return None
    near = nearest_keys((), name, Config.model_fields, keys())
    if not near:
        return "settings have no dashes: SECTION.KEY=VALUE"
    after = [word for index, word in enumerate(given) if index and given[index - 1] == option]
    after += [word.partition("=")[2] for word in given if word.startswith(f"{option}=")]
    value = after[0] if after and remark(name) is None else "VALUE"
    said = f"settings have no dashes: {near[0]}={value}" if len(near) == 1 else did_you_mean(near)
    said = f"{said}." if remark(name) else said
    return " ".join(filter(None, (said, remark(name))))


Json = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]


Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings that override all others.")
]


Source = Annotated[str, typer.Argument(metavar="CONFIG|PRESET", help="A YAML or TOML file, or the name of a preset.")]


Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]


NewestRun = Annotated[
    Path | None, typer.Argument(metavar="RUN", help="A run directory; the newest in runs/ if not given.")
]


Which = Annotated[str, typer.Option("--checkpoint", help="best, latest, or the number of a step.")]


LogFormat = Annotated[str, typer.Option("--log-format", help="text, or json for one event a line.")]


Mapping = Annotated[
    list[str] | None, typer.Option("--map", metavar="THEIRS=OURS", help="What a metric of a foreign log is to us.")
]


Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="plain, or an average that the checkpoint has, such as ema; if not given, what the run selects by.",
    ),
]


MaxRestarts = Annotated[
    int,
    typer.Option(
        "--max-restarts",
        min=0,
        help="How often to begin again after a crash, from the newest whole checkpoint; 0: without a supervisor.",
    ),
]


AcceptDrift = Annotated[
    bool, typer.Option("--accept-drift", help="Go on although the configuration, data or versions differ.")
]


def tell_next(*arguments: str) -> None:
    """Say what to run next, so that it works as typed."""
    from trimtab.runs.program import command

    typer.echo(f"next: {shown(command(*arguments))}")


def terminal_width() -> int | None:
    """Columns of the terminal that is written to, from 60 to 114; None where it is a file or a pipe."""
    return max(60, min(shutil.get_terminal_size().columns, 114)) if sys.stdout.isatty() else None


def in_terminal(text: str, indent: int) -> str:
    """`text` in lines that fit the terminal that is written to; what is broken goes on after `indent` spaces."""
    width = terminal_width()
    if width is None:
        return text
    lines = text.split("\n")
    parts = (textwrap.wrap(line, width, subsequent_indent=" " * indent, break_on_hyphens=False) for line in lines)
    return "\n".join(part for several in parts for part in several or [""])


def shown(value: object, *, lines: bool = False) -> str:
    """What came from outside, such as a path, made harmless for a terminal."""
    from trimtab.runs.printable import printable

    return printable(str(value), lines=lines)


def print_json(value: Any) -> None:
    """For machines: numbers that are not finite as null."""
    from trimtab.runs.files import json_value

    typer.echo(json.dumps(json_value(value), indent=2, allow_nan=False))
