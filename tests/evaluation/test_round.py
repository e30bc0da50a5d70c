"""How much is judged in a round."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from trimtab.config import EvaluationConfig
from trimtab.evaluation import round as rounds


@pytest.mark.parametrize(
    ("gap_tokens", "max_tokens", "judged"), [(65_536, None, 13_700), (65_536, 4096, 4096), (1000, None, 1000)]
)
def test_the_training_slice_is_no_larger_than_what_is_judged(
    monkeypatch: pytest.MonkeyPatch, gap_tokens: int, max_tokens: int | None, judged: int
) -> None:
    asked: dict[str, Any] = {}

    def evaluate(model: Any, task: Any, sequences: Any, *, max_tokens: int | None, **_: Any) -> dict[str, float]:
        asked[sequences.name] = max_tokens
        return {"loss": 1.0}

    monkeypatch.setattr(rounds, "evaluate", evaluate)
    training = SimpleNamespace(name="training", num_tokens=10**6)
    validation = SimpleNamespace(name="validation", num_tokens=13_700)
    data: Any = SimpleNamespace(training=training, validation=validation)
    nothing: Any = None
    evaluation = rounds.Evaluation(
        EvaluationConfig(gap_tokens=gap_tokens, max_tokens=max_tokens),
        model=nothing,
        task=nothing,
        data=data,
        batch_size=4,
        device=nothing,
        autocast=nothing,
        seed=0,
    )
    evaluation.metrics()
    assert asked == {"validation": max_tokens, "training": judged}
