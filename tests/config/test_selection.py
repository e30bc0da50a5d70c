"""What tells the best checkpoint, where nobody says; and what one looks at first."""

from __future__ import annotations

import pytest

from trimtab.config import (
    CheckpointConfig,
    Classification,
    Config,
    EmaConfig,
    NoStopping,
    PatienceStopping,
    flatten,
    load_config,
)
from trimtab.config.fit import FITS, leading_curves
from trimtab.report.differences import differences_of
from trimtab.runs.metrics import better_direction

ROWS = "data.source={name: jsonl, path: rows.jsonl}"
BINARY = "objective.name=binary_cross_entropy"


@pytest.mark.parametrize(
    ("settings", "best", "waits"),
    [
        ([], "loss", "loss"),
        (["task.name=classification"], "accuracy", "loss"),
        (["task={name: classification, multi_label: true}", BINARY], "micro_f1", "loss"),
        (["task.name=token_classification"], "macro_f1", "loss"),
        (["task.name=regression", "objective.name=mse"], "loss", "loss"),
        (["task.name=classification", "checkpoint.metric=validation/mcc"], "mcc", "loss"),
        (["task.name=classification", "stopping.metric=validation/mcc"], "mcc", "mcc"),
        (["task.name=classification", "checkpoint.metric=validation/mcc", "stopping.patience=9"], "mcc", "loss"),
        (["averaging={name: ema, evaluate: average}"], "loss@ema", "loss@ema"),
        (["averaging.name=ema", "checkpoint.metric=validation/loss@ema"], "loss@ema", "loss@ema"),
        (["task.name=classification", "averaging={name: swa, evaluate: average}"], "accuracy@swa", "loss@swa"),
    ],
)
def test_what_is_best_is_what_the_task_is_for(settings: list[str], best: str, waits: str) -> None:
    rows = [ROWS, "model={name: encoder}"] if any("task" in line for line in settings) else []
    config = load_config(None, [*rows, *settings], environment={})
    assert config.checkpoint.metric == f"validation/{best}"
    assert getattr(config.stopping, "metric", None) == f"validation/{waits}"
    assert leading_curves(config)[0] == config.checkpoint.metric
    assert all(name.endswith(best.partition("@")[1] + best.partition("@")[2]) for name in leading_curves(config))


def test_without_patience_nothing_waits() -> None:
    config = load_config(None, ["stopping={name: none}", "checkpoint.keep_best=2"], environment={})
    assert config.checkpoint.metric == "validation/loss"
    assert config.stopping.name == "none"


@pytest.mark.parametrize("task", FITS)
def test_what_leads_has_a_direction(task: str) -> None:
    assert all(better_direction(f"validation/{name}") != "neither" for name in FITS[task].leading)


def test_what_follows_from_the_task_is_not_told_as_set() -> None:
    written = [ROWS, "model={name: encoder}", "task.name=classification"]
    for more, told in ([], set()), (["checkpoint.metric=validation/loss"], {"checkpoint.metric"}):
        settings = flatten(load_config(None, [*written, *more], environment={}))
        _, changed = differences_of(settings)
        assert {key for key, _, _ in changed if key.endswith("metric")} == told


def test_sections_in_python_say_no_more_than_was_written() -> None:
    of_classes = {
        "task": Classification(label="label"),
        "data": {"source": {"name": "jsonl", "path": "rows.jsonl"}},
        "model": {"name": "encoder"},
    }
    config = Config(**of_classes, checkpoint=CheckpointConfig(every=10), stopping=PatienceStopping(patience=3))
    assert (config.checkpoint.every, config.checkpoint.metric) == (10, "validation/accuracy")
    assert config.stopping == PatienceStopping(patience=3, metric="validation/loss")
    said = Config(**of_classes, checkpoint=CheckpointConfig(metric="validation/mcc"), stopping=NoStopping())
    assert (said.checkpoint.metric, said.stopping) == ("validation/mcc", NoStopping())
    average = Config(averaging=EmaConfig(evaluate="average"), stopping=PatienceStopping(patience=3))
    assert average.stopping == PatienceStopping(patience=3, metric="validation/loss@ema")
    assert average.checkpoint.metric == "validation/loss@ema"
