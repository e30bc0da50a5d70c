"""From easy to hard: pacing by the papers' formulas, draws as a pure function of the position, difficulty by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.config import (
    CompetencePacing,
    DataConfig,
    LinearPacing,
    PacingConfig,
    RootPacing,
    StepPacing,
    load_config,
)
from trimtab.config.task import Classification
from trimtab.data import LabelledTexts, PackedSequences, prepare_data
from trimtab.data.curriculum import CurriculumOrder, competence, rarity
from trimtab.data.order import Order
from trimtab.errors import ConfigError

TIMES = np.array([0.0, 0.25, 0.5, 1.0])


@pytest.mark.parametrize(
    "pacing, expected",
    [
        # By hand, from 0.1: equations 7 and 8 of the paper, and what they come to for other roots and stages.
        (LinearPacing(), [0.1, 0.325, 0.55, 1.0]),
        (CompetencePacing(), [0.1, math.sqrt(0.01 + 0.99 / 4), math.sqrt(0.01 + 0.99 / 2), 1.0]),
        (RootPacing(degree=1.0), [0.1, 0.325, 0.55, 1.0]),
        (RootPacing(degree=3.0), [0.1, (0.001 + 0.999 / 4) ** (1 / 3), (0.001 + 0.999 / 2) ** (1 / 3), 1.0]),
        (StepPacing(stages=2), [0.1, 0.1, 1.0, 1.0]),
        (StepPacing(stages=4), [0.1, 0.4, 0.7, 1.0]),
    ],
)
def test_pacing(pacing: PacingConfig, expected: list[float]) -> None:
    assert competence(pacing, 0.1, TIMES).tolist() == pytest.approx(expected)


def curriculum(number: int = 100, length: int = 3000, **more: Any) -> CurriculumOrder:
    more = {"pacing": LinearPacing(), "start": 0.1, "seed": 5} | more
    return CurriculumOrder(np.arange(number, dtype=np.float64), length=length, **more)


def test_only_what_is_easy_enough_is_drawn_and_all_of_it_alike() -> None:
    subject = curriculum()
    positions = np.arange(3000)
    samples, allowed = subject.samples_at(positions), subject.allowed(positions)
    assert allowed[0] == 10
    assert allowed[-1] == 100
    assert (np.diff(allowed) >= 0).all()
    assert (samples < allowed).all()
    # Ranks within what is allowed are uniform: their mean is a half, to 3 standard errors.
    assert abs(((samples + 0.5) / allowed).mean() - 0.5) < 3 * math.sqrt(1 / 12 / 3000)
    hardest = curriculum(hardest_first=True).samples_at(positions)
    assert (hardest >= 100 - allowed).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2999), min_size=1, max_size=20), st.integers(0, 3))
def test_a_draw_depends_on_nothing_but_its_position(positions: list[int], seed: int) -> None:
    whole = curriculum(seed=seed).samples_at(np.arange(3000))
    assert curriculum(seed=seed).samples_at(np.array(positions)).tolist() == whole[positions].tolist()


def test_of_equally_hard_samples_chance_decides() -> None:
    subject = CurriculumOrder(np.zeros(1000), length=100, pacing=StepPacing(stages=2), start=0.1, seed=1)
    first = set(subject.samples_at(np.arange(50)).tolist())
    assert max(first) > 500


@pytest.mark.parametrize("bucketing", [1, 4])
def test_epochs_begin_where_it_is_over(bucketing: int) -> None:
    lengths = np.arange(100) * 7 % 31
    plain = Order(100, seed=5, lengths=lengths, block=4, bucketing=bucketing)
    subject = curriculum(length=210)
    order = plain.after(subject)
    stream = order.sequences_at(np.arange(500))
    assert stream[210:].tolist() == plain.sequences_at(np.arange(290)).tolist()
    # The same samples as drawn, though texts of similar length stand together.
    size = 4 * bucketing
    for begin in range(0, 210, size):
        piece = np.arange(begin, min(begin + size, 210))
        assert sorted(stream[piece].tolist()) == sorted(subject.samples_at(piece).tolist())
    if bucketing > 1:
        spans = [np.ptp(lengths[stream[begin : begin + 4]]) for begin in range(0, 208, 4)]
        drawn = [np.ptp(lengths[subject.samples_at(np.arange(begin, begin + 4))]) for begin in range(0, 208, 4)]
        assert np.mean(spans) < 0.6 * np.mean(drawn)
    for positions in ([3, 208, 210], [499, 0], [17]):
        fresh = Order(100, seed=5, lengths=lengths, block=4, bucketing=bucketing).after(curriculum(length=210))
        assert fresh.sequences_at(np.array(positions)).tolist() == stream[positions].tolist()


def test_rarity_is_the_sum_of_surprises() -> None:
    """By hand: 'aaab' four times a, of which 3 in 4 tokens."""
    tokens = np.array([0, 0, 0, 1, 0, 0, 0, 1, 0], dtype=np.uint16)
    packed = PackedSequences(tokens, np.array([0]), 4, num_bytes=9)
    common, rare = -math.log(7 / 9), -math.log(2 / 9)
    assert rarity(packed).tolist() == pytest.approx([3 * common + rare, 3 * common + rare])
    short = PackedSequences(tokens[:7], np.array([0]), 4, num_bytes=7)
    common, rare = -math.log(6 / 7), -math.log(1 / 7)
    assert rarity(short).tolist() == pytest.approx([3 * common + rare, 2 * common])


def test_rarity_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.data.curriculum._TOKENS_AT_ONCE", 64)
    rows = [{"text": "a" * (3 + number % 5) + "z" * (number % 3), "label": number % 2} for number in range(60)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"name": "jsonl", "path": str(path)}
    config = DataConfig.model_validate(
        {"source": source, "validation_source": source, "tokenizer": {"name": "bytes"}, "sequence_length": 32}
    )
    training = prepare_data(config, Classification(), seed=0).training
    assert isinstance(training, LabelledTexts)
    texts = [str(row["text"]) + "\0" for row in rows]
    everything = "".join(texts)
    expected = [sum(-math.log(everything.count(c) / len(everything)) for c in text) for text in texts]
    assert rarity(training).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["data.curriculum.name=length"], "length is for texts of many lengths, and task causal_lm"),
        (["data.curriculum.name=rarity", "data.shuffle=false"], "data.shuffle is false"),
        (["data.curriculum={name: rarity, span: 0}"], "span is 0"),
        (
            [
                "data.curriculum.name=rarity",
                "data.source={name: mixture, sources: {a: {name: text, path: a}, b: {name: text, path: b}}}",
            ],
            "both say which samples come when",
        ),
        (
            [
                "data.curriculum={name: rarity, span: 2 epochs}",
                "training.accumulation_schedule={factors: [1, 2]}",
            ],
            "data.curriculum counts tokens or epochs",
        ),
    ],
)
def test_what_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides, environment={})
