from __future__ import annotations

import pytest

from trimtab.config import Config, ConstantSchedule, NoStopping, TextSource, difference, flatten, load_config
from trimtab.config.data import DataConfig
from trimtab.config.keys import keys


def test_flatten_has_every_value_once() -> None:
    values = flatten(Config())
    assert values["optimizer.learning_rate"] == 3e-4
    assert values["model.norm.name"] == "layer_norm"
    assert values["data.validation_source"] is None
    assert values["lint.allow"] == ()
    assert set(values) <= set(keys())


def test_difference() -> None:
    old = Config()
    assert difference(old, old) == []
    new = load_config(None, ["training.steps=7", "stopping.name=none"], environment={})
    assert difference(old, new) == [
        ("training.steps", 1000, 7),
        ("stopping.name", "patience", "none"),
        ("stopping.patience", 5, None),
        ("stopping.min_delta", 0.0, None),
        ("stopping.metric", "validation/loss", None),
        ("stopping.restore_best", True, None),
    ]
    assert new.stopping == NoStopping()


def test_difference_tells_a_step_from_the_whole_run() -> None:
    one, all_ = (Config(schedule=ConstantSchedule(warmup=span)) for span in (1, 1.0))
    assert difference(one, all_) == [("schedule.warmup", 1, 1.0)]


def test_difference_of_a_section_that_was_not_there() -> None:
    new = Config(data=DataConfig(validation_source=TextSource(path="x")))
    assert [key for key, _, _ in difference(Config(), new)] == [
        "data.validation_source.name",
        "data.validation_source.path",
        "data.validation_source.pattern",
    ]


@pytest.mark.parametrize(
    "path, allowed",
    [
        ("training.steps", "a whole number at least 1"),
        ("checkpoint.every", "a whole number at least 1, or null"),
        ("logging.every", "a whole number from 1 to 1000"),
        ("optimizer.beta1", "a number at least 0.0 and less than 1.0"),
        ("training.device", "one of: auto, cpu, cuda"),
        ("training.deterministic", "true or false"),
        ("evaluation.samples.prompts", "a list of texts"),
        ("data.source.packages", "a list of texts, not empty"),
        ("data.source.path", "text, not empty"),
        ("optimizer.arguments", "a mapping of names to values"),
        ("stopping", "a section whose name is one of: patience, none"),
        (
            "data.validation_source",
            "a section whose name is one of: embedded, text, jsonl, parquet, csv, dataset, folder; or null",
        ),
        ("model.dropout", "a section with some of the keys: embedding, head"),  # of the last variant, a cnn
    ],
)
def test_what_is_allowed_in_words(path: str, allowed: str) -> None:
    assert keys()[path][-1].allowed == allowed
