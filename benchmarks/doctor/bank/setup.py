"""What a run of trimtab's own trainer is put together from, before anything is planted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from bank import spread
from bank.patches import Patch
from bank.scenario import Scenario

if TYPE_CHECKING:
    from torch import nn

    from trimtab.events import Controller

SIZES: Final[dict[str, dict[str, Any]]] = {
    "tuning": {
        "model": {"num_layers": 2, "hidden_size": 48, "num_heads": 2, "activation": "gelu"},
        "width": 48,
        "deeper": 4,
        "sequence_length": 64,
        "row_length": 48,
        "tokenizer": {"name": "bytes"},
        "row_tokenizer": {"name": "bpe", "vocabulary_size": 700},
        "micro_batch_size": 8,
        "steps": 300,
        "rate": {"lm": 5e-3, "classification": 1.2e-3, "seq2seq": 4e-3, "regression": 1e-3, "mlp": 4e-3, "cnn": 4e-3},
        "schedule": {"name": "cosine", "warmup": 0.05, "floor": 0.1},
        "evaluations": 10,
    },
    "test": {
        "model": {"num_layers": 3, "hidden_size": 40, "num_heads": 4, "activation": "swiglu"},
        "width": 40,
        "deeper": 5,
        "sequence_length": 40,
        "row_length": 36,
        "tokenizer": {"name": "bpe", "vocabulary_size": 420},
        "row_tokenizer": {"name": "bpe", "vocabulary_size": 560},
        "micro_batch_size": 12,
        "steps": 270,
        "rate": {"lm": 4e-3, "classification": 1.5e-3, "seq2seq": 3e-3, "regression": 1e-3, "mlp": 5e-3, "cnn": 3e-3},
        "schedule": {"name": "linear", "warmup": 20},
        "evaluations": 12,
    },
}
"""What the parts have in common with nobody: sizes, tokens, lengths, rates, schedules."""


@final
@dataclass
class Setup:
    """A run that may still be changed: faults and oddities are functions that change it."""

    scenario: Scenario
    settings: dict[str, Any]
    folder: Path
    """That of the run, in which further files may be written before it begins."""
    data: Path
    """That of the part's data."""
    sizes: dict[str, Any]
    model: Callable[[int, int], nn.Module] | None = None
    """A module from elsewhere, from its vocabulary and seed."""
    make_optimizer: Callable[[list[dict[str, Any]]], Any] | None = None
    controllers: list[Controller] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    resumed_patches: list[Patch] = field(default_factory=list)
    """Those of the second attempt alone."""
    killed_at: int | None = None
    onset: int | None = None
    onset_is_turn: bool = False
    """The onset is the step of the lowest validation loss, which is known afterwards."""

    @property
    def steps(self) -> int:
        """Those that are planned."""
        steps: int = self.settings["training"]["steps"]
        return steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self.settings["training"]["steps"] = steps
        self.settings["evaluation"]["every"] = max(1, steps // self.sizes["evaluations"])
        self.settings["logging.examine"] = {"every": max(1, steps // 3)}

    @property
    def rate(self) -> float:
        """The full rate."""
        rate: float = self.settings["optimizer.learning_rate"]
        return rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self.settings["optimizer.learning_rate"] = rate

    @property
    def is_rows(self) -> bool:
        """Whether samples are rows, not pieces of a long text."""
        return self.scenario.task in ("classification", "seq2seq", "regression")

    @property
    def batch(self) -> int:
        """Sequences in a micro-batch."""
        batch: int = self.settings["training"]["micro_batch_size"]
        return batch

    def strong(self, strong: Any, mild: Any) -> Any:
        """One of two values, by the severity."""
        if self.scenario.part == "spread":
            return spread.between(self.scenario, strong, mild)
        return strong if self.scenario.severity == "strong" else mild

    def at(self, part: float) -> int:
        """A step about there, and the onset of the fault."""
        self.onset = max(2, round(self.steps * part * self.scenario.draw("onset").uniform(0.9, 1.1)))
        return self.onset

    def write_rows(self, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
        """A file of rows of this run's own."""
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    def write_text(self, text: str, name: str = "text.txt") -> str:
        """A text of this run's own."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def use_rows(self, rows: list[dict[str, Any]], held_out: list[dict[str, Any]] | None = None) -> None:
        """Train on these rows, and judge on `held_out` where that is given."""
        self.settings["data.source"] = {**self.settings["data.source"], "path": self.write_rows(rows)}
        if held_out is not None:
            source = {**self.settings["data.source"], "path": self.write_rows(held_out, "held_out.jsonl")}
            self.settings["data.validation_source"] = source
            self.settings.pop("data.validation_fraction", None)

    def use_text(self, text: str, held_out: str | None = None) -> None:
        """Train on this text, and judge on `held_out` where that is given."""
        self.settings["data.source"] = {"name": "text", "path": self.write_text(text)}
        if held_out is not None:
            path = self.write_text(held_out, "held_out.txt")
            self.settings["data.validation_source"] = {"name": "text", "path": path}


def begin(scenario: Scenario, folder: Path, data: Path) -> Setup:
    """A sound run of this part and task, with what is drawn for it."""
    sizes = spread.sizes_of(scenario) if scenario.part == "spread" else SIZES[scenario.part]
    draw = scenario.draw("base")
    task = scenario.task
    steps = round(sizes["steps"] * draw.uniform(0.85, 1.2))
    model: dict[str, Any] = {"name": "decoder", **sizes["model"]}
    settings: dict[str, Any] = {
        "data.source": {"name": "text", "path": str(data / "corpus.txt")},
        "data.tokenizer": sizes["tokenizer"],
        "data.sequence_length": sizes["sequence_length"],
        "model": model,
        "optimizer.learning_rate": sizes["rate"][task] * draw.uniform(0.75, 1.25),
        "schedule": dict(sizes["schedule"]),
        "training": {
            "steps": steps,
            "micro_batch_size": sizes["micro_batch_size"],
            "threads": 1,
            "compile": "off",
            "device": "cpu",
        },
        "evaluation": {"every": 1, "max_tokens": 4_096, "batch_size": 64, "gap_tokens": 2_048},
        "evaluation.samples.max_tokens": 0,
        "checkpoint": {"keep_latest": 1},
        "stopping": {"name": "none"},
        "doctor.live": False,
        "seed": scenario.seed,
        "name": scenario.name,
    }
    if task in ("classification", "seq2seq", "regression"):
        settings["data.source"] = {"name": "jsonl", "path": str(data / "rows.jsonl")}
        settings["data.tokenizer"] = sizes["row_tokenizer"]
        settings["data.sequence_length"] = sizes["row_length"]
        settings["data.validation_fraction"] = 0.2
        settings["training"]["micro_batch_size"] = 2 * sizes["micro_batch_size"]
        settings["task"] = {"name": task}
        model["name"] = "encoder"
        model["dropout"] = {"residual": 0.15, "feed_forward": 0.15}
        settings["evaluation"]["max_tokens"] = 12_000
    if task == "regression":
        settings["objective"] = {"name": "mse"}
    if task == "seq2seq":
        settings["data.source"]["field"] = "signature"
        model |= {"name": "encoder_decoder", "num_layers": max(1, sizes["model"]["num_layers"] - 1)}
    if scenario.part == "spread":
        spread.vary(scenario, settings)
    setup = Setup(scenario, settings, folder, data, sizes)
    setup.steps = steps
    if task in ("mlp", "cnn"):
        from bank import models

        kind = models.WindowMlp if task == "mlp" else models.CausalConvolutions
        settings["model"] = {"name": "decoder", **sizes["model"]}  # it is not built: that from elsewhere is
        setup.model = lambda vocabulary, seed: kind(vocabulary, sizes["width"], seed=seed)
    return setup
