"""One round of evaluation: metrics on the validation set and a fixed training slice, and samples of text."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, final

import torch
from torch import nn

from trimtab.config import EvaluationConfig
from trimtab.data import LabelledTexts, PackedSequences, PreparedData, Sequences
from trimtab.errors import NumericsError
from trimtab.evaluation.baseline import Baseline
from trimtab.evaluation.batch_norm import renew_batch_norm
from trimtab.evaluation.language import Look, evaluate
from trimtab.evaluation.sample_losses import SampleLosses
from trimtab.evaluation.translate import overlap_of, write_answers
from trimtab.evaluation.writing import write_text
from trimtab.events import ArtifactLogged, EvaluationEnded
from trimtab.model import translates
from trimtab.signals import Task, key

Weights = Callable[[], AbstractContextManager[None] | None]
"""Gives a context inside which the model holds certain weights; None while there are none."""

Report = Callable[[str, float], None]
"""Told what is being done, and how much of it is (0 to 1)."""


@final
class Evaluation:
    """Judges `model` on `data` as `config` says, in portions of `batch_size` sequences.

    Inside the context that `variants` gives for a name the model holds the weights of that name: '' are the plain ones,
    and the metrics of 'ema' are called `…@ema`; None where there are none of that name yet. Samples are written with
    those that are `selected`, or with plain ones while there are none; they are what is compared with the `baselines`,
    by set, "" the main one. Each of `sets` is judged as the validation set is.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        *,
        model: nn.Module,
        task: Task,
        data: PreparedData,
        batch_size: int,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
        seed: int,
        variants: Mapping[str, Weights] | None = None,
        selected: str = "",
        sets: Mapping[str, Sequences] | None = None,
        baselines: Mapping[str, Baseline] | None = None,
    ) -> None:
        self.config = config
        self.model, self.task, self.data = model, task, data
        self.batch_size = config.batch_size or batch_size
        self.device, self.autocast, self.seed = device, autocast, seed
        self.variants = {"": nullcontext} if variants is None else dict(variants)
        self.selected = selected
        self.sets, self.baselines = dict(sets or {}), dict(baselines or {})
        self.validation: Sequences = data.validation
        if config.stride is not None and isinstance(data.validation, PackedSequences):
            self.validation = data.validation.sliding(config.stride)
        self.report: Report | None = None
        """Told what is being done, at each portion, sample and answer of a round, and each batch for BatchNorm."""

    def __call__(self, step: int) -> tuple[EvaluationEnded, list[ArtifactLogged]]:
        """The round after `step` updates. Samples have the same prompts and seeds in every round."""
        begun = time.perf_counter()
        metrics: dict[str, float] = {}
        samples: list[ArtifactLogged] = []
        entered = {name: context for name, enter in self.variants.items() if (context := enter()) is not None}
        for name, context in entered.items():
            with context:
                leads = name == (self.selected if self.selected in entered else next(iter(entered)))
                sized = {of_set: len(self.sets.get(of_set, self.validation)) for of_set in self.baselines if leads}
                losses = {of_set: SampleLosses(size, self.device) for of_set, size in sized.items()}
                metrics |= named(self.metrics(self.report, losses), name)
                for of_set, summed in losses.items():
                    found = self.baselines[of_set].compare(step, summed.take())
                    metrics |= {f"{_prefix(of_set)}/{key}": value for key, value in found.items()}
                if leads:
                    samples = self._samples(step)
        return EvaluationEnded(step, metrics, time.perf_counter() - begun), samples

    def renew_batch_norm(self, batches: int) -> None:
        """Make the statistics of BatchNorm anew for the weights that the model holds."""
        renew_batch_norm(
            self.model,
            self.task,
            self.data.training,
            batches=batches,
            batch_size=self.batch_size,
            device=self.device,
            autocast=self.autocast,
            progress=_part_of(self.report, "renewing the statistics of BatchNorm"),
        )

    def _samples(self, step: int) -> list[ArtifactLogged]:
        samples, validation = self.config.samples, self.data.validation
        if translates(self.model) and isinstance(validation, LabelledTexts):
            return write_answers(
                self.model,
                validation,
                self.data.tokenizer,
                step,
                max_tokens=samples.max_tokens,
                device=self.device,
                progress=_part_of(self.report, "writing answers"),
            )
        if self.task.name != "causal_lm":
            return []
        written = []
        seeds = samples.seeds if samples.temperature > 0.0 else 1
        asked = [(index, draw) for index in range(len(samples.prompts)) for draw in range(seeds)]
        for place, (index, draw) in enumerate(asked if samples.max_tokens else ()):
            if self.report is not None:
                self.report("writing samples", place / len(asked))
            try:
                text = write_text(
                    self.model,
                    self.data.tokenizer,
                    samples.prompts[index],
                    task_name=self.task.name,
                    max_tokens=samples.max_tokens,
                    temperature=samples.temperature,
                    top_k=samples.top_k,
                    context_length=self.data.training.sequence_length,
                    seed=key(self.seed, draw, index, "generation"),
                )
            except NumericsError as error:
                # A run that diverged still has to say so, and to end by its own rules.
                text = f"({error.message})"
            name = f"sample-{index}" if draw == 0 else f"sample-{index}-{draw}"
            written.append(ArtifactLogged(step, "sample", name, text))
        return written

    def metrics(self, report: Report | None = None, looks: Mapping[str, Look] | None = None) -> dict[str, float]:
        """`validation/...`, and with a training slice its loss and the generalization gap, both in eval mode.

        `report` is told what is being judged, and how far that is (0 to 1); `looks` are shown the set of their name, ""
        the validation set.
        """
        looks = looks or {}
        most = self.config.max_tokens
        measured = self._measure(self.validation, most, report, "judging the validation text", looks.get(""))
        metrics = {f"validation/{name}": value for name, value in measured.items()}
        for name, sequences in self.sets.items():
            measured = self._measure(sequences, most, report, f"judging the set {name}", looks.get(name))
            metrics |= {f"{_prefix(name)}/{metric}": value for metric, value in measured.items()}
        if self.config.decoded and translates(self.model) and isinstance(self.validation, LabelledTexts):
            try:
                overlap = overlap_of(
                    self.model,
                    self.validation,
                    self.data.tokenizer,
                    num_texts=self.config.decoded,
                    device=self.device,
                    progress=_part_of(report, "answering validation texts"),
                )
            except NumericsError:
                overlap = {}  # a run that diverged ends by its own rules
            metrics |= {f"validation/{name}": value for name, value in overlap.items()}
        if self.config.gap_tokens:
            # No more than of the validation text: the difference of the two is no surer for it.
            judged = self.data.validation.num_tokens if most is None else min(most, self.data.validation.num_tokens)
            size = min(self.config.gap_tokens, max(judged, 1))
            slice_ = self._measure(self.data.training, size, report, "judging a part of the training text")
            metrics["training_slice/loss"] = slice_["loss"]
            metrics["generalization_gap"] = metrics["validation/loss"] - metrics["training_slice/loss"]
        return metrics

    def _measure(
        self,
        sequences: Sequences,
        max_tokens: int | None,
        report: Report | None,
        what: str,
        look: Look | None = None,
    ) -> dict[str, float]:
        return evaluate(
            self.model,
            self.task,
            sequences,
            batch_size=self.batch_size,
            device=self.device,
            autocast=self.autocast,
            max_tokens=max_tokens,
            progress=_part_of(report, what),
            look=look,
        )


def _prefix(of_set: str) -> str:
    """What the names of the metrics of a set begin with."""
    return f"validation/{of_set}" if of_set else "validation"


def _part_of(report: Report | None, what: str) -> Callable[[float], None] | None:
    return None if report is None else partial(report, what)


def named(metrics: Mapping[str, float], variant: str) -> dict[str, float]:
    """`metrics` as those of a variant of the weights are called: `validation/loss@ema`."""
    return {f"{name}@{variant}" if variant else name: value for name, value in metrics.items()}
