"""Learning from a teacher, and metrics of what a model holds for probable: against plain sums in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trimtab.config import Fp32
from trimtab.objective import (
    CausalLanguageModelingTask,
    ClassificationTask,
    CrossEntropy,
    DistillationTask,
    ProbableTask,
    divergence,
    entropy,
)
from trimtab.optimizer import AdamW, parameter_groups
from trimtab.signals import IGNORED, Batch, ModelOutput, Ring
from trimtab.training import Precision, Step, columns_of_step

GENERATOR = torch.Generator().manual_seed(9)
ROWS, CLASSES = 24, 5
FEATURES = torch.randn(ROWS, 6, generator=GENERATOR, dtype=torch.float64)
TARGETS = torch.randint(0, CLASSES, (ROWS,), generator=GENERATOR)
TARGETS[[3, 8]] = IGNORED
TAUGHT = torch.randn(ROWS, CLASSES + 2, generator=GENERATOR, dtype=torch.float64) * 2
TAUGHT[3] = math.nan


class Linear(nn.Module):
    """Features of a row, through a head without bias, as a model of tokens has it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.head = nn.Linear(6, CLASSES, bias=False, dtype=dtype)
        nn.init.normal_(self.head.weight, generator=torch.Generator().manual_seed(2))

    def forward(self, tokens_BT: Tensor, **_: Tensor) -> ModelOutput:
        return ModelOutput(FEATURES[tokens_BT[:, 0]].to(self.head.weight.dtype), self.head)


def teacher(tokens_BT: Tensor, **_: Tensor) -> Tensor:
    """Knows two classes more than there are."""
    return TAUGHT[tokens_BT[:, 0]]


def batch_of(first: int = 0, rows: int = ROWS) -> Batch:
    places = torch.arange(ROWS)[first : first + rows]
    zeros, targets = torch.zeros(len(places), 1, dtype=torch.int32), TARGETS[first : first + rows]
    return Batch(places[:, None], targets, zeros, zeros, places, int((targets != IGNORED).sum()))


def task_of(**more: Any) -> DistillationTask:
    inner = ClassificationTask(CrossEntropy(fused="on"), CLASSES, "classification")
    return DistillationTask(inner, teacher, size=CLASSES, **more)


def plain(logits: Tensor, temperature: float) -> Tensor:
    """The sum over counted targets of KL, from probabilities."""
    total = logits.new_zeros(())
    for row in range(ROWS):
        if TARGETS[row] != IGNORED:
            p = torch.exp(TAUGHT[row, :CLASSES] / temperature)
            q = torch.exp(logits[row] / temperature)
            p, q = p / p.sum(), q / q.sum()
            total = total + sum(p[v] * (p[v].log() - q[v].log()) for v in range(CLASSES))
    return total


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_term_is_a_plain_sum_with_its_gradient(temperature: float) -> None:
    model, other = Linear(torch.float64), Linear(torch.float64)
    task, batch = task_of(temperature=temperature, weight=0.7), batch_of()
    terms = task.terms(model(**task.inputs(batch)), batch)
    hard, soft = terms.terms
    assert (hard.name, soft.name) == task.term_names == ("cross_entropy", "distillation")
    assert soft.additive
    assert soft.weight == pytest.approx(0.7 * temperature**2)
    expected = plain(other(batch.tokens_BT).logits, temperature)
    torch.testing.assert_close(soft.sum, expected, rtol=1e-11, atol=1e-12)
    soft.sum.backward()
    expected.backward()
    torch.testing.assert_close(model.head.weight.grad, other.head.weight.grad, rtol=1e-10, atol=1e-12)
    # The rest is the task's own.
    own = task.task.terms(other(batch.tokens_BT), batch)
    torch.testing.assert_close(hard.sum, own.terms[0].sum, rtol=1e-6, atol=1e-6, check_dtype=False)
    torch.testing.assert_close(terms.losses, own.losses, rtol=1e-5, atol=1e-6, check_dtype=False)


def test_by_hand() -> None:
    """KL(p‖q) = H(p, q) - H(p); a fair coin against one of 0.7."""
    p, q = torch.tensor([0.5, 0.5], dtype=torch.float64).log(), torch.tensor([0.7, 0.3], dtype=torch.float64).log()
    assert float(entropy(p)) == pytest.approx(math.log(2), rel=1e-12)
    assert float(divergence(p, q)) == pytest.approx(-0.5 * math.log(0.21) - math.log(2), rel=1e-12)
    assert float(divergence(q, q)) == pytest.approx(0.0, abs=1e-15)
    sure = torch.tensor([0.0, -math.inf], dtype=torch.float64)
    assert float(entropy(sure)) == 0.0
    assert float(divergence(sure, p)) == pytest.approx(math.log(2), rel=1e-12)


def test_at_a_high_temperature_the_gradient_is_that_of_centred_logits() -> None:
    """Hinton et al. 2015, eq. 4: T² times the gradient by a logit goes to (z - v) / V, of logits with mean 0."""
    batch, temperature = batch_of(10, 1), 1000.0
    logits = torch.randn(1, CLASSES, dtype=torch.float64, generator=GENERATOR).requires_grad_()
    term = task_of(temperature=temperature).terms(logits, batch).terms[1]
    (term.sum * term.weight).backward()
    theirs = TAUGHT[10, :CLASSES]
    expected = ((logits.detach()[0] - logits.detach().mean()) - (theirs - theirs.mean())) / CLASSES
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[0], expected, rtol=1e-2, atol=1e-3)


def test_ragged_accumulation_equals_the_large_batch() -> None:
    def gradient(sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        model, device, task = Linear(torch.float32), torch.device("cpu"), task_of(temperature=3.0)
        step = Step(
            model=model,
            task=task,
            optimizer=AdamW(parameter_groups(model, 0.0)),
            transforms=[],
            probes=[],
            precision=Precision(Fp32(), device),
            ring=Ring(columns_of_step(task.term_names, False, task.score_names), 4, device),
            device=device,
            seed=0,
        )
        step.set(learning_rate=0.0)
        firsts = [sum(sizes[:index]) for index in range(len(sizes))]
        step.run([batch_of(first, size) for first, size in zip(firsts, sizes, strict=True)], 1)
        return step.optimizer.storage.gradients["head.weight"].clone(), step.ring.take().tensor()

    whole, row = gradient([ROWS])
    for sizes in ([1, 9, 14], [8, 8, 8], [23, 1]):
        parts, other = gradient(sizes)
        assert float((parts - whole).norm() / whole.norm()) < 1e-6
        torch.testing.assert_close(other, row, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("portion", [1, 2, 1 << 24])
def test_metrics_are_means_over_counted_targets(portion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.objective.distillation._CHUNK", portion * CLASSES)
    model = Linear(torch.float64)
    inner = CausalLanguageModelingTask(CrossEntropy(), [1] * CLASSES)  # type: ignore[arg-type]
    task = ProbableTask(inner, size=CLASSES, teacher=teacher)
    sums: Tensor = torch.zeros(1, dtype=torch.float64)
    for first, rows in ((0, 7), (7, 17)):
        batch = batch_of(first, rows)
        output = model(**task.inputs(batch))
        sums = sums + task.tally(output, batch, task.terms(output, batch))
    found = task.metrics(sums.tolist(), 22)
    logits = model(batch_of().tokens_BT).logits.detach()
    kept = TARGETS != IGNORED
    p = logits[kept].softmax(-1)
    assert found["entropy"] == pytest.approx(float(-(p * p.log()).sum() / 22), rel=1e-10)
    assert found["teacher_divergence"] == pytest.approx(float(plain(logits, 1.0)) / 22, rel=1e-10)
    loss = nn.functional.cross_entropy(logits[kept], TARGETS[kept])
    assert found["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(float(loss) / math.log(2), rel=1e-6)
    assert set(ProbableTask(inner, size=CLASSES).metrics([1.0, 2.0, 3.0, 4.0], 2)) == set(found) - {
        "teacher_divergence"
    }
    assert task.predictions(replace(model(batch_of().tokens_BT)), batch_of()).shape == (ROWS,)
