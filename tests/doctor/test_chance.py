"""What a few texts, or evaluations that scatter, cannot show is not said."""

from __future__ import annotations

import numpy as np
import pytest
from cases import case_of, noise_of

from trimtab.doctor import Case
from trimtab.doctor.diagnose import diagnose


def learned_by_heart(texts: int) -> Case:
    """Three classes whose labels tell nothing: the training loss falls to 0 at once, the validation loss rises."""
    loss = 0.002 + 1.08 * np.exp(-np.arange(1, 151) / 12)
    case = case_of(
        loss,
        validation={step: 2.6 + 0.005 * step for step in range(25, 151, 25)},
        facts={
            "task": "classification",
            "targets": {"classes": ["a", "b", "c"], "counts": [12, 12, 12]},
            "validation": {"documents": texts},
        },
    )
    case.history.add("validation/accuracy", np.arange(25, 151, 25), np.full(6, 1 / 3) + 0.002 * noise_of(6))
    return case


@pytest.mark.parametrize("texts", [7, 30])
def test_labels_and_kinds_are_not_judged_by_a_few_texts(texts: int) -> None:
    diagnosis = diagnose(learned_by_heart(texts))
    assert [one.code for one in diagnosis.findings if one.severity != "info"] == ["validation-too-small"]
    needs = {one.code: one.needs[0] for one in diagnosis.withheld}
    assert "more than 30 validation texts" in needs["random-labels"]
    assert "more than 30 validation texts" in needs["validation-shift"]


def test_many_texts_do_and_parts_of_next_to_nothing_are_not_told() -> None:
    diagnosis = diagnose(learned_by_heart(1_000))
    assert diagnosis.findings[0].code == "random-labels"
    told = [item.text for one in diagnosis.findings for item in one.evidence]
    assert any("off the training loss, which was 0." in text for text in told)
    assert not any("000 %" in text for text in told)


def rising(accuracy: np.ndarray, texts: int | None = None) -> str:
    """All evidence of a run that overfits from its second evaluation of thirty on."""
    facts = {} if texts is None else {"task": "classification", "validation": {"documents": texts}}
    loss = 0.03 + 0.6 * np.exp(-np.arange(1, 301) / 60)
    validation = {10 * at: 0.74 + 0.04 * abs(at - 2) for at in range(1, 31)}
    case = case_of(loss, validation=validation, facts=facts)
    case.history.add("validation/accuracy", np.arange(10, 301, 10), accuracy)
    (found,) = [one for one in diagnose(case).findings if "overfitting" in (one.code, *one.consequences)]
    return " ".join(item.text for item in found.evidence)


def test_an_accuracy_improves_only_by_more_than_chance() -> None:
    at_chance = 0.5 + 0.012 * noise_of(30, 3)
    at_chance[1], at_chance[-3:] = 0.485, 0.51
    assert "accuracy still improved" not in rising(at_chance)
    better = np.linspace(0.6, 0.8, 30)
    assert "accuracy still improved" in rising(better)
    assert "accuracy still improved" in rising(better, texts=1_000)
    assert "accuracy still improved" not in rising(better, texts=15)
