"""The command line: thin commands; what is heavy is imported inside them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, final

import typer
import typer.core

from trimtab.errors import (
    EXIT_FINDINGS,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_KILLED_TWICE,
    StorageError,
    TrimtabError,
    UsageError,
)

if TYPE_CHECKING:
    from trimtab.config import Config
    from trimtab.doctor import Case
    from trimtab.trainer import Result

_DEMO: Final = "demo"
_SMALL_DEMO: Final = "demo-small"
_DEMO_SPEED: Final = 2e11
"""Floating-point operations a second with which the larger demo is done in four minutes."""

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
class _TakesSettings(typer.core.TyperCommand):
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


@app.command(cls=_TakesSettings)
def demo(
    overrides: Overrides = None,
    run: Annotated[Path | None, typer.Option("--run", help="Where the run is kept.")] = None,
    log_format: LogFormat = "text",
) -> None:
    """Train a small GPT on Python code that is already on this machine: about four minutes on two cores."""
    _train(_demo(overrides or [], run), overrides or [], run, accept_drift=False, log_format=log_format)


@app.command(cls=_TakesSettings)
def train(
    source: Source,
    overrides: Overrides = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="A new run directory, or an unfinished one to go on with.")
    ] = None,
    accept_drift: AcceptDrift = False,
    max_restarts: MaxRestarts = 0,
    log_format: LogFormat = "text",
) -> None:
    """Train what a configuration describes; with the --run of an unfinished run, go on with it."""
    _train(
        source,
        overrides or [],
        run,
        accept_drift=accept_drift,
        log_format=log_format,
        max_restarts=max_restarts,
        arguments=["train", source, *(overrides or [])],
    )


@app.command()
def resume(
    run: Run, accept_drift: AcceptDrift = False, max_restarts: MaxRestarts = 0, log_format: LogFormat = "text"
) -> None:
    """Go on with a run that was interrupted or killed."""
    from trimtab.runs import RunDirectory
    from trimtab.runs.files import read_json
    from trimtab.runs.program import in_python

    directory = RunDirectory.open(run)
    directory.refuse_foreign()
    if directory.environment.exists() and read_json(directory.environment).get("source") == "python":
        raise UsageError(
            f"{run} was begun from Python objects, which the command line cannot build",
            hint=in_python(str(run)),
        )
    if not directory.config.exists():
        raise UsageError(f"{run} was killed before it began", hint=f"`trimtab train CONFIG --run {run}` begins it")
    _train(
        str(directory.config),
        [],
        run,
        accept_drift=accept_drift,
        log_format=log_format,
        max_restarts=max_restarts,
        arguments=["train", str(directory.config)],
    )


@app.command()
def evaluate(
    run: Run,
    checkpoint: Which = "best",
    weights: Weights = None,
    quantized: Annotated[
        bool, typer.Option("--quantized", help="Judge the quantized model of a run that was trained for one.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Judge a checkpoint as its run was judged, on the same text."""
    from trimtab.monitor.sinks.console import Console
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    wait_briefly_in_company(OtherPrograms())
    console = Console(sys.stderr, 1)  # the standard output has the metrics alone
    try:
        console.preparing("starting", 0.0)
        from trimtab.assembly import build_evaluation
        from trimtab.data import prepare_data
        from trimtab.evaluation import named
        from trimtab.runs.drift import drift, refuse_drift
        from trimtab.training.quantized import in_fp32
        from trimtab.training.trained import open_trained

        trained = open_trained(run, checkpoint, weights, quantized=quantized)
        data = prepare_data(
            trained.config.data, trained.config.task, seed=trained.config.seed, progress=console.preparing
        )
        refuse_drift(drift({"data.fingerprint": trained.fingerprint}, {"data.fingerprint": data.fingerprint}))
        config = in_fp32(trained.config) if quantized else trained.config
        judged = build_evaluation(config, trained.model, data).metrics(console.preparing)
        metrics = named(judged, trained.weights if trained.weights in trained.config.variants else "")
    finally:
        console.close()
    if as_json:
        facts = {"run": str(run), "step": trained.checkpoint.step, "weights": trained.weights, "metrics": metrics}
        _print_json(facts)
        return
    which = "" if trained.weights == "plain" and trained.config.variants == ("",) else f", {trained.weights} weights"
    typer.echo(f"{_shown(run)}, step {trained.checkpoint.step}{which}")
    for name, value in metrics.items():
        typer.echo(f"  {_shown(name):<28} {value:.4f}")
    writes = trained.config.task.name in ("causal_lm", "seq2seq")
    _next("generate" if writes else "report", str(run))


@app.command()
def generate(
    run: Run,
    prompt: Annotated[
        str | None, typer.Option(help="The beginning of the text; without it, a prompt of the run's own samples.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write.")] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, max=1000.0, help="0 takes the most probable token.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Choose among so many tokens; 0: among all.")] = 50,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="The same seed writes the same text.")] = 0,
    checkpoint: Which = "best",
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Let a trained model write."""
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    wait_briefly_in_company(OtherPrograms())
    from trimtab.config import SamplesConfig
    from trimtab.evaluation import write_answer, write_text
    from trimtab.model import translates
    from trimtab.runs.printable import printable
    from trimtab.training.trained import open_trained

    try:
        (prompt or "").encode()
    except UnicodeEncodeError:
        raise UsageError("--prompt: must be UTF-8 text") from None
    trained = open_trained(run, checkpoint, weights)
    if trained.config.task.name not in ("causal_lm", "seq2seq"):
        raise UsageError(f"the model of {run} writes nothing: its task is {trained.config.task.name}")
    if trained.config.task.name == "seq2seq" and not prompt:
        raise UsageError(f"the model of {run} writes after reading a text", hint="give the text: --prompt TEXT")
    if prompt is None:
        prompt = next((own for own in reversed(trained.config.evaluation.samples.prompts) if own), "")
    sampling = SamplesConfig(max_tokens=max_tokens, temperature=temperature, top_k=top_k)
    length = trained.config.data.sequence_length
    if translates(trained.model):
        text = write_answer(trained.model, trained.tokenizer, prompt, max_tokens=max_tokens)
    else:
        text = write_text(trained.model, trained.tokenizer, prompt, sampling, context_length=length, seed=seed)
    if as_json:
        step = trained.checkpoint.step
        _print_json({"run": str(run), "step": step, "weights": trained.weights, "prompt": prompt, "text": text})
    else:
        if trained.weights != "plain":
            typer.echo(f"({trained.weights} weights of step {trained.checkpoint.step})", err=True)
        typer.echo(printable(text, lines=True))
        if not text.strip():
            typer.echo("(the model ended its text at once: try --seed 1, or a --prompt)", err=True)


@app.command()
def soup(
    checkpoints: Annotated[
        list[Path], typer.Argument(metavar="CHECKPOINT…", help="Checkpoints, or runs, whose best ones are meant.")
    ],
    out: Annotated[Path, typer.Option("--out", help="A new directory for the mean, as a run of its own.")],
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Only those that do not make it worse on the validation set.")
    ] = False,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="Of each run so many of its best checkpoints; 1 if not given.")
    ] = None,
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Average the weights of several checkpoints, and judge the mean beside each of them."""
    from trimtab.monitor.sinks.console import Console
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    wait_briefly_in_company(OtherPrograms())
    console = Console(sys.stderr, 1)  # the standard output has the result alone
    try:
        console.preparing("starting", 0.0)
        from trimtab.soup import cook

        cooked = cook(checkpoints, out, greedy=greedy, weights=weights, top=top, report=console.preparing)
    finally:
        console.close()
    if as_json:
        _print_json(cooked.to_json())
        return
    typer.echo(cooked.metric)
    for one in cooked.ingredients:
        typer.echo(f"  {one.value:<10.4f} {_shown(one)}{'' if one.is_in else '; left out'}")
    typer.echo(f"  {cooked.value:<10.4f} {_shown(out)}, the mean of {cooked.num_in}")
    if cooked.gain < 0:
        typer.echo(
            "worse than its best ingredient: these weights do not lie in one valley, or one of them is far behind"
        )
    _next("evaluate", str(out))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A run directory, or one of its checkpoints.")],
    target: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="TARGET",
            help="safetensors: weights, configuration, tokenizer; hugging-face: a folder for transformers.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="A new folder; for safetensors also a file, NAME.safetensors.")],
    checkpoint: Which = "best",
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Write a trained model for other programs."""
    from trimtab.export import export as write

    exported = write(run, target, out, checkpoint=checkpoint, weights=weights)
    if as_json:
        _print_json(exported.to_json())
        return
    typer.echo(f"{_shown(exported.out)}: {exported.architecture}, {exported.weights} weights of step {exported.step}")
    typer.echo(
        f"  read again: logits up to {exported.largest_logit:.3g}, all equal to {exported.largest_difference:.1g}"
    )


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where runs are kept.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the runs in a folder."""
    from trimtab.runs.summary import list_summaries, render_list

    if not folder.is_dir() and folder != Path("runs"):
        raise UsageError(f"{_shown(folder)}: there is no such folder")
    summaries = list_summaries(folder)
    if as_json:
        _print_json(summaries)
    else:
        typer.echo(render_list(summaries, folder))


@app.command()
def show(run: Run, as_json: Json = False) -> None:
    """Tell how a run went, and why it ended."""
    from trimtab.doctor import open_case
    from trimtab.doctor.diagnose import diagnose
    from trimtab.runs import RunDirectory
    from trimtab.runs.summary import render, summarize

    directory = RunDirectory.open(run)
    diagnosis = diagnose(open_case(directory), directory.name)
    summary = summarize(directory) | {"diagnosis": diagnosis.to_json()}
    if as_json:
        _print_json(summary)
    else:
        typer.echo(render(summary))


@app.command()
def doctor(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Run directories, or logs that other trainers wrote.")
    ],
    as_json: Json = False,
    mapping: Mapping = None,
    fail_on: Annotated[
        str | None, typer.Option("--fail-on", metavar="SEVERITY", help="info, warning or error: then exit with 6.")
    ] = None,
) -> None:
    """Say what is wrong with a run, what shows it, and what to change."""
    from trimtab.doctor.diagnose import diagnose
    from trimtab.doctor.finding import SEVERITIES
    from trimtab.report import render_text

    if fail_on is not None and fail_on not in SEVERITIES:
        raise UsageError(f"--fail-on: must be {', '.join(SEVERITIES)}. Received: {fail_on!r}")
    answers, gravest = [], -1
    for path in paths:
        case, name, notes = _open_log(path, mapping or [])
        diagnosis = diagnose(case, name)
        gravest = max([gravest, *(SEVERITIES.index(finding.severity) for finding in diagnosis.findings)])
        answers.append(diagnosis.to_json())
        if not as_json:
            for note in notes:
                typer.echo(note)
            colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
            typer.echo(render_text(diagnosis, settings=case.config, colour=colour))
            if len(paths) == 1:
                typer.echo(f"next: {_shown(_after_doctor(path))}")
            else:
                typer.echo()
    if as_json:
        _print_json(answers[0] if len(paths) == 1 else answers)
    if fail_on is not None and gravest >= SEVERITIES.index(fail_on):
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
def report(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A run directory, or a log that another trainer wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; report.html in the run if not given.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="html, markdown or text.")] = "html",
    mapping: Mapping = None,
) -> None:
    """Write the report of a run: verdict, findings on the curves, and all that belongs to it, in one file."""
    from trimtab.doctor.diagnose import diagnose
    from trimtab.report import render_html, render_markdown, render_report, write_report
    from trimtab.report.gather import gather
    from trimtab.runs import RunDirectory
    from trimtab.runs.files import write_text
    from trimtab.runs.program import command

    if form not in ("html", "markdown", "text"):
        raise UsageError(f"--format: must be html, markdown or text. Received: {form!r}")
    run = RunDirectory(path) if RunDirectory.is_run(path) else None
    if run is not None and output is None and form == "html":
        write_report(run)
        typer.echo(_shown(run.report))
        typer.echo(f"next: open it in a browser, or {_shown(command('doctor', str(path)))}")
        return
    case, name, notes = _open_log(path, mapping or [])
    for note in notes:
        typer.echo(note, err=True)
    diagnosis = diagnose(case, name)
    found = gather(run, case, diagnosis)
    if form == "text":
        text = render_report(found) + "\n"
    else:
        text = (render_html if form == "html" else render_markdown)(found)
    if output is None and form != "html":
        typer.echo(text, nl=False)
        return
    target = output if output is not None else Path(f"{path.stem}.report.html")
    write_text(target, text)
    typer.echo(_shown(target))


def _after_doctor(path: Path) -> str:
    """To go on with a run that can; else the report."""
    from trimtab.runs import RunDirectory
    from trimtab.runs.program import command
    from trimtab.runs.summary import next_command

    if RunDirectory.is_run(path):
        run = RunDirectory.open(path)
        if (status := run.status()) in ("killed", "interrupted"):
            return next_command(status, str(path), run.source)
    return command("report", str(path))


def _open_log(path: Path, mapping: list[str]) -> tuple[Case, str, tuple[str, ...]]:
    """A run or a foreign log as a case, its name, and what was noticed in reading it."""
    from trimtab.doctor.load import open_case, open_foreign_case
    from trimtab.runs import RunDirectory
    from trimtab.runs.printable import printable

    names = {}
    for pair in mapping:
        theirs, equals, ours = pair.rpartition("=")
        if not equals or not theirs or not ours:
            raise UsageError(f"--map: must be theirs=ours, such as my_loss=train/loss. Received: {pair!r}")
        names[theirs] = ours
    if RunDirectory.is_run(path):
        run = RunDirectory.open(path)
        return open_case(run), run.name, ()
    case, imported = open_foreign_case(path, names)
    told = [f"read as {imported.format}: {imported.source}"]
    if imported.names:
        pairs = ", ".join(f"{theirs} = {ours}" for theirs, ours in imported.names.items())
        told.append(f"names: {pairs}")
    if imported.unused:
        told.append(f"not used: {', '.join(imported.unused)}")
    return case, path.name, tuple(printable(line, limit=1000) for line in [*told, *imported.notes])


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A run directory, or one of its checkpoints.")],
    as_json: Json = False,
) -> None:
    """Check every byte of a run's checkpoints against their hashes."""
    from trimtab.errors import CheckpointError
    from trimtab.runs import RunDirectory
    from trimtab.runs.checkpoints import checkpoint_folders
    from trimtab.runs.checkpoints import verify as problems_of

    folders = [path] if (path / "manifest.json").exists() else []
    if not folders:
        folders = checkpoint_folders(RunDirectory.open(path).path)
    problems = {str(folder): problems_of(folder) for folder in folders}
    if as_json:
        checkpoints = [{"path": name, "whole": not found, "problems": found} for name, found in problems.items()]
        _print_json({"path": str(path), "whole": not any(problems.values()), "checkpoints": checkpoints})
    elif not folders:
        typer.echo(f"{_shown(path)} has no checkpoint yet")
    else:
        for folder, found in problems.items():
            typer.echo(f"{'damaged' if found else 'intact '}  {_shown(folder)}")
            for problem in found:
                typer.echo(f"         {_shown(problem)}")
    if any(problems.values()):
        raise typer.Exit(CheckpointError.exit_code)


@app.command(cls=_TakesSettings)
def check(
    source: Source,
    overrides: Overrides = None,
    build: Annotated[
        bool,
        typer.Option("--build", help="Read the data and build the model, too, and judge what follows."),
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
        _print_json(told | ({"facts": facts} if facts else {}))
    else:
        for finding in findings:
            typer.echo(str(finding))
    refuse(findings, config.lint.allow)
    require_paths(config)
    for key, one in config.named_optimizers.items():
        require(OPTIMIZERS[one.name], f"{key}.name={one.name}")
    if (quantize := config.training.quantize).name != "none":
        require_module("torchao", "lowbit", f"training.quantize.name={quantize.name}")
    if not as_json:
        typer.echo(f"{_shown(source)}: {'nothing to object' if not findings else 'can be trained'}")
        left = f"not looked at: the data, and so {', '.join(skipped)}; --build reads it"
        typer.echo(_built(facts) if facts else left)
        _next("train", source, *(overrides or []))


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

    parameters, planned = facts["parameters"]["total"], facts["planned_tokens"]
    return (
        f"read and built: {tokens('training')} tokens to train on, {tokens('validation')} to judge; "
        f"{format.short(parameters)} parameters; {format.short(planned)} tokens are planned, "
        f"{facts['epochs']:.2g} epochs and {planned / max(1, parameters):.2g} tokens a parameter"
    )


@app.command(cls=_TakesSettings)
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

    answer = planned(source, overrides or [], model=model, device=device, batch=batch)
    of_shapes = ("narrow-heads-on-cuda", "sizes-off-tiles")
    advice = [one for one in lint(answer.config, {"device": answer.prediction.device.kind}) if one.code in of_shapes]
    if as_json:
        _print_json(answer.facts | {"advice": [asdict(one) for one in advice]})
        return
    typer.echo(answer.text)
    for one in advice:
        typer.echo(str(one))
    _next(*answer.after)


@app.command("find-lr", cls=_TakesSettings)
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
        _print_json(test.to_json())
        return
    typer.echo(text_curve(test))
    typer.echo(f"learning rate {test.suggestion:g}: {test.why}" if test.suggestion is not None else test.why)
    if plot is not None:
        typer.echo(_shown(plot))
    if test.suggestion is not None:
        kept = [one for one in overrides or [] if not one.startswith("optimizer.learning_rate=")]
        _next("train", source, *kept, f"optimizer.learning_rate={test.suggestion:g}")


config_app = typer.Typer(help="Show, explain and describe configurations.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config")


@config_app.command("show", cls=_TakesSettings)
def config_show(
    source: Source,
    overrides: Overrides = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    as_json: Json = False,
) -> None:
    """Print a whole configuration, as a run would keep it."""
    from trimtab.config import dump_config, flatten, load_with_origin
    from trimtab.config.dump import remarks

    loaded = load_with_origin(source, overrides or [])
    values = flatten(loaded.config)
    if as_json:
        _print_json(
            {name: {"value": value, "origin": loaded.origins.get(name, "default")} for name, value in values.items()}
            if origin
            else loaded.config.model_dump(mode="json")
        )
    elif origin:
        width = max(map(len, values))
        for name, value in values.items():
            typer.echo(f"{name:<{width}}  {json.dumps(value):<28}  {loaded.origins.get(name, 'default')}")
        for name, remark in remarks(loaded.config).items():
            typer.echo(f"{name}: {remark}")
    else:
        typer.echo(dump_config(loaded.config), nl=False)


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of configurations, for editors."""
    from trimtab.config import config_schema

    _print_json(config_schema())


@config_app.command("explain")
def config_explain(
    name: Annotated[str, typer.Argument(metavar="SECTION.KEY", help="A setting, such as optimizer.learning_rate.")],
) -> None:
    """Say what a setting means, its default and what is allowed."""
    from trimtab.config import explain

    typer.echo(explain(name))


@config_app.command("presets")
def config_presets(as_json: Json = False) -> None:
    """List the presets."""
    from trimtab.config import list_presets

    presets = list_presets()
    if as_json:
        _print_json(presets)
        return
    for name, description in presets.items():
        typer.echo(f"{name:<16} {description}")
    _next("train", "PRESET", "data.source.name=text", "data.source.path=FOLDER")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True)] = False,
) -> None:
    if version:
        from trimtab import __version__

        typer.echo(f"trimtab {__version__}")
        raise typer.Exit


def _demo(overrides: list[str], run: Path | None) -> str:
    """The demo that this machine trains in minutes; for a run that was begun, the one that it is."""
    from trimtab.config import load_config
    from trimtab.runs import RunDirectory
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    config = load_config("demo", overrides)  # a typing error is told before torch is loaded
    if run is not None and RunDirectory.is_run(run):
        begun = RunDirectory.open(run).config
        known = begun.exists() and load_config(str(begun)).name in (_DEMO, _SMALL_DEMO)
        return str(begun) if known else _DEMO
    typer.echo("measuring this processor ...", err=True)
    wait_briefly_in_company(OtherPrograms())
    from trimtab.runs.program import command
    from trimtab.training.execution import choose_device, processor_speed, set_threads

    if choose_device(config.training.device).type != "cpu":
        return _DEMO
    set_threads(config.training.threads)
    speed = processor_speed()
    if speed >= _DEMO_SPEED:
        return _DEMO
    typer.echo(
        f"it computes {speed / 1e9:.0f} GFLOP/s: taking the preset {_SMALL_DEMO} "
        f"(`{command('train', _DEMO)}` trains the larger one)",
        err=True,
    )
    return _SMALL_DEMO


def _train(
    source: str,
    overrides: list[str],
    run: Path | None,
    *,
    accept_drift: bool,
    log_format: str,
    max_restarts: int = 0,
    arguments: Sequence[str] = (),
) -> None:
    """Check all that can be checked without torch, then train, and end with the run's exit code."""
    from trimtab.config import effective, load_config
    from trimtab.config.paths import require_paths, with_absolute_paths
    from trimtab.control import build_controllers
    from trimtab.doctor.lint import lint, refuse
    from trimtab.runs import RunDirectory
    from trimtab.runs.drift import drift, refuse_drift
    from trimtab.runs.files import read_json

    if log_format not in ("text", "json"):
        raise UsageError(f"--log-format: must be text or json. Received: {log_format!r}")
    config = with_absolute_paths(load_config(source, overrides))
    build_controllers(config)
    refuse(lint(config), config.lint.allow)
    if run is not None and RunDirectory.is_run(run):
        status = RunDirectory.open(run).status()
        if status in ("finished", "stopped"):
            was = read_json(RunDirectory(run).facts)["identity"]
            now = was | {f"config.{name}": value for name, value in effective(config).items()}
            if not accept_drift:
                refuse_drift(drift(was, now))
            typer.echo(f"{_shown(run)} is already {status}")
            _next("show", str(run))
            return
    require_paths(config)
    if max_restarts:
        flags = ["--accept-drift"] if accept_drift else []
        raise typer.Exit(_supervise(config, run, [*arguments, *flags, "--log-format", log_format], max_restarts))
    result = _fit(config, run, accept_drift, "json" if log_format == "json" else "text")
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _supervise(config: Config, run: Path | None, arguments: list[str], max_restarts: int) -> int:
    """Train in a process of its own, which is begun again when it crashes; gives its exit code."""
    from trimtab.runs import RunDirectory
    from trimtab.supervisor import supervise

    made = None if run is not None else RunDirectory.create(Path("runs"), config.name).path
    called = Path(sys.argv[0])
    program = [sys.executable, *([str(called)] if called.stem == "trimtab" else ["-m", "trimtab.cli"])]
    folder = run or made
    assert folder is not None
    try:
        return supervise(
            [*program, *arguments, "--run", str(folder)],
            folder,
            max_restarts=max_restarts,
            watchdog_seconds=config.training.watchdog_seconds,
        )
    finally:
        if made is not None:
            with contextlib.suppress(OSError):
                made.rmdir()  # nothing came of it


def _fit(config: Config, run: Path | None, accept_drift: bool, log_format: Literal["text", "json"]) -> Result:
    from trimtab.monitor.sinks.console import Console
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    wait_briefly_in_company(OtherPrograms())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupted_early)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # before the first step there is nothing to save
    # Opened before torch is imported, so that the screen says at once what is going on.
    metric = config.checkpoint.metric
    console = Console(sys.stdout, config.training.steps, log_format=log_format, metric=metric)
    try:
        console.preparing("starting", 0.0)
        from trimtab.trainer import Trainer

        return Trainer(
            config,
            run=run,
            monitors=[console],
            accept_drift=accept_drift,
            report=console.preparing,
            ends_process=True,
            restart=os.environ.pop("TRIMTAB_RESTART", ""),
        ).fit()
    except KeyboardInterrupt:
        console.close()
        typer.echo("interrupted twice: what was not saved is lost", err=True)
        sys.stdout.flush()
        os._exit(EXIT_KILLED_TWICE)  # at once: a checkpoint that a thread still writes is left unfinished, for none
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):  # what is left takes no time, and loses nothing
            signal.signal(number, signal.SIG_IGN)
        console.close()


def _interrupted_early(number: int, frame: FrameType | None) -> NoReturn:
    """Until the loop takes signals itself, there is nothing to save, and nothing new is left."""
    name = signal.Signals(number).name
    typer.echo(f"{name} received before the first step: nothing is lost; run again with the same command", err=True)
    raise SystemExit(EXIT_INTERRUPTED)


def _next(*arguments: str) -> None:
    """Say what to run next, so that it works as typed."""
    from trimtab.runs.program import command

    typer.echo(f"next: {_shown(command(*arguments))}")


def _shown(value: object, *, lines: bool = False) -> str:
    """What came from outside, such as a path, made harmless for a terminal."""
    from trimtab.runs.printable import printable

    return printable(str(value), lines=lines)


def _print_json(value: Any) -> None:
    from trimtab.runs.files import json_value

    typer.echo(json.dumps(json_value(value), indent=2, allow_nan=False))


def main() -> NoReturn:
    """Run a command; every error ends in a message for people and its own exit code."""
    try:
        app(standalone_mode=True)
    except TrimtabError as error:
        from trimtab.runs.program import as_typed

        typer.echo(_shown(f"error: {as_typed(str(error))}", lines=True), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(EXIT_KILLED_TWICE)
    except BrokenPipeError:
        # The reader has gone: nothing more can be said, and Python must not complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        typer.echo(f"error: {_shown(error)}\nhint: is the disk full, or a file not readable?", err=True)
        sys.exit(StorageError.exit_code)
    except Exception:
        typer.echo(_shown(traceback.format_exc(), lines=True), err=True, nl=False)
        typer.echo("error: this is a fault in trimtab. Please report it with the lines above.", err=True)
        sys.exit(EXIT_INTERNAL)
    sys.exit(0)


if __name__ == "__main__":
    main()
