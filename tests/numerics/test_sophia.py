"""Sophia's rule and its estimate of the curvature, against plain recomputation; in a step, skipped and scaled."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tiny_step import join, make_batch, make_step
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.config import Fp16, load_config
from trimtab.errors import ConfigError
from trimtab.objective import draw_classes, drawn_loss
from trimtab.optimizer import Now, Optimizer, RuleOptimizer, build_optimizer, parameter_groups, sophia
from trimtab.signals import IGNORED, Gradients, set_randomness
from trimtab.training import Step
from trimtab.training.estimate import estimate


def make_sophia(every: int = 3) -> Any:
    def make(model: nn.Module) -> Optimizer:
        rule = sophia(estimate_every=every)
        return RuleOptimizer([(group, rule) for group in parameter_groups(model, 0.1)])

    return make


@pytest.mark.parametrize("shape", [(7, 5), (6,)])
def test_the_rule_against_its_paper(shape: tuple[int, ...]) -> None:
    b1, b2, gamma, epsilon, decay, every = 0.9, 0.8, 0.5, 1e-3, 0.1, 4
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    rule = sophia(b1, b2, gamma, epsilon, estimate_every=every)
    state = rule.begin(weight)
    assert rule.estimates_every == every
    w = weight.flatten().tolist()
    m, h = [0.0] * len(w), [0.0] * len(w)
    clipped = 0
    for step in range(100):
        gradient = torch.randn(shape, generator=generator, dtype=torch.float64)
        estimate = torch.randn(shape, generator=generator, dtype=torch.float64).square() if step % every == 0 else None
        rate = 0.02 * (1.0 - step / 200)
        numbers = (torch.tensor(value, dtype=torch.float64) for value in (rate, decay, step + 1.0))
        weight, state = rule.step(weight, gradient, state, Now(*numbers, estimate))
        for i, g in enumerate(gradient.flatten().tolist()):
            m[i] = b1 * m[i] + (1 - b1) * g
            if estimate is not None:
                h[i] = b2 * h[i] + (1 - b2) * float(estimate.flatten()[i])
            ratio = m[i] / max(gamma * h[i], epsilon)
            clipped += abs(ratio) > 1
            w[i] -= rate * decay * w[i]
            w[i] -= rate * max(-1.0, min(1.0, ratio))
    assert weight.flatten().tolist() == pytest.approx(w, rel=1e-9)
    assert 0.05 < clipped / (100 * len(w)) < 0.95, "both sides of the clip are seen"


def test_an_estimate_that_is_not_finite_is_left_out() -> None:
    rule, weight = sophia(), torch.ones(3)
    state = rule.begin(weight) | {"curvature": torch.tensor([1.0, 2.0, 3.0])}
    now = Now(*(torch.tensor(v) for v in (0.1, 0.0, 1.0)), torch.tensor([math.nan, math.inf, 103.0]))
    _, kept = rule.step(weight, torch.ones(3), state, now)
    assert kept["curvature"].tolist() == pytest.approx([1.0, 2.0, 4.0])


def test_classes_are_drawn_by_their_probability() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -2.0, 3.0, 0.5])
    drawn = draw_classes(logits.expand(40_000, 5))
    frequencies = torch.bincount(drawn, minlength=5) / 40_000
    assert torch.allclose(frequencies, logits.softmax(-1), atol=0.01)
    assert draw_classes(torch.tensor([[math.nan, 0.0], [math.inf, 0.0]])).shape == (2,)


def test_the_estimate_is_on_average_the_diagonal_of_gauss_newton() -> None:
    """Of a linear softmax model on one example: p (1 - p) x^2, which no target enters."""
    torch.manual_seed(0)
    weight = torch.randn(4, 3, requires_grad=True)
    x = torch.tensor([0.5, -1.0, 2.0])
    total = torch.zeros(4, 3)
    for _ in range(4000):
        (gradient,) = torch.autograd.grad(drawn_loss((weight @ x)[None], torch.tensor([1])), weight)
        total += gradient.square()
    p = (weight @ x).softmax(-1).detach()
    assert torch.allclose(total / 4000, (p * (1 - p))[:, None] * x.square(), atol=0.06)


def test_rows_that_are_not_counted_do_not_enter() -> None:
    logits = torch.randn(2, 3, 5, requires_grad=True)
    targets = torch.tensor([[1, IGNORED, 2], [IGNORED, IGNORED, 0]])
    with torch.no_grad():
        logits[0, 1] = math.inf
    loss = drawn_loss(logits, targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    rows = logits.grad.abs().sum(-1)
    assert (rows[targets == IGNORED] == 0).all()
    assert (rows[targets != IGNORED] > 0).all()


def estimate_of(step: Step, batches: Any, number: int) -> dict[str, Tensor]:
    """What the step hands to the optimizer, taken before the update."""
    curvature = step.optimizer.curvature
    assert curvature is not None
    count = sum(batch.count for batch in batches)
    step.set(inverse_targets=1.0 / count, inverse_sequences=1.0)
    estimate(step, curvature, batches, number)
    flat = curvature.newest()
    assert flat is not None
    storage: Any = step.optimizer.storage
    return {name: view.clone() for name, view in storage.views(flat).items()}


def test_the_estimate_of_a_step_against_plain_recomputation() -> None:
    """B g^2 over all targets of two micro-batches, with the labels that its randomness draws."""
    step = make_step(make_optimizer=make_sophia())
    batches = [make_batch(3, 0, ignored=0.3), make_batch(2, 1, ignored=0.3)]
    ours = estimate_of(step, batches, 4)
    plain = copy.deepcopy(step.model)
    labels = []
    for index, batch in enumerate(batches):
        set_randomness(0, 4, index, "curvature", torch.device("cpu"))
        with torch.no_grad():
            counted = batch.targets != IGNORED
            logits = torch.where(counted[..., None], plain(batch.tokens_BT).logits, 0.0)
            labels.append(torch.where(counted, draw_classes(logits), IGNORED))
    plain = plain.double()
    for parameter in plain.parameters():
        parameter.grad = None
    whole = join(batches)
    logits = plain(whole.tokens_BT).logits
    F.cross_entropy(logits.flatten(0, 1), torch.cat(labels).flatten(), ignore_index=IGNORED).backward()
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None
        expected = whole.count * parameter.grad.square()
        assert torch.allclose(ours[name].double(), expected, rtol=1e-3, atol=1e-6 * float(expected.max())), name
    assert any((a != batch.targets).any() for a, batch in zip(labels, batches, strict=True))


def test_a_step_estimates_when_it_is_due_and_leaves_the_gradient_alone() -> None:
    step, plain = make_step(make_optimizer=make_sophia(3)), make_step()
    changed = []
    for number in range(1, 8):
        batches = [make_batch(2, number), make_batch(2, 50 + number)]
        before = step.optimizer.state_by_name()["embedding.weight"]["curvature"].clone()
        for name, weight in plain.optimizer.storage.weights.items():
            weight.copy_(step.optimizer.storage.weights[name])
        step.run(batches, number)
        plain.run(batches, number)
        changed.append(not torch.equal(before, step.optimizer.state_by_name()["embedding.weight"]["curvature"]))
    assert changed == [True, False, False, True, False, False, True]
    ours, theirs = (one.ring.take().wait() for one in (step, plain))
    columns = [step.ring.columns.index(name) for name in ("train/loss", "grad_norm")]
    assert ours[:, columns].tolist() == theirs[:, columns].tolist(), "loss and gradient are those without an estimate"


def test_the_next_update_uses_the_estimate_of_a_skipped_step() -> None:
    step = make_step(make_optimizer=make_sophia(3))
    step.run([make_batch(2, 0)], 1)
    weights = {n: t.clone() for n, t in step.optimizer.storage.weights.items()}
    state = {n: {s: t.clone() for s, t in slots.items()} for n, slots in step.optimizer.state_by_name().items()}
    step.holds.fill_(1.0)
    step.run([make_batch(2, 1)], 4)
    step.holds.zero_()
    assert all(torch.equal(t, weights[n]) for n, t in step.optimizer.storage.weights.items())
    skipped = step.optimizer.state_by_name()
    for name, slots in state.items():
        assert all(torch.equal(skipped[name][slot], tensor) for slot, tensor in slots.items()), name
    estimate = skipped["embedding.weight"]["estimate"].clone()
    again = make_step(make_optimizer=make_sophia(3))
    load_step(again, step)
    for one in (step, again):
        one.run([make_batch(2, 2)], 5)
        kept = one.optimizer.state_by_name()["embedding.weight"]
        expected = state["embedding.weight"]["curvature"].lerp(estimate, 0.01)
        assert torch.equal(kept["curvature"], expected)
        assert "estimate" not in kept, "it is used once"
        one.run([make_batch(2, 3)], 6)
        assert torch.equal(one.optimizer.state_by_name()["embedding.weight"]["curvature"], expected)
    for name, weight in step.optimizer.storage.weights.items():
        assert torch.equal(weight, again.optimizer.storage.weights[name]), name


def load_step(step: Step, other: Step) -> None:
    """Let `step` go on as `other` would, from a checkpoint."""
    for name, weight in other.optimizer.storage.weights.items():
        step.optimizer.storage.weights[name].copy_(weight)
    state = other.optimizer.state_by_name()
    step.optimizer.load_state_by_name({n: {s: t.clone() for s, t in slots.items()} for n, slots in state.items()})


def test_where_the_host_does_not_know_of_a_skip_the_estimate_is_used_once_all_the_same() -> None:
    """The way of a GPU, on a CPU: the same bits as where the host decides, with skipped steps and without."""
    ours, theirs = (make_step(make_optimizer=make_sophia(3)) for _ in range(2))
    optimizer, curvature = theirs.optimizer, theirs.optimizer.curvature
    assert isinstance(optimizer, RuleOptimizer)
    assert curvature is not None
    curvature._on_host = False

    def update(gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        optimizer._update(gradients, settings, on_host=False)
        curvature.settle(gradients.skip)

    theirs.optimizer = Using(optimizer, update)  # type: ignore[assignment]
    for number in range(1, 11):
        for one in (ours, theirs):
            one.holds.fill_(float(number in (1, 2, 7)))
            one.run([make_batch(2, number)], number)
        state, other = ours.optimizer.state_by_name(), optimizer.state_by_name()
        for name, slots in state.items():
            assert slots.keys() == other[name].keys(), (number, name)
            assert all(torch.equal(slots[slot], other[name][slot]) for slot in slots), (number, name)
        assert ("estimate" in state["embedding.weight"]) == (number in (1, 2, 7))


class Using:
    """An optimizer with another update."""

    def __init__(self, optimizer: RuleOptimizer, update: Any) -> None:
        self._optimizer, self.update = optimizer, update

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)


def test_an_optimizer_begins_with_an_estimate_whenever_it_takes_over() -> None:
    step = make_step(make_optimizer=make_sophia(5))
    due = []
    for number in range(8, 17):
        before = step.optimizer.state_by_name()["embedding.weight"]["curvature"].clone()
        step.run([make_batch(2, number)], number)
        if not torch.equal(before, step.optimizer.state_by_name()["embedding.weight"]["curvature"]):
            due.append(number)
        again = make_step(make_optimizer=make_sophia(5))
        load_step(again, step)
        assert again.optimizer.curvature is not None
        assert not again.optimizer.curvature.is_due(number + 1) or (number % 5) == 0
    assert due == [8, 11, 16]
    fresh = make_step(make_optimizer=make_sophia(5))
    load_step(fresh, make_step(make_optimizer=make_sophia(5)))
    assert fresh.optimizer.curvature is not None
    assert fresh.optimizer.curvature.is_due(8), "resumed right after it took over"


def test_its_randomness_is_its_own_and_a_pure_function_of_the_step() -> None:
    batches = [make_batch(2, 0), make_batch(2, 1)]
    step = make_step(dropout=0.3, make_optimizer=make_sophia())
    first, second, again = (estimate_of(step, batches, number)["embedding.weight"] for number in (1, 4, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_a_loss_scale_is_taken_out() -> None:
    batches = [make_batch(4, 0)]
    exact = estimate_of(make_step(make_optimizer=make_sophia()), batches, 1)
    scaled = make_step(precision=Fp16(initial_scale=1024.0), make_optimizer=make_sophia())
    rough = estimate_of(scaled, batches, 1)
    a, b = (torch.cat([t.flatten() for t in one.values()]) for one in (exact, rough))
    assert float((a - b).norm() / a.norm()) < 0.05


@pytest.mark.parametrize("task", ["{name: regression}", "{name: classification, multi_label: true}"])
def test_tasks_without_one_class_a_target_are_refused(task: str) -> None:
    given = [f"task={task}", "model.name=encoder", "data.source={name: csv, path: x.csv}", "optimizer.name=sophia"]
    given += ["objective.name=mse" if "regression" in task else "objective.name=binary_cross_entropy"]
    with pytest.raises(ConfigError, match=r"optimizer\.name sophia draws a class for each target"):
        load_config(None, given, environment={})


def test_it_is_built_from_a_configuration() -> None:
    given = ["optimizer={name: sophia, estimate_every: 7}"]
    optimizer = build_optimizer(load_config(None, given, environment={}).optimizer, make_step().model)
    assert optimizer.curvature is not None
    assert optimizer.curvature.is_due(5), "its first"
    optimizer.curvature.take(torch.tensor(1.0), torch.tensor(1.0))
    assert [number for number in range(1, 20) if optimizer.curvature.is_due(number)] == [1, 8, 15]
