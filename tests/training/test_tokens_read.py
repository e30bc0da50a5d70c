"""A classifier reads more tokens than it gives answers; both are told, and people see the tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trimtab.config import load_config
from trimtab.data import LabelledTexts, PackedSequences, Ragged
from trimtab.events import StepsEnded
from trimtab.monitor.sinks.console_progress import Progress
from trimtab.runs import History
from trimtab.runs.pace import Pace
from trimtab.trainer import Trainer
from trimtab.training.tokens_read import counts_of

LENGTHS = [3, 5, 2, 4]


def texts(lengths: list[int]) -> Ragged:
    starts = np.cumsum([0, *lengths])
    return Ragged(np.full(starts[-1], 7, dtype=np.uint16), starts)


@pytest.mark.parametrize(
    ("targets", "second", "counted", "read"),
    [
        (np.array([0, 1, 0, 1]), None, 4, 14),
        (np.zeros((4, 3), dtype=np.float32), None, 12, 14),
        # A second text that is written is read up to its last token, and asked for from its first to its end.
        (None, [2, 6, 3, 2], 13, 27),
        # A second text that belongs to the first is read whole.
        (np.array([0, 1, 2, 3]), [2, 6, 3, 2], 4, 27),
    ],
)
def test_padding_is_not_read(targets: np.ndarray | None, second: list[int] | None, counted: int, read: int) -> None:
    rows = LabelledTexts(
        texts(LENGTHS),
        targets,
        end_of_text=0,
        sequence_length=8,
        second=None if second is None else texts(second),
        second_length=8,
    )
    batches = [rows.batch(np.array(some), 3) for some in ([0, 1], [2, 3])]
    assert counts_of(batches, tells_read=True) == {"tokens": counted, "tokens_read": read}
    assert counts_of(batches, tells_read=False) == {"tokens": counted}


def test_a_language_model_is_asked_for_what_it_reads() -> None:
    packed = PackedSequences(np.arange(20, dtype=np.uint16), np.array([0]), 8, num_bytes=20)
    counts = counts_of([packed.batch(np.array([0, 1, 2]))], tells_read=True)
    assert counts == {"tokens": 19, "tokens_read": 19}


def test_the_line_of_progress_shows_tokens() -> None:
    progress = Progress(100, "validation/loss")
    steps = {"train/loss": np.full(10, 2.0), "step_seconds": np.full(10, 0.1)}
    progress.take(StepsEnded(1, 10, steps, {"tokens_per_second": 160.0}))
    assert "160 tok/s" in progress.in_plain_words().plain


def test_a_run_tells_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    rows = [{"text": "word " * (1 + number % 5), "label": str(number % 2)} for number in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = ["model.num_layers=1", "model.hidden_size=16", "model.num_heads=2", "data.tokenizer={name: bytes}"]
    config = load_config(
        "classification",
        [
            f"data.source={{name: jsonl, path: {tmp_path / 'rows.jsonl'}}}",
            *shape,
            "data.sequence_length=32",
            "training={steps: 3, micro_batch_size: 4, device: cpu, threads: 1}",
            "evaluation={every: 3, gap_tokens: 0}",
            "stopping={name: none}",
            "logging.every=1",
            "lint.allow=[warmup-longer-than-run]",
        ],
        environment={},
    )
    trainer = Trainer(config, run=tmp_path / "run")
    trainer.fit()
    assert trainer.run is not None
    assert trainer.data is not None
    series = History.read(trainer.run.record).series
    read, counted = (series[name].columns.total for name in ("tokens_read", "tokens"))
    order, lengths = trainer.data.order, trainer.data.training.lengths  # type: ignore[attr-defined]
    expected = [int(lengths[order.sequences_at(np.arange(4 * step, 4 * step + 4))].sum()) for step in range(3)]
    assert read.tolist() == expected
    assert counted.tolist() == [4, 4, 4]
    # One definition wherever a speed is told: in the record, and in what is made of it.
    seconds, speed = (series[name].columns.total for name in ("step_seconds", "tokens_per_second"))
    assert speed.tolist() == pytest.approx((np.array(expected) / seconds).tolist())
    per_step = {"step_seconds": np.full(30, 0.1), "tokens": np.full(30, 4.0), "tokens_read": np.full(30, 40.0)}
    paces = [Pace.of([StepsEnded(1, 30, one, {})]) for one in (per_step, {**per_step, "tokens": np.full(30, 40.0)})]
    assert [pace and pace.tokens_per_second for pace in paces] == pytest.approx([400.0, 400.0])
    per_step.pop("tokens_read")
    alone = Pace.of([StepsEnded(1, 30, per_step, {})])
    assert alone is not None
    assert alone.tokens_per_second == pytest.approx(40.0)
