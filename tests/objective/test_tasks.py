"""Tasks: their metrics are exact sums over counted targets, whatever the batches; accumulation gives one gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from trimtab.config import Classification, Fp32, TokenClassification
from trimtab.errors import ConfigError
from trimtab.objective import (
    BinaryCrossEntropy,
    ClassificationTask,
    CrossEntropy,
    Focal,
    MultiLabelTask,
    Regression,
    RegressionTask,
    class_weights,
)
from trimtab.optimizer import AdamW, parameter_groups
from trimtab.signals import IGNORED, Batch, Ring, TargetFacts, Task
from trimtab.training import Precision, Step, columns_of_step

ROWS = 50
GENERATOR = torch.Generator().manual_seed(3)
FEATURES = torch.randn(ROWS, 6, generator=GENERATOR)


def batch_of(targets: Tensor, first: int = 0, rows: int | None = None) -> Batch:
    """Rows of features, disguised as tokens: the model looks its row up."""
    part = slice(first, None if rows is None else first + rows)
    places = torch.arange(ROWS)[part]
    zeros = torch.zeros(len(places), 1, dtype=torch.int32)
    count = int((targets[part] != IGNORED).sum())
    return Batch(places[:, None], targets[part], zeros, zeros, places, count)


class Linear(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(6, outputs)
        nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(1))
        nn.init.zeros_(self.layer.bias)

    def forward(self, tokens_BT: Tensor, **_: Tensor) -> Tensor:
        logits: Tensor = self.layer(FEATURES[tokens_BT[:, 0]])
        return logits


CLASSES = torch.randint(0, 3, (ROWS,), generator=GENERATOR)
CLASSES[[4, 9]] = IGNORED
TWO = torch.randint(0, 2, (ROWS,), generator=GENERATOR)
LABELS = (torch.rand(ROWS, 4, generator=GENERATOR) < 0.3).float()
NUMBERS = torch.randn(ROWS, generator=GENERATOR)
WEIGHTS = [3.0, 0.5, 1.0]

CASES: list[tuple[str, Task, Tensor, int]] = [
    ("weighted", ClassificationTask(CrossEntropy(0.1, class_weights=WEIGHTS), 3, "classification"), CLASSES, 3),
    ("others", ClassificationTask(CrossEntropy(0.2, "others"), 3, "classification"), CLASSES, 3),
    ("focal", ClassificationTask(Focal(2.0, WEIGHTS), 3, "classification"), CLASSES, 3),
    ("binary", ClassificationTask(CrossEntropy(), 2, "classification"), TWO, 2),
    ("labels", MultiLabelTask(BinaryCrossEntropy(0.1, 1.0, [2.0, 1.0, 1.0, 5.0]), 4), LABELS, 4),
    *(
        (name, RegressionTask(Regression(name, delta=0.5, quantile=0.8), 100.0, 20.0), NUMBERS, 1)  # type: ignore[arg-type]
        for name in ("mse", "mae", "huber", "quantile", "log_cosh")
    ),
]
NAMES = [case[0] for case in CASES]


def metrics_in(task: Task, model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    sums, count = torch.zeros(1, dtype=torch.float64), 0
    for batch in batches:
        output = model(**task.inputs(batch))
        sums = sums + task.tally(output, batch, task.terms(output, batch))
        count += batch.count
    return task.metrics(sums.tolist(), count)


@pytest.mark.parametrize("name,task,targets,outputs", CASES, ids=NAMES)
def test_metrics_do_not_depend_on_batches(name: str, task: Task, targets: Tensor, outputs: int) -> None:
    model = Linear(outputs)
    whole = metrics_in(task, model, [batch_of(targets)])
    for size in (1, 7, 49):
        parts = [batch_of(targets, first, size) for first in range(0, ROWS, size)]
        assert metrics_in(task, model, parts) == pytest.approx(whole, rel=1e-6)


def test_classification_metrics_are_those_of_a_plain_count() -> None:
    _, task, targets, outputs = CASES[0]
    model = Linear(outputs)
    found = metrics_in(task, model, [batch_of(targets)])
    pairs = [
        (want, guess)
        for want, guess in zip(targets.tolist(), model(torch.arange(ROWS)[:, None]).argmax(-1).tolist(), strict=True)
        if want != IGNORED
    ]
    scores = []
    for one in range(3):
        hits = sum(want == guess == one for want, guess in pairs)
        precision = hits / max(1, sum(guess == one for _, guess in pairs))
        recall = hits / max(1, sum(want == one for want, _ in pairs))
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    assert found["accuracy"] == pytest.approx(sum(want == guess for want, guess in pairs) / 48)
    assert found["macro_f1"] == pytest.approx(sum(scores) / 3)
    assert "f1" not in found
    logits = model(torch.arange(ROWS)[:, None])
    plain = nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED)
    assert found["loss"] == pytest.approx(plain.item(), rel=1e-6)


def test_f1_by_hand() -> None:
    """Wanted 1 1 0 0 1, said 1 0 1 0 1: two hits, three said, three wanted, 2/3; for the other class 1 of 2 and 2."""
    task = ClassificationTask(CrossEntropy(), 2, "classification")
    said, wanted = torch.tensor([1, 0, 1, 0, 1]), torch.tensor([1, 1, 0, 0, 1])
    logits = nn.functional.one_hot(said, 2).float()
    batch = replace(batch_of(TWO, 0, 5), targets=wanted)
    found = task.metrics(task.tally(logits, batch, task.terms(logits, batch)).tolist(), 5)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["accuracy"] == pytest.approx(3 / 5)


def test_label_metrics_by_hand() -> None:
    task = MultiLabelTask(BinaryCrossEntropy(), 2)
    logits = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    batch = replace(batch_of(TWO, 0, 3), targets=torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), count=6)
    found = task.metrics(task.tally(logits, batch, task.terms(logits, batch)).tolist(), 6)
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["exact_match"] == pytest.approx(2 / 3)
    assert found["micro_f1"] == pytest.approx(2 * 2 / (3 + 2))
    assert found["macro_f1"] == pytest.approx((1.0 + 0.0) / 2)


def test_regression_metrics_are_in_the_units_of_the_data() -> None:
    task = RegressionTask(Regression("mse"), 100.0, 20.0)
    model = Linear(1)
    found = metrics_in(task, model, [batch_of(NUMBERS)])
    guess = model(torch.arange(ROWS)[:, None])[:, 0].double() * 20 + 100
    numbers = NUMBERS.double() * 20 + 100
    error, spread = guess - numbers, numbers - numbers.mean()
    assert found["rmse"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-6)
    assert found["mae"] == pytest.approx(float(error.abs().mean()), rel=1e-6)
    assert found["r2"] == pytest.approx(1 - float(error.square().sum() / spread.square().sum()), rel=1e-6)
    assert found["loss"] == pytest.approx((found["rmse"] / 20) ** 2, rel=1e-6)
    output = model(torch.arange(ROWS)[:, None])
    torch.testing.assert_close(task.predictions(output, batch_of(NUMBERS)), guess, rtol=1e-12, atol=0)
    far = RegressionTask(Regression("mse"), 1.7e9, 20.0)
    assert metrics_in(far, model, [batch_of(NUMBERS)]) == {**found, "r2": pytest.approx(found["r2"], rel=1e-12)}
    assert float((far.predictions(output, batch_of(NUMBERS)) - 1.7e9 - guess + 100).abs().max()) < 1e-6


@pytest.mark.parametrize("count,value,mean", [(1, 0.3, 0.0), (3, 0.1, 0.0), (7, 0.3, 0.5), (10, 0.7, 0.123)])
def test_r2_of_equal_targets_is_not_defined(count: int, value: float, mean: float) -> None:
    task = RegressionTask(Regression("mse"), mean, 1.0)
    batch = batch_of(torch.full((ROWS,), value - mean), 0, count)
    output = torch.full((count, 1), value - mean + 0.1)
    found = task.metrics(task.tally(output, batch, task.terms(output, batch)).tolist(), count)
    assert math.isnan(found["r2"])
    assert found["rmse"] == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("name,task,targets,outputs", CASES, ids=NAMES)
def test_ragged_accumulation_equals_the_large_batch(name: str, task: Task, targets: Tensor, outputs: int) -> None:
    def update(sizes: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        model, device = Linear(outputs), torch.device("cpu")
        columns = columns_of_step(task.term_names, False, task.score_names)
        step = Step(
            model=model,
            task=task,
            optimizer=AdamW(parameter_groups(model, 0.0)),
            transforms=[],
            probes=[],
            precision=Precision(Fp32(), device),
            ring=Ring(columns, 4, device),
            device=device,
            seed=0,
        )
        step.set(learning_rate=0.0)
        firsts = [sum(sizes[:index]) for index in range(len(sizes))]
        step.run([batch_of(targets, first, size) for first, size in zip(firsts, sizes, strict=True)], 1)
        return [one.clone() for one in step.optimizer.storage.gradients.values()], step.ring.take().tensor()

    whole, row = update([ROWS])
    for sizes in ([1, 20, 29], [10] * 5, [49, 1]):
        parts, other = update(sizes)
        ours, expected = (torch.cat([one.flatten() for one in gradient]) for gradient in (parts, whole))
        assert float((ours - expected).norm() / expected.norm()) < 1e-6
        torch.testing.assert_close(other, row, rtol=1e-5, atol=1e-6)


def test_class_weights() -> None:
    facts = TargetFacts(("a", "b", "c"), (6, 3, 1), 10)
    assert class_weights(Classification(), facts) is None
    balanced = class_weights(Classification(class_weights="balanced"), facts)
    assert balanced == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert sum(w * n for w, n in zip(balanced or [], facts.counts, strict=True)) == pytest.approx(10)
    assert class_weights(TokenClassification(class_weights={"b": 2.0}), facts) == [1.0, 2.0, 1.0]
    labels = class_weights(Classification(multi_label=True, class_weights="balanced"), facts)
    assert labels == pytest.approx([4 / 6, 7 / 3, 9.0])
    always = class_weights(Classification(multi_label=True, class_weights="balanced"), TargetFacts(("a",), (10,), 10))
    assert always == [1.0]
    with pytest.raises(ConfigError, match="there is no class 'd'"):
        class_weights(Classification(class_weights={"d": 2.0}), facts)
    unseen = TargetFacts(("a", "b"), (0, 4), 4)
    assert class_weights(Classification(class_weights="balanced"), unseen) == [0.0, 1.0]
