"""What the doctor says of tags that counting words tells, or does not: on facts beside curves, and in a short run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import Array, case_of, noise_of

from trimtab import Trainer, load_config
from trimtab.doctor import Case, Finding
from trimtab.doctor.diagnose import ask, diagnose
from trimtab.doctor.load import open_case
from trimtab.doctor.rules import label_noise, random_labels
from trimtab.runs import RunDirectory

STEPS = 240
COUNTS = (4600, 2400, 1600, 900, 500)
"""Of five tags; a model that sees no word costs 1.36."""
BLIND = 1.358
NOTHING: dict[str, Any] = {"accuracy": 0.44, "sure_errors": [0.55, 0.56], "validation_accuracy": 0.43}


def tagged(loss: Array, judged: float, right: float, counts: tuple[int, ...] = COUNTS, **labels: Any) -> Case:
    """A run over tags, with what counting tells of them."""
    counted = {
        "texts": 3600,
        "positions": 36_000,
        "answers": 35_000.0,
        "majority": max(counts) / sum(counts),
        "validation_texts": 300,
        "validation_positions": 3000,
        "validation_answers": 2900.0,
        **labels,
    }
    counted.setdefault("validation_precision", counted["validation_accuracy"])
    facts = {
        "task": "token_classification",
        "targets": {"classes": list("abcde")[: len(counts)], "counts": list(counts)},
        "validation": {"documents": 300, "tokens": 15_000},
        "counting": {"labels": counted},
    }
    evaluated = np.arange(20, STEPS + 1, 20)
    levels = judged + (loss[0] - judged) * np.exp(-evaluated / 20)
    case = case_of(loss, validation=dict(zip(evaluated.tolist(), levels.tolist(), strict=True)), facts=facts)
    case.history.add("validation/accuracy", evaluated, right + 0.002 * noise_of(len(evaluated)))
    return case


def standing(level: float) -> Array:
    return level + 0.25 * np.exp(-np.arange(STEPS) / 10) + 0.03 * noise_of(STEPS)


def falling(end: float) -> Array:
    return end + (1.6 - end) * np.exp(-np.arange(STEPS) / 30) + 0.03 * noise_of(STEPS)


def found(case: Case, code: str) -> Finding | None:
    return next((one for one in ask(code, case) if isinstance(one, Finding)), None)


def lead(case: Case) -> str | None:
    return next((one.code for one in diagnose(case).findings if one.severity != "info"), None)


def test_tags_that_no_word_tells_are_random_and_lead() -> None:
    case = tagged(standing(BLIND), BLIND + 0.01, 0.46, **NOTHING)
    finding = found(case, random_labels.CODE)
    assert finding is not None
    assert finding.severity == "warning"
    assert lead(case) == random_labels.CODE
    assert found(case, label_noise.CODE) is None
    # Learned by heart they are, too.
    assert lead(tagged(falling(0.6), BLIND + 0.05, 0.44, **NOTHING)) == random_labels.CODE


@pytest.mark.parametrize(
    "told",
    [
        {"accuracy": 0.6, "sure_errors": [0.2, 0.35], "validation_accuracy": 0.6},
        # The surest ones are right: rare tags beside one that is nearly all.
        {"accuracy": 0.461, "sure_errors": [0.2, 0.5], "validation_accuracy": 0.46},
        # Better than the most frequent one by more than chance, of so many.
        {"accuracy": 0.48, "sure_errors": [0.5, 0.52], "validation_accuracy": 0.48},
    ],
)
def test_tags_that_words_tell_a_little_are_not_random(told: dict[str, Any]) -> None:
    assert found(tagged(standing(BLIND), BLIND + 0.01, 0.46, **told), random_labels.CODE) is None


def test_of_few_tags_that_no_word_tells_it_takes_a_model_that_learns_them_by_heart() -> None:
    few = {**NOTHING, "texts": 80, "positions": 800, "answers": 600.0}
    assert found(tagged(standing(BLIND), BLIND + 0.01, 0.46, **few), random_labels.CODE) is None
    assert found(tagged(falling(0.6), BLIND + 0.05, 0.44, **few), random_labels.CODE) is not None


def test_tags_that_a_model_learns_are_not_random_whatever_words_tell() -> None:
    for judged, right in ((0.9, 0.65), (BLIND - 0.06, 0.5)):
        assert found(tagged(falling(judged), judged, right, **NOTHING), random_labels.CODE) is None
    # One tag that is nearly all shows nothing.
    most = {**NOTHING, "accuracy": 0.945, "validation_accuracy": 0.945, "sure_errors": [0.06, 0.05]}
    assert found(tagged(standing(0.21), 0.21, 0.95, counts=(9500, 500), **most), random_labels.CODE) is None


NOISY: dict[str, Any] = {"accuracy": 0.53, "sure_errors": [0.44, 0.47], "validation_accuracy": 0.75}


def test_training_tags_that_words_tell_far_worse_than_validation_tags_are_noise() -> None:
    case = tagged(falling(1.1), 0.8, 0.83, **NOISY)
    finding = found(case, label_noise.CODE)
    assert finding is not None
    assert finding.severity == "warning"
    assert "75%" in " ".join(one.text for one in finding.evidence)
    assert lead(case) == label_noise.CODE


def test_more_of_an_easy_tag_in_validation_is_no_noise() -> None:
    grows = {**NOISY, "sure_errors": [0.05, 0.4]}
    assert found(tagged(falling(1.1), 0.8, 0.83, **grows), label_noise.CODE) is not None
    for fewer in ({"validation_precision": 0.55}, {"validation_accuracy": 0.6}, {"answers": 40.0}):
        assert found(tagged(falling(1.1), 0.8, 0.83, **{**grows, **fewer}), label_noise.CODE) is None


def test_errors_text_by_text_are_of_what_words_do_not_tell() -> None:
    """Wrong tags on both sides come one by one; a tag that hangs on the text as a whole does not, and a model that gets
    it right shows that tags are right."""
    even = {"accuracy": 0.72, "sure_errors": [0.2, 0.22], "validation_accuracy": 0.72}
    for answers, right, expected in ((35_000.0, 0.72, True), (12_000.0, 0.72, False), (35_000.0, 0.95, False)):
        case = tagged(falling(1.1), 1.0, right, answers=answers, **even)
        assert (found(case, label_noise.CODE) is not None) == expected


def test_tags_beside_their_words_are_told_in_a_run(tmp_path: Path) -> None:
    """Words of three kinds, and their tags shuffled over all of them."""
    draw, kinds = random.Random(0), {"fruit": "apple pear plum", "tool": "saw file drill", "O": "the and with of"}
    words = {word: kind for kind, those in kinds.items() for word in those.split()}
    rows = [{"text": draw.choices([*words], k=8)} for _ in range(400)]
    tags = [words[word] for row in rows for word in row["text"]]
    draw.shuffle(tags)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**row, "tags": [tags.pop() for _ in row["text"]]}) + "\n" for row in rows))
    settings = {
        "task": {"name": "token_classification"},
        "model": {"name": "encoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2},
        "data": {
            "source": {"name": "jsonl", "path": str(path)},
            "tokenizer": {"name": "bytes"},
            "sequence_length": 56,
            "validation_fraction": 0.2,
        },
        "training": {"steps": 40, "micro_batch_size": 8, "device": "cpu"},
        "evaluation": {"every": 5},
    }
    Trainer(load_config(settings, environment={}), run=tmp_path / "run").fit()
    case = open_case(RunDirectory.open(tmp_path / "run"))
    assert case.number("counting", "labels", "positions") == pytest.approx(8 * 320, rel=0.1)
    assert lead(case) == random_labels.CODE
