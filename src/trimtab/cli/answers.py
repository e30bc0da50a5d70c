"""Commands that ask a trained model about texts: predict, calibrate."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from trimtab.cli.options import Json, Run, Weights, Which, app, print_json, shown, tell_next
from trimtab.errors import DataError, UsageError

if TYPE_CHECKING:
    from trimtab.training.predictor import Predictor


@app.command()
def predict(
    run: Annotated[
        Path, typer.Argument(metavar="RUN|EXPORT", help="A run, a checkpoint, or an export to safetensors.")
    ],
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="Texts to ask about.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A file with a text on each line.")] = None,
    passes: Annotated[
        int, typer.Option("--passes", min=0, help="Also how far so many answers differ under dropout; at least 2.")
    ] = 0,
    beside: Annotated[
        list[Path] | None,
        typer.Option("--beside", metavar="RUN", help="Another run of an ensemble, of the same classes."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also what each token adds to the answer: integrated gradients.")
    ] = False,
    checkpoint: Which = "best",
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Say of texts what a trained model says of them: a class and how sure it is, labels, a number, tags, a vector."""
    asked = list(texts or [])
    if file is not None:
        try:
            asked += [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"--file: {file} cannot be read: {error}") from error
    for text in texts or ():
        if os.path.isfile(text):  # False, too, of what is too long for a path
            note = f"note: {shown(text)} is read as a text of its own; --file {shown(text)} reads the file of that name"
            typer.echo(note, err=True)
    if not asked:
        raise UsageError("there is no text to ask about", hint="give texts, or --file FILE")
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    wait_briefly_in_company(OtherPrograms())
    from trimtab.training.predictor import open_predictor

    predictor = open_predictor(run, checkpoint, weights)
    others = [open_predictor(path, checkpoint, weights) for path in beside or ()]
    told = _unsure([predictor, *others], asked, passes) if passes or others else _answers(predictor, asked)
    if explain:
        told = [one | {"attributions": _explained(predictor, one["text"])} for one in told]
    if as_json:
        known = {"step": predictor.step, "weights": predictor.weights, "temperature": predictor.temperature}
        print_json({"run": str(run), **known, "answers": told})
        return
    for one in told:
        typer.echo(f"{_in_words(one)}\t{shown(one['text'])}")
        for token in one["attributions"]["tokens"] if explain else ():
            typer.echo(f"  {token['score']:+.3f}  {shown(token['token'])}")


def _answers(predictor: Predictor, texts: list[str]) -> list[dict[str, Any]]:
    """One for each text, as JSON values."""
    task, classes = predictor.config.task, predictor.targets.classes
    if task.name == "classification":
        several, found = getattr(task, "multi_label", False), []
        for text, chances_V in zip(texts, predictor.probabilities(texts), strict=True):
            one: dict[str, Any] = {"text": text}
            if several:
                one["labels"] = [classes[place] for place in (chances_V > 0.5).nonzero().flatten().tolist()]
            else:
                one |= {"class": classes[int(chances_V.argmax())], "probability": float(chances_V.max())}
            found.append(one | {"probabilities": dict(zip(classes, chances_V.tolist(), strict=True))})
        return found
    answers = predictor.answers(texts)
    if task.name == "token_classification":
        return [
            {"text": text, "tags": [classes[place] if place >= 0 else None for place in answer.tolist()]}
            for text, answer in zip(texts, answers, strict=True)
        ]
    if task.name == "contrastive":
        return [{"text": text, "vector": answer.tolist()} for text, answer in zip(texts, answers, strict=True)]
    return [{"text": text, "value": float(answer)} for text, answer in zip(texts, answers, strict=True)]


def _unsure(predictors: list[Predictor], texts: list[str], passes: int) -> list[dict[str, Any]]:
    """The mean answer, and how far answers differ, as JSON values."""
    from trimtab.training.predictor import uncertainty_of

    uncertainty = uncertainty_of(predictors, texts, passes)
    classes, found = predictors[0].targets.classes, []
    for place, text in enumerate(texts):
        one: dict[str, Any] = {"text": text}
        if uncertainty.within is None or uncertainty.between is None:
            found.append(one | {"value": float(uncertainty.mean[place]), "deviation": float(uncertainty.total[place])})
            continue
        chances_V = uncertainty.mean[place]
        if getattr(predictors[0].config.task, "multi_label", False):
            one["labels"] = [classes[at] for at in (chances_V > 0.5).nonzero().flatten().tolist()]
        else:
            one |= {"class": classes[int(chances_V.argmax())], "probability": float(chances_V.max())}
        one["probabilities"] = dict(zip(classes, chances_V.tolist(), strict=True))
        parts = {"total": uncertainty.total, "within": uncertainty.within, "between": uncertainty.between}
        found.append(one | {"uncertainty": {name: float(values[place]) for name, values in parts.items()}})
    return found


def _explained(predictor: Predictor, text: str) -> dict[str, Any]:
    """What each token of `text` adds to the logit of the most probable class, or to the number, as JSON values."""
    from trimtab.evaluation.attributions import attribute_tokens

    if predictor.config.task.name not in ("classification", "regression"):
        raise UsageError(f"--explain is of one answer to a whole text. Received: task {predictor.config.task.name}")
    length = predictor.config.data.sequence_length
    found = attribute_tokens(predictor.model, predictor.tokenizer, text, sequence_length=length)
    scores = [{"token": token, "score": score} for token, score in zip(found.tokens, found.scores, strict=True)]
    classes = predictor.targets.classes
    return {
        "of": classes[found.target] if classes else "value",
        "tokens": scores,
        "value": found.value,
        "baseline": found.baseline,
        "gap": found.gap,
    }


def _in_words(one: dict[str, Any]) -> str:
    unsure = f" uncertainty {one['uncertainty']['between']:.3f} nats" if "uncertainty" in one else ""
    if "class" in one:
        return f"{shown(one['class'])} {one['probability']:.1%}{unsure}"
    if "value" in one:
        return f"{one['value']:.6g}" + (f" ± {one['deviation']:.3g}" if "deviation" in one else "")
    if "vector" in one:
        return " ".join(f"{value:.5g}" for value in one["vector"])
    names = one["labels"] if "labels" in one else [name or "-" for name in one["tags"]]
    return shown(" ".join(names) or "(none)") + unsure


@app.command()
def calibrate(run: Run, checkpoint: Which = "best", weights: Weights = None, as_json: Json = False) -> None:
    """Fit the temperature of a model's answers on its validation set; predict and export use it."""
    from trimtab.monitor.sinks.console import Console
    from trimtab.runs.company import OtherPrograms, wait_briefly_in_company

    wait_briefly_in_company(OtherPrograms())
    console = Console(sys.stderr, 1)  # the standard output has the result alone
    try:
        console.preparing("starting", 0.0)
        from trimtab.config import is_calibrated
        from trimtab.data import prepare_data
        from trimtab.runs import RunDirectory
        from trimtab.runs.calibration import in_words
        from trimtab.runs.drift import drift, refuse_drift
        from trimtab.training.judging import calibrate_run
        from trimtab.training.trained import open_trained

        trained = open_trained(run, checkpoint, weights)
        config = trained.config
        if not is_calibrated(config.task):
            raise UsageError(
                f"{run}: a temperature is for answers that are classes, labels or tokens. "
                f"Received: task {config.task.name}"
            )
        data = prepare_data(config.data, config.task, seed=config.seed, progress=console.preparing)
        refuse_drift(drift({"data.fingerprint": trained.fingerprint}, {"data.fingerprint": data.fingerprint}))
        step = trained.checkpoint.step
        found = calibrate_run(
            RunDirectory.open(run), config, trained.model, data, step, trained.weights, console.preparing
        )
    finally:
        console.close()
    if as_json:
        print_json({"run": str(run), "step": step, "weights": trained.weights, **found})
        return
    typer.echo(f"{shown(run)}, step {step}: {in_words(found)}")
    tell_next("predict", str(run), "TEXT")
