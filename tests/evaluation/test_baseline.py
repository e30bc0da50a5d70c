"""Evaluations compared sample by sample: the interval of a paired bootstrap, and the runs that use it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import Rig

from trimtab import Trainer, load_config
from trimtab.config import BestBaseline
from trimtab.errors import ConfigError, DriftError, UsageError
from trimtab.evaluation import Baseline, SampleLosses, paired_bootstrap
from trimtab.events import EvaluationEnded, Event, Monitor, StepsEnded
from trimtab.runs import RunDirectory
from trimtab.signals import IGNORED, Batch, LossTerms
from trimtab.training.judging import judged_texts


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@settings(max_examples=12, deadline=None)
@given(st.integers(20, 400), st.floats(-0.5, 0.5), st.integers(0, 2**31))
def test_the_interval_is_that_of_a_plain_bootstrap(samples: int, shift: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 9, samples).astype(float)
    baseline = generator.normal(3.0, 1.0, samples) * counts
    losses = baseline + (shift + generator.normal(0.0, 0.3, samples)) * counts
    found = paired_bootstrap(losses, baseline, counts)
    drawn = generator.integers(0, samples, size=(2000, samples))
    plain = (losses - baseline)[drawn].sum(1) / counts[drawn].sum(1)
    width = np.ptp(np.percentile(plain, [2.5, 97.5]))
    assert found.mean == pytest.approx((losses - baseline).sum() / counts.sum())
    assert [found.low, found.high] == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.25 * width + 1e-9)
    assert found == paired_bootstrap(losses, baseline, counts)
    assert paired_bootstrap(losses, losses, counts).is_worse is False


def test_pairing_finds_what_the_spread_between_samples_hides() -> None:
    generator = np.random.default_rng(0)
    baseline, counts = generator.normal(3.0, 2.0, 300), np.ones(300)
    assert paired_bootstrap(baseline + 0.05 + generator.normal(0, 0.1, 300), baseline, counts).is_worse
    assert not paired_bootstrap(generator.normal(3.05, 2.0, 300), baseline, counts).is_worse


def test_chance_alone_is_called_worse_in_about_one_of_forty() -> None:
    generator = np.random.default_rng(1)
    worse = [
        paired_bootstrap(generator.normal(0, 1, 200), np.zeros(200), np.ones(200), resamples=300).is_worse
        for _ in range(250)
    ]
    assert 0.004 < np.mean(worse) < 0.07


def test_losses_are_summed_by_sample_in_any_batches() -> None:
    losses = torch.rand(7, 3)
    targets = torch.ones(7, 3, dtype=torch.int64)
    targets[2, 1] = IGNORED
    losses[2, 1] = 0.0

    def summed(size: int) -> torch.Tensor:
        sums = SampleLosses(7, torch.device("cpu"))
        for first in range(0, 7, size):
            part = slice(first, first + size)
            ids = torch.arange(7)[part]
            padded = torch.cat((ids, torch.full((1,), -1)))
            rows = torch.cat((losses[part], torch.zeros(1, 3)))
            asked = torch.cat((targets[part], torch.full((1, 3), IGNORED)))
            zeros = torch.zeros(len(padded), 3, dtype=torch.int32)
            batch = Batch(zeros.long(), asked, zeros, zeros, padded, int((asked != IGNORED).sum()))
            sums(batch, None, LossTerms((), rows, {}))
        return sums.take()

    expected = torch.stack((losses.double().sum(1), (targets != IGNORED).double().sum(1)))
    for size in (1, 3, 7):
        torch.testing.assert_close(summed(size), expected)


def test_the_best_so_far_is_what_is_compared_with(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    baseline = Baseline(BestBaseline(), run, "texts")
    counts = torch.full((100,), 2.0, dtype=torch.float64)
    noise = torch.randn(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def at(step: int, level: float) -> dict[str, float]:
        return baseline.compare(step, torch.stack((2 * (level + 0.01 * noise.roll(step)), counts)))

    assert at(10, 3.0) == {}
    better = at(20, 2.5)
    assert better["loss_over_baseline"] == pytest.approx(-0.5, abs=1e-9)
    worse = at(30, 2.6)
    assert worse["loss_over_baseline"] == pytest.approx(0.1, abs=1e-9)
    assert worse["loss_over_baseline_low"] > 0.09
    # Going on from step 20 compares with what it was compared with then.
    assert at(20, 2.5) == better
    assert at(30, 2.6) == worse
    assert Baseline(BestBaseline(), run, "other texts").compare(40, torch.stack((counts, counts))) == {}


def test_a_run_that_goes_back_is_not_compared_with_what_it_left(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "run", steps=6, save_every=3)
    rig.go()
    baseline = Baseline(BestBaseline(), rig.run, "texts")
    counts = torch.full((10,), 2.0, dtype=torch.float64)
    of_set = Baseline(BestBaseline(), rig.run, "texts", "far")
    for step, loss in ((2, 3.0), (4, 1.0), (5, 0.5)):
        for one in (baseline, of_set):
            one.compare(step, torch.stack((loss * counts, counts)))
    rig.keeper.announce_rollback(5, {})
    assert rig.keeper.roll_back() == 3
    for one in (baseline, of_set):
        compared = one.compare(6, torch.stack((2.5 * counts, counts)))
        assert compared["loss_over_baseline"] == pytest.approx(-0.5)


class Evaluations:
    def __init__(self) -> None:
        self.found: list[dict[str, float]] = []

    def observe(self, event: Event) -> None:
        if isinstance(event, EvaluationEnded):
            self.found.append(dict(event.metrics))


def train(run: Path, *monitors: Monitor, **evaluation: Any) -> list[dict[str, float]]:
    settings = {
        "model": {"name": "decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2},
        "data": {
            "source": {"name": "text", "path": json.__file__},
            "tokenizer": {"name": "bytes"},
            "sequence_length": 32,
        },
        "training": {"steps": 12, "micro_batch_size": 4},
        "evaluation": {"every": 4, "gap_tokens": 0, "yardsticks": False, "samples": {"max_tokens": 0}, **evaluation},
        "optimizer": {"name": "adamw", "learning_rate": 1e-2},
    }
    seen = Evaluations()
    Trainer(load_config(settings, environment={}), run=run, monitors=[seen, *monitors]).fit()
    return seen.found


def test_a_run_beside_its_best_and_beside_another(tmp_path: Path) -> None:
    far = {"far": {"name": "text", "path": str(Path(json.__file__).with_name("decoder.py"))}}
    first = train(tmp_path / "a", baseline={"name": "best"}, sets=far, stride=16)
    assert "validation/loss_over_baseline" not in first[0]
    assert first[-1]["validation/loss_over_baseline"] == pytest.approx(
        first[-1]["validation/loss"] - first[-2]["validation/loss"], rel=1e-4
    )
    assert first[-1]["validation/far/loss"] != first[-1]["validation/loss"]
    assert "validation/far/loss_over_baseline" not in first[0]
    assert first[-1]["validation/far/loss_over_baseline"] == pytest.approx(
        first[-1]["validation/far/loss"] - min(one["validation/far/loss"] for one in first[:-1]), rel=1e-4
    )
    new = far | {"new": far["far"]}
    same = train(tmp_path / "b", baseline={"name": "run", "path": str(tmp_path / "a")}, stride=16, sets=new)
    assert same[-1]["validation/loss_over_baseline"] == pytest.approx(0.0, abs=1e-6)
    assert same[-1]["validation/far/loss_over_baseline"] == pytest.approx(0.0, abs=1e-6)
    assert "validation/new/loss_over_baseline" not in same[-1]
    assert same[0]["validation/loss_over_baseline_low"] > 0.0
    kept = next((tmp_path / "a").glob("**/validation-losses/step-*12.json"))
    content = kept.read_text()
    kept.write_text(json.dumps(json.loads(content) | {"counts": [1] * len(json.loads(content)["counts"])}))
    with pytest.raises(UsageError, match="other texts or targets"):
        train(tmp_path / "f", baseline={"name": "run", "path": str(tmp_path / "a")}, stride=16)
    kept.write_text(content)
    with pytest.raises(UsageError, match="other texts"):
        train(tmp_path / "c", baseline={"name": "run", "path": str(tmp_path / "a")})
    train(tmp_path / "d")
    with pytest.raises(UsageError, match="kept no losses"):
        train(tmp_path / "e", baseline={"name": "run", "path": str(tmp_path / "d")})


def test_losses_of_other_kinds_of_samples_are_told_apart() -> None:
    data: Any = SimpleNamespace(
        facts={"validation": {"sha256": "v"}, "tokenizer": {"fingerprint": "t"}, "validation_target_sha256": "y"}
    )

    def of(task: str, model: str, *overrides: str, facts: dict[str, Any] | None = None) -> str:
        config = load_config(None, [f"task.name={task}", f"model.name={model}", *overrides], environment={})
        return judged_texts(config, SimpleNamespace(facts=data.facts | (facts or {})))  # type: ignore[arg-type]

    words = ("masked_lm", "encoder")
    assert of(*words, "seed=1") != of(*words, "seed=2")
    assert of(*words, "task.mask_rate=0.2") != of(*words, "task.mask_rate=0.3")
    plain = of("causal_lm", "decoder")
    assert plain == of("causal_lm", "decoder", "seed=2", "objective.label_smoothing=0.1")
    assert plain == of("causal_lm", "decoder", "objective.name=focal")  # its plain loss is the same
    assert plain != of("causal_lm", "decoder", facts={"validation_target_sha256": "z"})
    number = ("regression", "encoder", "data.source={name: jsonl, path: x}")
    kinds = [of(*number, f"objective.name={name}") for name in ("mse", "mae", "huber", "quantile")]
    kinds += [
        of(*number, "objective={name: huber, delta: 2.0}"),
        of(*number, "objective={name: quantile, quantile: 0.9}"),
    ]
    assert len(set(kinds)) == 6


def test_losses_of_other_numbers_of_targets_are_refused(tmp_path: Path) -> None:
    counts = torch.full((50,), 2.0, dtype=torch.float64)
    fewer = counts.clone()
    fewer[7] = 1.0
    run = RunDirectory(tmp_path)
    best = Baseline(BestBaseline(), run, "texts")
    best.compare(10, torch.stack((counts, counts)))
    assert best.compare(20, torch.stack((2 * counts, fewer))) == {}
    assert best.compare(20, torch.stack((2 * counts, counts)))["loss_over_baseline"] == pytest.approx(1.0)


class Leaves:
    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step >= 6:
            raise KeyboardInterrupt


def test_a_run_that_goes_on_compares_with_what_it_compared_with(tmp_path: Path) -> None:
    far = {"far": {"name": "text", "path": str(Path(json.__file__).with_name("decoder.py"))}}
    whole = train(tmp_path / "whole", baseline={"name": "best"}, sets=far)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", Leaves(), baseline={"name": "best"}, sets=far)
    assert train(tmp_path / "parts", baseline={"name": "best"}, sets=far)[-1] == whole[-1]


def test_a_further_set_that_changes_is_drift(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(Path(json.__file__).read_text())
    far = {"far": {"name": "text", "path": str(other)}}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", Leaves(), sets=far)
    other.write_text("something else " * 20)
    with pytest.raises(DriftError, match=r"evaluation\.sets"):
        train(tmp_path / "run", sets=far)


def test_a_metric_of_a_set_that_is_not_there_is_refused() -> None:
    sets = {"far": {"name": "text", "path": "far.txt"}}
    load_config({"evaluation": {"sets": sets}, "checkpoint": {"metric": "validation/far/loss"}}, environment={})
    with pytest.raises(ConfigError, match="fra; sets: far"):
        load_config({"evaluation": {"sets": sets}, "checkpoint": {"metric": "validation/fra/loss"}}, environment={})
