"""Commands before a run: check, plan, find-lr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

if TYPE_CHECKING:
    from trimtab.config import Config
    from trimtab.planning.counts import ModelCounts

from trimtab.cli.options import Json, Overrides, Source, TakesSettings, app, in_terminal, print_json, shown, tell_next
from trimtab.errors import ResourceError


@app.command(cls=TakesSettings)
def check(
    source: Source,
    overrides: Overrides = None,
    build: Annotated[
        bool,
        typer.Option("--build", help="Read the data and build the model, too, and judge what follows."),
    ] = False,
    send_alerts: Annotated[
        bool,
        typer.Option("--send-alerts", help="Send a test message wherever alerts.rules go, and say what came of it."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Look a configuration over before it costs compute."""
    from trimtab.config import load_config
    from trimtab.config.paths import require_paths
    from trimtab.config.registry import require, require_module
    from trimtab.config.registry.optimizer import OPTIMIZERS
    from trimtab.control import build_controllers
    from trimtab.doctor.lint import left_out, lint, refuse
    from trimtab.planning import has_nvidia_driver

    config = load_config(source, overrides or [])
    build_controllers(config)
    # With device=auto training takes the GPU that there is.
    on_gpu = config.training.device == "auto" and has_nvidia_driver()
    findings, skipped = lint(config, {"device": "cuda"} if on_gpu else {}), left_out(config)
    facts: dict[str, Any] = {}
    if build and not any(finding.severity == "refusal" for finding in findings):
        facts = _facts_of(config)
        findings, skipped = lint(config, facts), []
    if as_json:
        from dataclasses import asdict

        told = {"findings": [asdict(finding) for finding in findings], "left_out": skipped}
        print_json(told | ({"facts": facts} if facts else {}))
    else:
        for finding in findings:
            typer.echo(str(finding))
    refuse(findings, config.lint.allow)
    require_paths(config)
    for key, one in config.named_optimizers.items():
        require(OPTIMIZERS[one.name], f"{key}.name={one.name}")
    if (quantize := config.training.quantize).name != "none":
        require_module("torchao", "lowbit", f"training.quantize.name={quantize.name}")
    if send_alerts:
        _send_alerts(config)
    if not as_json:
        typer.echo(f"{shown(source)}: {'nothing to object' if not findings else 'can be trained'}")
        left = f"not looked at: the data, and so {', '.join(skipped)}; --build reads it"
        typer.echo(_built(facts) if facts else left)
        tell_next("train", source, *(overrides or []))


def _send_alerts(config: Config) -> None:
    """A test message to each destination. Raises: ConfigError without its secret, ResourceError if one fails."""
    from trimtab.monitor.alerts import send_test

    problems = send_test(config)
    for name, problem in problems.items():
        typer.echo(f"alerts by {name}: {shown(problem) or 'a test message was taken'}", err=True)
    if not problems:
        typer.echo("no rule in alerts.rules goes to webhook or email", err=True)
    if failed := [name for name, problem in problems.items() if problem]:
        raise ResourceError(f"no alert would arrive by {' or '.join(failed)}", hint="put that right before the run")


def _facts_of(config: Config) -> dict[str, Any]:
    """What is known once the data is read and the model is built; nothing is trained."""
    from trimtab.monitor.sinks.console import Console

    console = Console(sys.stderr, 1)
    try:
        console.preparing("starting", 0.0)
        from trimtab.trainer import Trainer

        return Trainer(config, report=console.preparing).facts()
    finally:
        console.close()


def _built(facts: dict[str, Any]) -> str:
    """Data, model and what the run would see of them, in a line."""
    from trimtab.runs import format

    def tokens(part: str) -> str:
        return format.short(facts.get(part, {}).get("tokens", 0))

    parameters, planned, epochs = facts["parameters"]["total"], facts["planned_tokens"], facts["epochs"]
    training = "a stream" if epochs is None else f"{tokens('training')} tokens"
    return (
        f"read and built: {training} to train on, {tokens('validation')} to judge; "
        f"{format.short(parameters)} parameters; {format.short(planned)} tokens are planned, "
        + ("" if epochs is None else f"{epochs:.2g} epochs and ")
        + f"{planned / max(1, parameters):.2g} tokens a parameter"
    )


def _count(config: Config) -> ModelCounts:
    """By formulas, or where there are none by building the model without its weights, for which torch is imported."""
    from trimtab.config import TransformerShape
    from trimtab.planning.counts import count_model

    if isinstance(config.model, TransformerShape):
        return count_model(config)
    from trimtab.model.measured import measure_model

    return measure_model(config)


@app.command(cls=TakesSettings)
def plan(
    source: Annotated[
        str | None, typer.Argument(metavar="CONFIG|PRESET|RUN", help="What would be trained, or a run that was.")
    ] = None,
    overrides: Overrides = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="The model, tokenizer and sequence length of this preset, in place of CONFIG's."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="h100, h200, a100, rtx4090, cpu or this; of a RUN, its own.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Sequences in a micro-batch.")] = None,
    as_json: Json = False,
) -> None:
    """Predict a run's time, memory and utilization on a device, and where the time goes; of a RUN, beside what was."""
    from dataclasses import asdict

    from trimtab.doctor.lint import lint
    from trimtab.planning.command import planned

    answer = planned(source, overrides or [], model=model, device=device, batch=batch, count=_count)
    of_shapes = ("narrow-heads-on-cuda", "sizes-off-tiles")
    advice = [one for one in lint(answer.config, {"device": answer.prediction.device.kind}) if one.code in of_shapes]
    if as_json:
        print_json(answer.facts | {"advice": [asdict(one) for one in advice]})
        return
    typer.echo(in_terminal(answer.text, indent=13))
    for one in advice:
        typer.echo(str(one))
    tell_next(*answer.after)


@app.command("find-lr", cls=TakesSettings)
def find_lr(
    source: Source,
    overrides: Overrides = None,
    lowest: Annotated[float, typer.Option("--from", help="The learning rate of the first step.")] = 1e-6,
    highest: Annotated[float, typer.Option("--to", help="That of the last step.")] = 1.0,
    steps: Annotated[int, typer.Option("--steps", help="Steps from one to the other.")] = 100,
    divergence: Annotated[
        float, typer.Option("--diverges-at", help="End when the loss is above so many times its best.")
    ] = 2.0,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the curve there: .png, .svg or .pdf.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find a learning rate: let it rise over a short training, and see where the loss falls fastest."""
    from trimtab.config import load_config
    from trimtab.config.paths import require_paths, with_absolute_paths
    from trimtab.doctor.lint import lint, refuse

    config = with_absolute_paths(load_config(source, overrides or []))
    refuse(lint(config), config.lint.allow)
    require_paths(config)
    from trimtab.experiments.range_picture import require_picture, save_picture, text_curve
    from trimtab.experiments.range_test import Divergence, ramp

    ramp(lowest, highest, steps), Divergence(divergence)  # what is wrong with them is told before torch is loaded
    if plot is not None:
        require_picture(plot)
    from trimtab.monitor.sinks.console import Console
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    wait_briefly_in_company(OtherPrograms())
    console = Console(sys.stderr, 1)  # the standard output has the answer alone
    try:
        console.preparing("starting", 0.0)
        from trimtab.experiments import find_learning_rate

        test = find_learning_rate(
            config, lowest=lowest, highest=highest, steps=steps, divergence=divergence, report=console.preparing
        )
    finally:
        console.close()
    if plot is not None:
        save_picture(test, plot)
    if as_json:
        print_json(test.to_json())
        return
    typer.echo(text_curve(test))
    typer.echo(f"learning rate {test.suggestion:g}: {test.why}" if test.suggestion is not None else test.why)
    if plot is not None:
        typer.echo(shown(plot))
    if test.suggestion is not None:
        kept = [one for one in overrides or [] if not one.startswith("optimizer.learning_rate=")]
        tell_next("train", source, *kept, f"optimizer.learning_rate={test.suggestion:g}")
