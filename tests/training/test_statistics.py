"""Running statistics of BatchNorm in a step: accumulation, skipped updates, failed attempts, further passes."""

from __future__ import annotations

import copy
import inspect
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trimtab import Trainer
from trimtab.config import Fp32, MlpConfig, load_config
from trimtab.errors import ConfigError
from trimtab.model import build_model
from trimtab.objective import CrossEntropy
from trimtab.objective.procedures import RDrop
from trimtab.objective.tasks import ClassificationTask
from trimtab.optimizer import AdamW, parameter_groups, skip_non_finite
from trimtab.signals import IGNORED, Batch, Outputs, Procedure, Ring
from trimtab.training import Precision, Step, columns_of_step
from trimtab.training.estimate import estimate
from trimtab.training.micro_batch import Attempts

CPU = torch.device("cpu")
CLASSES = 3


class Scaled(nn.Module):
    """BatchNorm of torch over numbers, which a flag makes infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer, self.breaks, self.fails = nn.BatchNorm1d(4), nn.Linear(4, CLASSES), False, False

    def forward(self, tokens_BT: Tensor, **_: Tensor) -> Tensor:
        numbers = tokens_BT[:, :4].float()
        logits: Tensor = self.layer(self.norm(numbers * torch.inf if self.breaks else numbers))
        if self.fails:
            raise RuntimeError("failed in its second micro-batch")
        return logits


def batch(rows: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 31, (rows, 8), generator=generator)
    return Batch(
        tokens,
        torch.randint(0, CLASSES, (rows,), generator=generator),
        torch.arange(rows, dtype=torch.int32)[:, None].expand(-1, 8).contiguous(),
        torch.arange(8, dtype=torch.int32).expand(rows, -1).contiguous(),
        torch.arange(rows),
        rows,
    )


def step_over(model: nn.Module, procedure: Procedure | None = None) -> Step:
    task = ClassificationTask(CrossEntropy(), CLASSES, "classification")
    precision = Precision(Fp32(), CPU, torch.float32)
    names = (*task.term_names, *(procedure.term_names if procedure is not None else ()))
    step = Step(
        model=model,
        task=task,
        optimizer=AdamW(parameter_groups(model, 0.0)),
        transforms=[skip_non_finite()],
        probes=[],
        precision=precision,
        ring=Ring(columns_of_step(names, False, task.score_names), 8, CPU),
        device=CPU,
        seed=0,
        procedure=procedure,
    )
    step.set(learning_rate=0.01, weight_decay=0.0)
    return step


def perceptron() -> Any:
    config = MlpConfig.model_validate({"hidden_size": 6, "layer_size": 5, "num_layers": 1})
    outputs = Outputs(CLASSES, pooled=True)
    return build_model(config, vocabulary_size=31, sequence_length=8, seed=1, outputs=outputs)


def kept(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_each_micro_batch_moves_them_once() -> None:
    model, parts = perceptron(), [batch(6, 1), batch(4, 2), batch(5, 3)]
    first = model.layers[0]
    inputs = [model.embedding(part.tokens_BT).mean(1) for part in parts]
    mean, variance = torch.zeros(5), torch.ones(5)
    for each in inputs:
        given = first.linear(each).detach()
        mean, variance = 0.9 * mean + 0.1 * given.mean(0), 0.9 * variance + 0.1 * given.var(0)
    step_over(model).run(parts, 1)
    norm = first.after.norm
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert int(norm.num_batches_tracked) == 3


def test_a_skipped_step_leaves_them_as_they_were() -> None:
    model = Scaled()
    step = step_over(model)
    step.run([batch(6, 1)], 1)
    before = kept(model)
    model.breaks = True
    step.run([batch(6, 2), batch(6, 3)], 2)
    assert same(kept(model), before)
    skipped = dict(zip(step.ring.columns, step.ring.take().tensor()[1].tolist(), strict=True))["skipped"]
    assert skipped == 1.0
    model.breaks = False
    step.run([batch(6, 4)], 3)
    assert not same(kept(model), before)


def test_an_attempt_that_failed_leaves_no_trace_in_the_next() -> None:
    found = []
    for fails in (False, True):
        model = Scaled()
        step = step_over(model)
        step.run([batch(6, 1)], 1)
        if fails:
            model.fails = True
            with pytest.raises(RuntimeError):
                step.run([batch(6, 2), batch(6, 3)], 2)
            model.fails = False
        step.run([batch(6, 2), batch(6, 3)], 2)
        found.append(kept(model))
    assert same(*found)


class Curvature:
    def take(self, unscale: Tensor, targets: Tensor) -> None:
        self.taken = True


@pytest.mark.parametrize("model", [Scaled(), perceptron()])
def test_an_estimate_of_the_curvature_leaves_no_trace(model: nn.Module) -> None:
    step, curvature = step_over(model), Curvature()
    before = kept(model)
    step.set(inverse_targets=0.1)
    estimate(step, curvature, [batch(6, 1), batch(6, 2)], 1)  # type: ignore[arg-type]
    assert curvature.taken
    assert same(kept(model), before)


def test_a_batch_without_targets_is_no_batch() -> None:
    """The last micro-batch of a step may be padding alone."""
    model = perceptron()
    empty = batch(6, 1)
    empty.targets.fill_(IGNORED)
    empty.document_ids_BT.fill_(-1)
    before = kept(model)
    step_over(model).run([Batch(**{**empty.tensors(), "count": 0})], 1)  # type: ignore[arg-type]
    assert same(kept(model), before)


def test_how_small_a_micro_batch_may_be() -> None:
    assert step_over(perceptron()).statistics.least_rows == 2
    assert step_over(Scaled()).statistics.least_rows == 1


def test_a_batch_of_one_is_refused_before_torch() -> None:
    rows = ["task.name=classification", "data.source={name: jsonl, path: x.jsonl}"]
    for size in ("training.micro_batch_size=1", "training={batch_size: 1, micro_batch_size: auto}"):
        with pytest.raises(ConfigError, match=r"one text has no variance.*Fitting: training\.micro_batch_size=32"):
            load_config(None, [*rows, "model.name=mlp", size], environment={})
        load_config(None, [*rows, "model.name=mlp", "model.batch_norm=null", size], environment={})
        load_config(None, [*rows, "model.name=cnn", size], environment={})


@pytest.mark.parametrize("size, fits", [(2, False), (3, False), (4, True), (7, False), (8, True), (9, True)])
def test_a_search_that_can_find_no_two_micro_batches_is_refused(size: int, fits: bool) -> None:
    rows = ["task.name=classification", "data.source={name: jsonl, path: x.jsonl}", "model.name=mlp"]
    asked = [*rows, f"training={{batch_size: {size}, micro_batch_size: auto}}"]
    load_config(None, asked, environment={})
    with nullcontext() if fits else pytest.raises(ConfigError, match=r"make no two micro-batches.*Fitting") as caught:
        load_config(None, [*asked, "logging.noise_scale.every=5"], environment={})
    if caught is not None:
        fitting = str(caught.value).split("Fitting: ")[1].split()[0]
        load_config(None, [*asked, "logging.noise_scale.every=5", fitting], environment={})


@pytest.mark.parametrize("model, sizes", [(perceptron, {12: 6, 6: 3, 4: 2, 3: None, 2: None}), (Scaled, {3: 1, 2: 1})])
def test_memory_that_runs_out_divides_no_batch_to_one(model: Any, sizes: dict[int, int | None]) -> None:
    progress: Any = SimpleNamespace(micro_batch_size=0)
    nobody: Any = None
    attempts = Attempts(step_over(model()), nobody, progress, keep=nobody, tell=nobody)
    for size, smaller in sizes.items():
        progress.micro_batch_size = size
        assert attempts._smaller() == smaller


class Attends(nn.Module):
    """A transformer's layer with BatchNorm, as the field advises against."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(257, 8), nn.BatchNorm1d(8)
        self.attention, self.head = nn.MultiheadAttention(8, 1, batch_first=True), nn.Linear(8, 257)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x = self.norm(self.embedding(tokens_BT).transpose(1, 2)).transpose(1, 2)
        logits: Tensor = self.head(self.attention(x, x, x, need_weights=False)[0])
        return logits


def test_batch_norm_beside_attention_is_refused_when_the_model_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    data = {"source": {"name": "text", "path": inspect.__file__}, "tokenizer": {"name": "bytes"}, "sequence_length": 32}
    settings: dict[str, Any] = {"data": data, "training": {"steps": 2, "micro_batch_size": 4}}
    config = load_config(settings, environment={})
    with pytest.raises(ConfigError, match=r"1 BatchNorm layers beside attention.*\n.*") as caught:
        Trainer(config, model=Attends(), run=tmp_path / "run").fit()
    assert "lint.allow=[batch-norm-in-sequence-model]" in str(caught.value)
    assert not (tmp_path / "run").exists()
    allowed = load_config(settings | {"lint": {"allow": ["batch-norm-in-sequence-model"]}}, environment={})
    assert Trainer(allowed, model=Attends(), run=tmp_path / "run").fit().status == "finished"


@pytest.mark.parametrize("make", [Scaled, perceptron])
def test_two_passes_over_a_micro_batch_count_once(make: Any) -> None:
    model = make()
    again = copy.deepcopy(model)
    step_over(model).run([batch(6, 1), batch(4, 2)], 1)
    # Without dropout both passes are the same.
    step_over(again, RDrop(1.0, "classes")).run([batch(6, 1), batch(4, 2)], 1)
    assert same(kept(model), kept(again))
    for name, weight in model.named_parameters():
        torch.testing.assert_close(again.get_parameter(name), weight, rtol=1e-4, atol=1e-5)
