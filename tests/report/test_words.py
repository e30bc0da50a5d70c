"""How things are called."""

from __future__ import annotations

from example_runs import CASES

from trimtab.doctor import Remedy
from trimtab.report import words


def test_a_summary_is_taken_apart_into_its_three_sentences() -> None:
    for name, make in CASES.items():
        parts = words.sentences(make()[1].summary)
        assert parts is not None, name
        assert " ".join(parts) == make()[1].summary
    assert words.sentences("Something else.") is None


def test_overrides_are_words_of_a_command_line() -> None:
    remedy = Remedy("", "trimtab", {"optimizer.learning_rate": 3e-4, "name": "a b", "stopping.name": "none"})
    assert words.overrides(remedy) == ["optimizer.learning_rate=0.0003", "'name=\"a b\"'", "stopping.name=none"]
    assert words.command_with("runs/x/config.yaml", Remedy("", "trimtab", {"seed": 1})) == (
        "trimtab train runs/x/config.yaml seed=1"
    )


def test_units_and_names() -> None:
    assert words.metric_name("validation/loss") == "validation loss"
    assert words.metric_name("user/my_thing") == "my thing"
    assert words.metric_unit("validation/other/loss@ema") == "nats"
    assert words.metric_unit("grad_norm") == ""
    assert words.metric_unit("unknown") == ""
    assert words.metric_value("memory_bytes", 9.44e8) == "944.0 MB"
    assert words.metric_value("validation/accuracy", 0.1234) == "12.3 %"
    assert words.metric_value("learning_rate", 3e-4) == "3.0e-4"
    assert words.metric_value("generalization_gap", 0.1) == "+0.1000"
