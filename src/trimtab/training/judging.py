"""From a configuration to what judges a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from torch import Tensor, nn

from trimtab.config import (
    BinaryCrossEntropyConfig,
    Config,
    Contrastive,
    CrossEntropyConfig,
    FocalConfig,
    MaskedLanguageModeling,
    NoBaseline,
)
from trimtab.config.registry import require_module
from trimtab.data import LabelledTexts, PreparedData, fingerprint_of_sets, prepare_sets
from trimtab.evaluation import (
    Baseline,
    Details,
    Evaluation,
    SampleLosses,
    Weights,
    calibrate_temperature,
    groupings_of,
    judged_on,
    write_losses,
)
from trimtab.events import ArtifactLogged, EvaluationEnded
from trimtab.objective import ProbableTask, build_objective, build_task, class_weights
from trimtab.objective.tasks.parts import ClassTask
from trimtab.runs import RunDirectory
from trimtab.runs.calibration import write_calibration
from trimtab.runs.files import write_json
from trimtab.runs.privacy import disclosed
from trimtab.signals import Batch, LossTerms, ModelOutput, outputs_of
from trimtab.training.memory import out_of_memory_explained
from trimtab.training.precision import Precision

_SHOWN: Final = 300
"""Characters of a text that is named as hard."""


def build_evaluation(
    config: Config,
    model: nn.Module,
    data: PreparedData,
    variants: Mapping[str, Weights] | None = None,
    run: RunDirectory | None = None,
    teacher: nn.Module | None = None,
) -> Evaluation:
    """What judges `model`, where it lies, as `config` says: as it stands, or with each of its `variants`.

    With a `teacher` it is told how far its answers are from that one's. With `run` its rounds are compared with the
    baseline that `config` names. Raises: DataError for a further set that cannot be read; UsageError for a baseline
    that cannot be compared with.
    """
    parameter = next(model.parameters())
    device, judged = parameter.device, config.evaluation
    if judged.decoded and config.task.name == "seq2seq":
        require_module("sacrebleu", "text", f"evaluation.decoded={judged.decoded}")
    task = build_task(
        config.task,
        build_objective(config.objective, class_weights(config.task, data.targets)).to(device),
        data.targets,
        data.tokenizer.token_bytes,
    )
    if isinstance(task, ClassTask) and (judged.entropy or teacher is not None):
        size = outputs_of(config.task, data.targets, data.vocabulary_size).size
        task = ProbableTask(task, size=size, has_entropy=judged.entropy, teacher=teacher)
    return Evaluation(
        judged,
        model=model,
        task=task,
        data=data,
        batch_size=config.evaluation_batch_size,
        device=device,
        autocast=Precision(config.training.precision, device, parameter.dtype).autocast,
        variants=variants,
        selected=config.selected,
        seed=config.seed,
        sets=prepare_sets(
            judged.sets, config.data, config.task, tokenizer=data.tokenizer, targets=data.targets, seed=config.seed
        ),
        baselines={}
        if run is None or isinstance(judged.baseline, NoBaseline)
        else {
            of_set: Baseline(judged.baseline, run, judged_texts(config, data, of_set), of_set)
            for of_set in ("", *judged.sets)
        },
    )


def judged_texts(config: Config, data: PreparedData, of_set: str = "") -> str:
    """What tells apart the texts, and the samples made of them, that evaluations of `config` judge.

    Of the further set of that name, where there is one. Raises: DataError for one that cannot be read.
    """
    judged = config.evaluation
    task, objective = config.task, config.objective
    # The plain loss is judged: focal weights and smoothing are not in it.
    is_plain = isinstance(objective, CrossEntropyConfig | FocalConfig | BinaryCrossEntropyConfig)
    by_labels = isinstance(objective, BinaryCrossEntropyConfig)
    measured: list[Any] = [by_labels if is_plain else objective.model_dump()]
    if isinstance(task, MaskedLanguageModeling):
        measured += [task.mask_rate, config.seed]
    if isinstance(task, Contrastive):  # compared with what is judged at once
        measured.append(config.evaluation_batch_size)
    facts, stride = data.facts, judged.stride
    if of_set:
        content = fingerprint_of_sets({of_set: judged.sets[of_set]}, task)
        facts, stride = {**facts, "validation": {"sha256": content}, "validation_target_sha256": None}, None
    return judged_on(facts, config.data.sequence_length, judged.max_tokens, stride, measured)


def calibrate_run(
    run: RunDirectory,
    config: Config,
    model: nn.Module,
    data: PreparedData,
    step: int,
    weights: str,
    report: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Fit a temperature on the validation set for the `weights` of `step`, which `model` holds, and keep it in `run`.

    Raises: DataError where there are too few texts; StorageError.
    """
    evaluation = build_evaluation(config, model, data)
    found = calibrate_temperature(
        model,
        evaluation.task,
        evaluation.validation,
        batch_size=evaluation.batch_size,
        device=evaluation.device,
        autocast=evaluation.autocast,
        max_tokens=config.evaluation.max_tokens,
        progress=None if report is None else partial(report, "fitting a temperature"),
    ).to_json()
    write_calibration(run, step, weights, found)
    return found


def examine(
    run: RunDirectory,
    config: Config,
    model: nn.Module,
    data: PreparedData,
    step: int,
    weights: str,
    report: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Where `model`, which holds the `weights` of `step`, is wrong on the validation set; kept in `run`'s artifacts.

    Gives metrics, slices, hardest samples; of classes confusion and reliability. The losses of the samples are kept,
    too, for runs that compare with this one. Raises: StorageError.
    """
    evaluation = build_evaluation(config, model, data)
    task, judged = evaluation.task, evaluation.validation
    classes = () if task.name == "contrastive" else data.targets.classes  # of vectors no class is said
    details = Details(
        task, len(judged), groupings_of(task, judged, data.training, classes), len(classes), evaluation.device
    )
    sets = {"": judged, **evaluation.sets}
    losses = {of_set: SampleLosses(len(one), evaluation.device) for of_set, one in sets.items()}

    def look(batch: Batch, output: ModelOutput | Tensor, terms: LossTerms) -> None:
        details(batch, output, terms)
        losses[""](batch, output, terms)

    metrics = evaluation.metrics(report, {**losses, "": look})
    found = {"step": step, "weights": weights, "metrics": metrics, **details.found(classes)}
    if isinstance(judged, LabelledTexts):
        for one in found["hardest"]:
            text = data.tokenizer.decode(judged.row(one["sample"]).tolist())
            one["text"] = disclosed(text, config.privacy.samples)[:_SHOWN]
    write_json(run.details, found)
    for of_set, summed in losses.items():
        write_losses(run, step, judged_texts(config, data, of_set), summed.take(), of_set)
    return found


def evaluated(evaluation: Evaluation, step: int) -> tuple[EvaluationEnded, Sequence[ArtifactLogged]]:
    """A round of evaluation; where memory does not suffice for it, that is said."""
    shape = f"{evaluation.batch_size} × up to {evaluation.data.validation.sequence_length:,} tokens at once"
    hint = f"lower evaluation.batch_size, which is {evaluation.batch_size} here: " + (
        "a text is then told from fewer" if evaluation.task.name == "contrastive" else "the metrics are the same"
    )
    if evaluation.batch_size == 1:
        hint = "take a smaller model, or a shorter data.sequence_length"
    with out_of_memory_explained(f"in the evaluation after step {step:,}, {shape}", hint):
        return evaluation(step)
