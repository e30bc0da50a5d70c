"""Thin trainers with the defaults of one task: a `Trainer` for people who would rather not write a configuration."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Unpack, final

from torch import Tensor, nn

from trimtab.config import Config, load_config
from trimtab.config.nearest import did_you_mean, nearest_names
from trimtab.data import Tokenizer
from trimtab.errors import UsageError
from trimtab.evaluation import Sampling
from trimtab.events import Controller, Monitor
from trimtab.monitor.sinks.console import Console
from trimtab.trainer import Result, Trainer
from trimtab.training.optimizers import MakeOptimizer


class _TaskTrainer:
    """A `Trainer` over a preset and settings, and what shows its progress."""

    def __init__(
        self,
        preset: str,
        settings: Mapping[str, Any],
        *,
        run: str | Path | None,
        model: nn.Module | None,
        make_optimizer: MakeOptimizer | None,
        monitors: Sequence[Monitor],
        controllers: Sequence[Controller],
        progress: bool,
    ) -> None:
        config = load_config(preset, [f"{name}={json.dumps(value, default=str)}" for name, value in settings.items()])
        steps, metric = config.training.steps, config.checkpoint.metric
        self._console = Console(sys.stdout, steps, metric=metric) if progress else None
        self._trainer = Trainer(
            config,
            run=run,
            model=model,
            make_optimizer=make_optimizer,
            monitors=[*monitors, *([self._console] if self._console else [])],
            controllers=controllers,
            report=self._console.preparing if self._console else None,
        )

    @property
    def config(self) -> Config:
        """The whole configuration."""
        return self._trainer.config

    @property
    def model(self) -> nn.Module:
        """The trained model."""
        return self._trainer.trained()[0]

    def fit(self) -> Result:
        """Train. Raises: TrimtabError."""
        try:
            return self._trainer.fit()
        finally:
            if self._console is not None:
                self._console.close()


PRESETS: Final = {
    "causal_lm": "gpt-1m",
    "masked_lm": "encoder-1m",
    "classification": "classification",
    "token_classification": "encoder-1m",
    "regression": "regression",
    "seq2seq": "translation",
    "contrastive": "encoder-1m",
}
"""Task -> what `TransformerTrainer` begins with."""


@final
class TransformerTrainer(_TaskTrainer):
    """Trains a transformer for any task, from Python: a task's name and where the data is, or a preset of your own.

    `data` is text for causal_lm and masked_lm (without it the embedded corpus), and rows for the others, read as by
    `ClassificationTrainer`; which of their fields hold the targets is said by settings such as {"task.label": "kind"}.
    `preset` is a preset or a configuration file, by default one for the task; without `task` its own task is taken.
    `settings` are overrides; `model` any nn.Module: `trimtab.model.ForeignModel` says what it gets and gives.
    """

    def __init__(
        self,
        data: str | Path | None = None,
        *,
        task: str | None = None,
        validation: str | Path | None = None,
        text: str = "text",
        preset: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        run: str | Path | None = None,
        model: nn.Module | None = None,
        make_optimizer: MakeOptimizer | None = None,
        monitors: Sequence[Monitor] = (),
        controllers: Sequence[Controller] = (),
        progress: bool = True,
    ) -> None:
        """Raises: UsageError for an unknown task, or rows that are missing; ConfigError."""
        if task is not None and task not in PRESETS:
            hint = did_you_mean(nearest_names(task, PRESETS))
            raise UsageError(f"task must be one of {', '.join(PRESETS)}. Received: {task!r}", hint=hint)
        chosen = str(preset or PRESETS[task or "causal_lm"])
        kind = task or load_config(chosen).task.name
        reads_text = kind in ("causal_lm", "masked_lm")
        if data is None and preset is None and not reads_text:
            raise UsageError(f"{kind} needs rows", hint="the first argument is their file or folder")
        values: dict[str, Any] = {} if task is None else {"task.name": task}
        if task == "contrastive":
            values["objective"] = {"name": "info_nce"}
        for name, place in (("data.source", data), ("data.validation_source", validation)):
            if place is not None:
                path = Path(place)
                text_source = {"name": _source_name(path), "path": str(path)}
                values[name] = text_source if reads_text else _row_source(path, text)
        super().__init__(
            chosen,
            {**values, **(settings or {})},
            run=run,
            model=model,
            make_optimizer=make_optimizer,
            monitors=monitors,
            controllers=controllers,
            progress=progress,
        )

    def evaluate(self) -> dict[str, float]:
        """The task's metrics on the validation set."""
        return self._trainer.evaluate()

    def predict(self, texts: Sequence[str]) -> list[Tensor]:
        """The answer for each text, as `Trainer.predict` gives it. Raises: UsageError where the answer is a text."""
        return self._trainer.predict(texts)

    def generate(self, prompt: str = "", *, max_tokens: int = 100, seed: int = 0, **sampling: Unpack[Sampling]) -> str:
        """`prompt`, and what a language model writes after it; with task seq2seq the answer to it. As `write_text`."""
        return self._trainer.generate(prompt, max_tokens=max_tokens, seed=seed, **sampling)


@final
class LanguageModelTrainer(_TaskTrainer):
    """Trains a language model on your text, from Python.

    `text` is a file or a folder (.jsonl and .parquet are read as such), or None for the embedded corpus;
    `settings` are overrides such as {"training.steps": 500}; `model` any nn.Module from tokens_BT to logits_BTV;
    `progress` shows the run on standard output.
    """

    def __init__(
        self,
        text: str | Path | None = None,
        *,
        preset: str = "gpt-1m",
        settings: Mapping[str, Any] | None = None,
        run: str | Path | None = None,
        model: nn.Module | None = None,
        make_optimizer: MakeOptimizer | None = None,
        monitors: Sequence[Monitor] = (),
        controllers: Sequence[Controller] = (),
        progress: bool = True,
    ) -> None:
        source = {} if text is None else {"data.source": {"name": _source_name(Path(text)), "path": str(text)}}
        values = {**source, **(settings or {})}
        super().__init__(
            preset,
            values,
            run=run,
            model=model,
            make_optimizer=make_optimizer,
            monitors=monitors,
            controllers=controllers,
            progress=progress,
        )

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer it was trained with."""
        return self._trainer.trained()[1].tokenizer

    def compute_perplexity(self) -> float:
        """exp of the mean loss per token on the validation set."""
        return self._trainer.evaluate()["validation/perplexity"]

    def generate(self, prompt: str = "", *, max_tokens: int = 100, seed: int = 0, **sampling: Unpack[Sampling]) -> str:
        """`prompt`, and what the model writes after it. As `write_text`."""
        return self._trainer.generate(prompt, max_tokens=max_tokens, seed=seed, **sampling)


@final
class ClassificationTrainer(_TaskTrainer):
    """Trains an encoder to sort texts into classes, from Python.

    `rows` is a folder with a folder of text files for each class; or a .jsonl, .csv or .parquet file, or a folder of
    them, each row with a text in field `text` and its class in field `label`; with `multi_label` any number of labels.
    `validation` is another such file or folder; without it a part of the rows is held out. `settings` are overrides
    such as {"training.steps": 500}; `model` any nn.Module from tokens_BT to a number for each class:
    `trimtab.model.ForeignModel` says what it gets and gives; `progress` shows the run on standard output.
    """

    def __init__(
        self,
        rows: str | Path,
        *,
        validation: str | Path | None = None,
        text: str = "text",
        label: str = "label",
        multi_label: bool = False,
        preset: str = "encoder-1m",
        settings: Mapping[str, Any] | None = None,
        run: str | Path | None = None,
        model: nn.Module | None = None,
        make_optimizer: MakeOptimizer | None = None,
        monitors: Sequence[Monitor] = (),
        controllers: Sequence[Controller] = (),
        progress: bool = True,
    ) -> None:
        source = _row_source(Path(rows), text)
        names = {} if source["name"] == "folder" else {"label": label}
        values: dict[str, Any] = {
            "task": {"name": "classification", "multi_label": multi_label, **names},
            "data.source": source,
        }
        if validation is not None:
            values["data.validation_source"] = _row_source(Path(validation), text)
        if multi_label:
            values["objective"] = {"name": "binary_cross_entropy"}
        super().__init__(
            preset,
            {**values, **(settings or {})},
            run=run,
            model=model,
            make_optimizer=make_optimizer,
            monitors=monitors,
            controllers=controllers,
            progress=progress,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the model's outputs."""
        return self._trainer.trained()[1].targets.classes

    def compute_accuracy(self) -> float:
        """Part of the validation texts, or of decisions on their labels, that is right."""
        return self._trainer.evaluate()["validation/accuracy"]

    def predict_probabilities(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """How probable each class of each text is, with the temperature of `evaluation.calibration` if there is one."""
        chances = self._trainer.predict_probabilities(texts)
        return [dict(zip(self.classes, one.tolist(), strict=True)) for one in chances]

    def predict(self, texts: Sequence[str]) -> list[str] | list[list[str]]:
        """The class of each text, or its labels."""
        classes, answers = self.classes, self._trainer.predict(texts)
        if self.config.objective.name == "binary_cross_entropy":
            return [[classes[index] for index in answer.nonzero().flatten().tolist()] for answer in answers]
        return [classes[int(answer)] for answer in answers]


def _row_source(path: Path, text: str) -> dict[str, str]:
    """How rows are read, by the suffix of their file or files; a folder of other files has one for each class."""
    name = _source_name(path)
    if name == "text" and path.is_dir():
        return {"name": "folder", "path": str(path)}
    if name == "text":
        name = "jsonl"
    return {"name": name, "path": str(path), "field" if name == "jsonl" else "column": text}


def _source_name(path: Path) -> str:
    """How a file, or all files of a folder, are read: by their suffix, or as text."""
    readers = {".jsonl": "jsonl", ".parquet": "parquet", ".csv": "csv"}
    suffixes = {file.suffix for file in path.rglob("*") if file.is_file()} if path.is_dir() else {path.suffix}
    return readers.get(suffixes.pop(), "text") if len(suffixes) == 1 else "text"
