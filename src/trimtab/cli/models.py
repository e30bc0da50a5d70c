"""Commands on a trained model: evaluate, generate, soup, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from trimtab.errors import (
    UsageError,
)

if TYPE_CHECKING:
    pass

from trimtab.cli.options import Json, Run, Weights, Which, app, print_json, shown, tell_next


@app.command()
def evaluate(
    run: Run,
    checkpoint: Which = "best",
    weights: Weights = None,
    quantized: Annotated[
        bool, typer.Option("--quantized", help="Judge the quantized model of a run that was trained for one.")
    ] = False,
    details: Annotated[
        bool,
        typer.Option(
            "--details", help="Also where it is wrong: by length, rarity and class; kept in the run, for its report."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Judge a checkpoint as its run was judged, on the same text."""
    if details and quantized:
        raise UsageError("--details is of a run's own model, and --quantized asks for another")
    from trimtab.monitor.sinks.console import Console
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    wait_briefly_in_company(OtherPrograms())
    console = Console(sys.stderr, 1)  # the standard output has the metrics alone
    try:
        console.preparing("starting", 0.0)
        from trimtab.data import prepare_data
        from trimtab.evaluation import in_lines, named
        from trimtab.runs import RunDirectory
        from trimtab.runs.drift import drift, refuse_drift
        from trimtab.training.judging import build_evaluation, examine
        from trimtab.training.quantized import in_fp32
        from trimtab.training.trained import is_checkpoint, open_trained

        trained = open_trained(run, checkpoint, weights, quantized=quantized)
        data = prepare_data(
            trained.config.data, trained.config.task, seed=trained.config.seed, progress=console.preparing
        )
        refuse_drift(drift({"data.fingerprint": trained.fingerprint}, {"data.fingerprint": data.fingerprint}))
        config = in_fp32(trained.config) if quantized else trained.config
        found: dict[str, Any] = {}
        if details:
            step = trained.checkpoint.step
            opened = RunDirectory.open(run.parent.parent if is_checkpoint(run) else run)
            found = examine(opened, config, trained.model, data, step, trained.weights, console.preparing)
            judged = found.pop("metrics")
        else:
            judged = build_evaluation(config, trained.model, data).metrics(console.preparing)
        metrics = named(judged, trained.weights if trained.weights in trained.config.variants else "")
    finally:
        console.close()
    if as_json:
        facts = {"run": str(run), "step": trained.checkpoint.step, "weights": trained.weights, "metrics": metrics}
        print_json(facts | ({"details": found} if details else {}))
        return
    which = "" if trained.weights == "plain" and trained.config.variants == ("",) else f", {trained.weights} weights"
    typer.echo(f"{shown(run)}, step {trained.checkpoint.step}{which}")
    for name, value in metrics.items():
        typer.echo(f"  {shown(name):<28} {value:.4f}")
    for line in in_lines(found) if details else ():
        typer.echo(shown(line))
    writes = trained.config.task.name in ("causal_lm", "seq2seq")
    tell_next("generate" if writes else "report", str(run))


@app.command()
def generate(
    run: Run,
    prompt: Annotated[
        str | None, typer.Option(help="The beginning of the text; without it, a prompt of the run's own samples.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write.")] = 200,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1000.0,
            help="0 takes the most probable token; if not given 0.8, and 0 of a model that answers to a text.",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(min=0, help="Choose among so many tokens; 0: among all.")] = 50,
    top_p: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Of these among the fewest that are together so probable; 1: among all."),
    ] = 1.0,
    beams: Annotated[
        int, typer.Option(min=1, help="Of a model that answers to a text: keep so many beginnings, and take the best.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="The same seed writes the same text.")] = 0,
    checkpoint: Which = "best",
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Let a trained model write."""
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    wait_briefly_in_company(OtherPrograms())
    from trimtab.evaluation import WRITERS, write_text
    from trimtab.runs.printable import printable
    from trimtab.training.trained import open_trained

    try:
        (prompt or "").encode()
    except UnicodeEncodeError:
        raise UsageError("--prompt: must be UTF-8 text") from None
    trained = open_trained(run, checkpoint, weights)
    if trained.config.task.name not in WRITERS:
        raise UsageError(f"the model of {run} writes nothing: its task is {trained.config.task.name}")
    if trained.config.task.name == "seq2seq" and not prompt:
        raise UsageError(f"the model of {run} writes after reading a text", hint="give the text: --prompt TEXT")
    if prompt is None:
        prompt = next((own for own in reversed(trained.config.evaluation.samples.prompts) if own), "")
    text = write_text(
        trained.model,
        trained.tokenizer,
        prompt,
        task_name=trained.config.task.name,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        beams=beams,
        context_length=trained.config.data.sequence_length,
        seed=seed,
    )
    if as_json:
        step = trained.checkpoint.step
        print_json({"run": str(run), "step": step, "weights": trained.weights, "prompt": prompt, "text": text})
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
        print_json(cooked.to_json())
        return
    typer.echo(cooked.metric)
    for one in cooked.ingredients:
        typer.echo(f"  {one.value:<10.4f} {shown(one)}{'' if one.is_in else '; left out'}")
    typer.echo(f"  {cooked.value:<10.4f} {shown(out)}, the mean of {cooked.num_in}")
    if cooked.gain < 0:
        typer.echo(
            "worse than its best ingredient: these weights do not lie in one valley, or one of them is far behind"
        )
    tell_next("evaluate", str(out))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A run directory, or one of its checkpoints.")],
    target: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TARGET",
            help="safetensors: weights, configuration, tokenizer; hugging-face: a folder for transformers.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A new folder; for safetensors also a file, NAME.safetensors.")
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option("--metrics", metavar="FILE", help="Instead of a model its metrics: a new .csv or .parquet file."),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="With --metrics: the values of every layer, too.")] = False,
    all_branches: Annotated[
        bool, typer.Option("--all-branches", help="With --metrics: what rollbacks and resumes took back, too.")
    ] = False,
    checkpoint: Which = "best",
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Write a trained model, or the metrics of a run, for other programs."""
    if metrics is not None:
        if target is not None or out is not None:
            raise UsageError("--metrics: is written by itself, without --to and --out")
        _export_metrics(run, metrics, layers=layers, all_branches=all_branches, as_json=as_json)
        return
    if layers or all_branches:
        raise UsageError(f"{'--layers' if layers else '--all-branches'}: goes with --metrics FILE")
    if target is None or out is None:
        given = "--to" if target is None else "--out"
        raise UsageError(
            f"{given}: must be given", hint="a model: --to safetensors --out PATH; the metrics: --metrics FILE.csv"
        )
    from trimtab.export import export as write

    exported = write(run, target, out, checkpoint=checkpoint, weights=weights)
    if as_json:
        print_json(exported.to_json())
        return
    typer.echo(f"{shown(exported.out)}: {exported.architecture}, {exported.weights} weights of step {exported.step}")
    typer.echo(
        f"  read again: it answers alike, with logits up to {exported.largest_logit:.3g} that differ by "
        f"{exported.largest_difference:.1g} at most"
    )


def _export_metrics(run: Path, out: Path, *, layers: bool, all_branches: bool, as_json: bool) -> None:
    from trimtab.runs import RunDirectory
    from trimtab.runs.metric_table import write_metrics

    written = write_metrics(RunDirectory.open(run), out, layers=layers, all_branches=all_branches)
    if as_json:
        print_json(written)
        return
    typer.echo(
        f"{shown(out)}: {written['rows']:,} values of {written['metrics']:,} metrics, {written['bytes']:,} bytes"
    )
