"""What `show` tells of the inside of a run's model: what heads attend to, its modules, what was captured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from trimtab.cli.options import print_json, shown
from trimtab.errors import UsageError

if TYPE_CHECKING:
    from trimtab.data import Tokenizer
    from trimtab.evaluation.attention import AttentionView
    from trimtab.training.trained import TrainedRun


def show_attention(
    run: Path,
    *,
    layer: str | None,
    head: int | None,
    text: str | None,
    answer: str | None,
    out: Path | None,
    checkpoint: str,
    weights: str | None,
    as_json: bool,
) -> None:
    """Draw one layer's attention, and tell of each head. With JSON it is drawn if `out` is given.

    Raises: UsageError.
    """
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    wait_briefly_in_company(OtherPrograms())
    from trimtab.evaluation.attention import visualize_attention
    from trimtab.training.trained import open_trained

    trained = open_trained(run, checkpoint, weights)
    given = _text(run, trained) if text is None else text
    longest = trained.config.longest_sequence
    if len(trained.tokenizer.encode(given)) > longest:
        raise UsageError(f"--text: longer than the {longest} tokens that the model of {run} was trained on")
    number: int | str = -1 if layer is None else layer
    if isinstance(number, str) and number.lstrip("-").isdecimal():
        number = int(number)
    view = visualize_attention(trained.model, given, trained.tokenizer, number, head, answer=answer or "")
    path = out
    if out is None and not as_json:
        which = f"layer-{view.layer}" + ("" if head is None else f"-head-{head}")
        path = run / "artifacts" / "attention" / f"step-{trained.checkpoint.step:08d}-{which}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
    if path is not None:
        view.save(path)
    if as_json:
        told = {"run": str(run), "step": trained.checkpoint.step, "weights": trained.weights, "text": given}
        print_json(told | view.to_json() | ({} if path is None else {"picture": str(path)}))
        return
    _tell(run, trained.checkpoint.step, view)
    typer.echo(f"picture: {shown(path)}")


def _tell(run: Path, step: int, view: AttentionView) -> None:
    typer.echo(f"{shown(run)}, step {step}: {shown(view.name)}, {view.place}, {len(view.tokens)} tokens")
    typer.echo(
        f"  {'head':>4}  {'entropy':>8}  {'of its maximum':>14}  {'on the first token':>18}  {'largest logit':>13}"
    )
    columns = (view.heads, view.entropy, view.relative_entropy, view.first, view.largest_logit)
    for number, entropy, relative, first, largest in zip(*columns, strict=True):
        typer.echo(f"  {number:>4}  {entropy:>8.3f}  {relative:>14.0%}  {first:>18.0%}  {largest:>13.2f}")


def _text(run: Path, trained: TrainedRun) -> str:
    """The newest sample that the run wrote, as much of it as the model reads."""
    from trimtab.runs import History, RunDirectory

    history = History.read(RunDirectory.open(run).record)
    samples = [one.text for one in history.artifacts if one.kind == "sample" and one.text]
    if not samples or trained.config.task.name != "causal_lm":
        raise UsageError("--text: the run wrote no samples to look at", hint="give a text: --text TEXT")
    return beginning(samples[-1], trained.tokenizer, min(64, trained.config.longest_sequence))


def beginning(text: str, tokenizer: Tokenizer, most: int) -> str:
    """As much of `text` as has at most `most` tokens.

    What a model wrote may be no text: a byte that is none becomes a sign of three, which are more tokens again.
    """
    text = tokenizer.decode(tokenizer.encode(text)[:most])
    while len(tokenizer.encode(text)) > most:
        text = text[:-1]
    return text


def show_modules(run: Path, *, as_json: bool) -> None:
    """The tree of the model's modules, with shapes. Raises: UsageError."""
    from trimtab.runs import RunDirectory
    from trimtab.runs.modules import read_modules, render_modules

    told = read_modules(RunDirectory.open(run))
    if as_json:
        print_json(told)
    else:
        typer.echo(render_modules(told))
