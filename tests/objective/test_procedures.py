"""Procedures against plain re-computations of their papers in float64; micro-batches add up to the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.config import Bf16, EncoderConfig, Fp16, Fp32
from trimtab.errors import ConfigError
from trimtab.model import Encoder, build_model
from trimtab.objective import BinaryCrossEntropy, ClassificationTask, CrossEntropy, Regression, RegressionTask
from trimtab.objective.procedures import (
    FreeLB,
    Perturbation,
    Plain,
    ProjectedGradient,
    RDrop,
    ascent,
    joined,
    symmetric_divergence,
)
from trimtab.optimizer import AdamW, parameter_groups, skip_non_finite
from trimtab.signals import IGNORED, Batch, Outputs, Procedure, Ring, SpecialTokens, Task, key, set_randomness
from trimtab.training import Precision, Step, columns_of_step
from trimtab.training.passes import Passes
from trimtab.training.sharpness import Sharpness

CPU = torch.device("cpu")
VOCABULARY, CLASSES, LENGTH, ROWS = 19, 3, 7, 12


class Still:
    """A storage whose gradients are where backward leaves them."""

    def expect(self) -> None:
        pass

    def collect(self) -> None:
        pass


def texts(rows: int = ROWS, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCABULARY, (rows, LENGTH), generator=generator)
    lengths = torch.randint(2, LENGTH + 1, (rows,), generator=generator)
    places = torch.arange(LENGTH).expand(rows, -1)
    documents = torch.where(places < lengths[:, None], 0, -1).int()
    targets = torch.randint(0, CLASSES, (rows,), generator=generator)
    targets[1] = IGNORED
    return Batch(tokens, targets, documents, places.int(), torch.arange(rows), int((targets != IGNORED).sum()))


def rows_of(batch: Batch, first: int, size: int) -> Batch:
    part = batch.each(lambda tensor: tensor[first : first + size])
    return replace(part, count=int((part.targets != IGNORED).sum()))


def encoder(dropout: float = 0.0, outputs: int = CLASSES) -> Encoder:
    config = EncoderConfig.model_validate(
        {"num_layers": 1, "hidden_size": 8, "num_heads": 2, "positions": {"name": "learned"}}
        | {"dropout": {"residual": dropout, "embedding": dropout}, "initialization": {"standard_deviation": 0.3}}
    )
    model = build_model(
        config,
        vocabulary_size=VOCABULARY,
        sequence_length=LENGTH,
        outputs=Outputs(outputs, pooled=True, task="classification"),
        seed=3,
        special=SpecialTokens(0, 1, 2),
    )
    assert isinstance(model, Encoder)
    return model.train()


TASK = ClassificationTask(CrossEntropy(), CLASSES, "classification")


def passes_over(model: nn.Module, batch: Batch, task: Task = TASK) -> Passes:
    inverse = torch.tensor(1.0 / batch.count, dtype=torch.float64)
    passes = Passes(
        model=model,
        task=task,
        precision=Precision(Fp32(), CPU),
        storage=Still,  # type: ignore[arg-type]
        inverse={"target": inverse, "sequence": inverse},
        is_part=lambda: False,
        device=CPU,
        seed=5,
    )
    passes.at(4, 2)
    return passes


def gradients_by(procedure: Procedure, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    procedure(passes_over(model, batch), batch)
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


class Given(nn.Module):
    """An embedding that gives what it was told."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, tokens: Tensor) -> Tensor:
        return self.value


class Reference:
    """The mean cross-entropy of an encoder at embeddings plus something, without hooks, passes or procedures."""

    def __init__(self, model: Encoder, batch: Batch) -> None:
        self.model, self.batch = model, batch
        self.embedding = model.embedding
        self.parameters = dict(model.named_parameters())

    def loss(self, delta: Tensor) -> Tensor:
        set_randomness(5, 4, 2, "model", CPU)
        self.model.embedding = Given(F.embedding(self.batch.tokens_BT, self.embedding.weight) + delta)  # type: ignore[assignment]
        output = self.model(self.batch.tokens_BT, self.batch.positions_BT, self.batch.document_ids_BT)
        self.model.embedding = self.embedding
        return F.cross_entropy(output.logits, self.batch.targets, ignore_index=IGNORED)

    def slope(self, delta: Tensor) -> Tensor:
        delta = delta.detach().requires_grad_()
        return torch.autograd.grad(self.loss(delta), delta)[0]

    def none(self) -> Tensor:
        return torch.zeros(*self.batch.tokens_BT.shape, 8, dtype=torch.float64)

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
        return {name: one for name, one in zip(self.parameters, found, strict=True) if one is not None}


def unit(x: Tensor) -> Tensor:
    """Text by text, in Python."""
    return torch.stack([one / one.norm() if one.norm() > 0 else one for one in x])


def shortened(x: Tensor, radius: float) -> Tensor:
    return torch.stack([one * min(1.0, radius / one.norm().item()) if one.norm() > 0 else one for one in x])


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_fgm_is_the_paper_s(dropout: float) -> None:
    """Miyato et al. 2017, equations 5 and 6, text by text; dropout is the same at both points."""
    batch, model = texts(), encoder(dropout).double()
    reference = Reference(model, batch)
    worse = 0.7 * unit(reference.slope(reference.none()))
    assert worse.flatten(1).norm(dim=1)[[0, 2]].tolist() == pytest.approx([0.7, 0.7])
    assert float(worse[1].abs().max()) == 0.0  # its target is not counted
    wanted = reference.gradients(reference.loss(reference.none()) + 0.5 * reference.loss(worse))
    same(gradients_by(ProjectedGradient(0.7, step=0.7, steps=1, weight=0.5), model, batch), wanted)


def test_pgd_is_the_paper_s() -> None:
    """Madry et al. 2018, section 2.1, in the 2-norm; four steps of 0.4 reach the ball of 1, and turn along it."""
    batch, model = texts(), encoder(0.1).double()
    reference = Reference(model, batch)
    delta = reference.none()
    for _ in range(4):
        delta = shortened(delta + 0.4 * unit(reference.slope(delta)), 1.0)
    assert float(delta.flatten(1).norm(dim=1).max()) == pytest.approx(1.0)
    wanted = reference.gradients(reference.loss(reference.none()) + reference.loss(delta))
    found = ProjectedGradient(1.0, step=0.4, steps=4, weight=1.0)(passes_over(model, batch), batch)
    same({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, wanted)
    assert float(found.total.detach()) == pytest.approx(float(reference.loss(reference.none()).detach()), rel=1e-6)
    assert float(found.means["adversarial"]) == pytest.approx(float(reference.loss(delta).detach()), rel=1e-6)
    assert float(found.means["adversarial"]) > float(found.total.detach())


@pytest.mark.parametrize("radius", [10.0, 0.5])
def test_free_lb_is_the_paper_s(radius: float) -> None:
    """Zhu et al. 2020, algorithm 1: K = 3 steps, each with its third of the gradient."""
    batch, model = texts(), encoder(0.1).double()
    reference = Reference(model, batch)
    generator = torch.Generator().manual_seed(key(5, 4, 2, "procedure"))
    delta = torch.empty(ROWS, LENGTH, 8).uniform_(-1, 1, generator=generator).double()
    for row, documents in enumerate(batch.document_ids_BT):  # each by its own length
        delta[row] *= (documents >= 0)[:, None] * 0.8 / math.sqrt(int((documents >= 0).sum()) * 8)
    delta = shortened(delta, radius)
    wanted: dict[str, Tensor] = {}
    for _ in range(3):
        part = reference.gradients(reference.loss(delta) / 3)
        wanted = {name: wanted.get(name, 0.0) + one for name, one in part.items()}
        delta = shortened(delta + 0.3 * unit(reference.slope(delta)), radius)
    # The first perturbation is drawn in fp32.
    same(gradients_by(FreeLB(radius, step=0.3, steps=3, initial=0.8), model, batch), wanted, 1e-6)


def shortest(batch: Batch) -> Batch:
    """Without positions that no text of the batch has."""
    width = int((batch.document_ids_BT >= 0).sum(1).max())
    return batch.each(lambda tensor: tensor[:, :width] if tensor.ndim == 2 else tensor)


def test_where_free_lb_begins_does_not_depend_on_padding() -> None:
    """The same text at two widths: the same gradient."""
    batch = rows_of(texts(), 0, 1)
    assert shortest(batch).tokens_BT.shape[1] < LENGTH
    procedure = FreeLB(5.0, step=0.01, steps=2, initial=3.0)
    wide, narrow = (gradients_by(procedure, encoder().double(), one) for one in (batch, shortest(batch)))
    same(narrow, wide, 1e-8)


def test_free_lb_adds_up_over_micro_batches_of_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what is drawn is the same for every text."""
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(tuple(shape), 0.9))
    batch = texts()

    def update(sizes: Sequence[int]) -> Tensor:
        step = step_over(encoder(), procedure=FreeLB(5.0, step=0.3, steps=3, initial=3.0))
        firsts = [sum(sizes[:index]) for index in range(len(sizes))]
        step.run([shortest(rows_of(batch, *one)) for one in zip(firsts, sizes, strict=True)], 1)
        return flat(step)

    whole = update([ROWS])
    assert float((update([1, 4, 7]) - whole).norm() / whole.norm()) < 1e-6


def test_r_drop_is_the_paper_s() -> None:
    """Liang et al. 2021, equations 2 to 4, halved; the two passes draw one after the other."""
    batch, model = texts(), encoder(0.3).double()
    set_randomness(5, 4, 2, "model", CPU)
    first, second = (model(batch.tokens_BT, batch.positions_BT, batch.document_ids_BT).logits for _ in range(2))
    assert not torch.equal(first, second)
    counted = batch.targets != IGNORED
    p, q = first[counted].log_softmax(-1), second[counted].log_softmax(-1)
    likelihood = sum(F.nll_loss(x, batch.targets[counted]) for x in (p, q))
    apart = (
        F.kl_div(q, p, reduction="batchmean", log_target=True) + F.kl_div(p, q, reduction="batchmean", log_target=True)
    ) / 2
    loss = (likelihood + 2.0 * apart) / 2
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    wanted = {name: one for name, one in zip(names, found, strict=True) if one is not None}
    outcome = RDrop(2.0, "classes")(passes_over(model, batch), batch)
    same({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, wanted)
    assert float(outcome.means["r_drop"]) == pytest.approx(float(apart.detach()), rel=1e-9)
    assert float(outcome.total.detach()) == pytest.approx(float(likelihood.detach()) / 2, rel=1e-9)


def test_divergence_of_labels_and_numbers_by_hand() -> None:
    """Labels with p = 0.8, q = 0.5: (0.8 - 0.5) (ln 4 - 0); numbers 3 and 1: 4. What is not counted may be infinite."""
    labels = torch.tensor([[1.0, IGNORED]])
    first = torch.tensor([[math.log(4.0), math.inf]], dtype=torch.float64)
    second = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    assert float(symmetric_divergence(first, second, labels, "labels")) == pytest.approx(0.3 * math.log(4.0))
    kl = sum(a * math.log(a / b) for a, b in ((0.8, 0.5), (0.2, 0.5), (0.5, 0.8), (0.5, 0.2)))
    assert float(symmetric_divergence(first, second, labels, "labels")) == pytest.approx(kl)
    numbers = symmetric_divergence(
        torch.tensor([[3.0], [9.0]]), torch.tensor([[1.0], [0.0]]), torch.tensor([0.5, IGNORED]), "numbers"
    )
    assert float(numbers) == 4.0


def test_a_class_that_both_passes_exclude_is_no_difference() -> None:
    """A logit of -inf: no NaN, neither in the divergence nor in its gradient; the rest is as without that class."""
    first, second = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2])
    wanted = symmetric_divergence(first, second, targets, "classes")
    one, other = (F.pad(logits, (0, 1), value=-math.inf).requires_grad_() for logits in (first, second))
    found = symmetric_divergence(one, other, targets, "classes")
    assert float(found.detach()) == pytest.approx(float(wanted))
    for slope in torch.autograd.grad(found, (one, other)):
        assert slope.isfinite().all()


def step_over(
    model: nn.Module,
    task: Task = TASK,
    procedure: Procedure | None = None,
    *,
    sharpness: Sharpness | None = None,
    caches: bool = False,
    precision: Any = None,
    weights: torch.dtype = torch.float32,
) -> Step:
    numbers = Precision(precision or Fp32(), CPU, weights)
    names = (*task.term_names, *(procedure or Plain()).term_names)
    step = Step(
        model=model,
        task=task,
        optimizer=AdamW(parameter_groups(model, 0.0), compute_dtype=weights),
        transforms=[skip_non_finite()],
        probes=[],
        precision=numbers,
        ring=Ring(columns_of_step(names, numbers.scaler is not None, task.score_names), 4, CPU),
        device=CPU,
        seed=0,
        procedure=procedure,
        sharpness=sharpness,
        caches=caches,
    )
    step.set(learning_rate=0.0, weight_decay=0.0)
    return step


def flat(step: Step) -> Tensor:
    return torch.cat([one.flatten() for one in step.optimizer.storage.gradients.values()]).clone()


class Swinging(nn.Module):
    """Every second pass is another model: as dropout, without chance."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = encoder(), 0

    def forward(self, **inputs: Tensor) -> Any:
        self.calls += 1
        output = self.inner(**inputs)
        return output if self.calls % 2 else replace(output, features=output.features * 1.5)


PROCEDURES: dict[str, tuple[Callable[[], nn.Module], Procedure]] = {
    "fgm": (encoder, ProjectedGradient(0.5, step=0.5, steps=1, weight=1.0)),
    "pgd": (encoder, ProjectedGradient(0.5, step=0.3, steps=3, weight=1.0)),
    "free_lb": (encoder, FreeLB(0.5, step=0.3, steps=3, initial=0.0)),
    "r_drop": (Swinging, RDrop(3.0, "classes")),
    "sam": (encoder, Plain()),
}


@pytest.mark.parametrize("name", PROCEDURES)
def test_ragged_accumulation_equals_the_large_batch(name: str) -> None:
    batch = texts()

    def update(sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        make, procedure = PROCEDURES[name]
        sharpness = Sharpness(0.1, adaptive=False) if name == "sam" else None
        step = step_over(make(), procedure=procedure, sharpness=sharpness)
        firsts = [sum(sizes[:index]) for index in range(len(sizes))]
        step.run([rows_of(batch, first, size) for first, size in zip(firsts, sizes, strict=True)], 1)
        return flat(step), step.ring.take().tensor()

    whole, row = update([ROWS])
    for sizes in ([1, 4, 7], [3] * 4, [11, 1]):
        parts, other = update(sizes)
        assert float((parts - whole).norm() / whole.norm()) < 1e-6
        torch.testing.assert_close(other, row, rtol=1e-5, atol=1e-6)
    plain = step_over(PROCEDURES[name][0]())
    plain.run([batch], 1)
    assert float((flat(plain) - whole).norm() / whole.norm()) > 1e-2


NUMBERS = RegressionTask(Regression("rmse"))
CACHED: dict[str, tuple[Task, int]] = {
    "mmce": (ClassificationTask(CrossEntropy(mmce=3.0), CLASSES, "classification"), CLASSES),
    "rmse": (NUMBERS, 1),
}


@pytest.mark.parametrize("name", CACHED)
@pytest.mark.parametrize("sharp", [False, True], ids=["", "sam"])
def test_a_cached_gradient_is_that_of_the_large_batch(name: str, sharp: bool) -> None:
    task, outputs = CACHED[name]
    batch = texts()
    if outputs == 1:
        numbers = torch.where(batch.targets == IGNORED, float(IGNORED), batch.targets - 1.3)
        batch = replace(batch, targets=numbers.float())

    def update(sizes: Sequence[int], caches: bool) -> tuple[Tensor, Tensor]:
        sharpness = Sharpness(0.1, adaptive=False) if sharp else None
        step = step_over(encoder(outputs=outputs), task, sharpness=sharpness, caches=caches)
        firsts = [sum(sizes[:index]) for index in range(len(sizes))]
        parts = [rows_of(batch, first, size) for first, size in zip(firsts, sizes, strict=True)]
        # Texts of a micro-batch are padded to the longest of them.
        longest = [int((part.document_ids_BT >= 0).sum(1).max()) for part in parts]
        cut = ("tokens_BT", "document_ids_BT", "positions_BT")
        parts = [
            replace(part, **{one: getattr(part, one)[:, :length] for one in cut})
            for part, length in zip(parts, longest, strict=True)
        ]
        step.run(parts, 1)
        return flat(step), step.ring.take().tensor()

    whole, row = update([ROWS], False)
    for sizes in ([1, 4, 7], [3] * 4, [10, 2]):
        parts, other = update(sizes, True)
        assert float((parts - whole).norm() / whole.norm()) < (1e-5 if sharp else 1e-6)
        torch.testing.assert_close(other, row, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match=r"no sum over micro-batches.*"):
        update([6, 6], False)


def test_a_cached_gradient_draws_the_same_in_both_passes() -> None:
    """Of a sum over micro-batches it is the plain gradient, dropout included, to rounding."""
    parts = [rows_of(texts(), first, 4) for first in (0, 4, 8)]
    gradients = []
    for caches in (False, True):
        step = step_over(encoder(0.3), caches=caches)
        step.run(parts, 1)
        gradients.append(flat(step))
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 1e-6


def test_joined_batches_are_padded_with_what_counts_nothing() -> None:
    words = replace(texts(2), targets=torch.arange(2 * LENGTH).view(2, LENGTH))
    short = words.each(lambda tensor: tensor[:, :3] if tensor.dim() == 2 else tensor)
    whole = joined([words, short])
    assert whole.targets.shape == whole.tokens_BT.shape == (4, LENGTH)
    assert (whole.targets[2:, 3:] == IGNORED).all()
    assert (whole.document_ids_BT[2:, 3:] == -1).all()
    labels = replace(texts(2), targets=torch.ones(2, 5))
    assert joined([labels, labels]).targets.shape == (4, 5)


def test_the_step_up_by_hand() -> None:
    """g = (3, 4) over two tensors, rho = 0.5: 0.1 g. Adaptive with t = |w| + 0.01: 0.5 t^2 g / |t g|."""
    gradients, weights = [torch.tensor([3.0]), torch.tensor([4.0])], [torch.tensor([-1.99]), torch.tensor([0.99])]
    assert torch.cat(ascent(weights, gradients, 0.5, adaptive=False)).tolist() == pytest.approx([0.3, 0.4])
    norm = math.hypot(2 * 3, 1 * 4)
    wanted = [0.5 * 4 * 3 / norm, 0.5 * 1 * 4 / norm]
    assert torch.cat(ascent(weights, gradients, 0.5, adaptive=True)).tolist() == pytest.approx(wanted, rel=1e-6)
    scaled = ascent(weights, [one * 65536 for one in gradients], 0.5, adaptive=True)
    assert torch.cat(scaled).tolist() == pytest.approx(wanted, rel=1e-6)
    bad = ascent(weights, [torch.tensor([math.nan]), torch.tensor([1.0])], 0.5, adaptive=False)
    assert torch.cat(bad).tolist() == [0.0, 0.0]
    assert torch.cat(ascent(weights, [one * 0 for one in gradients], 0.5, adaptive=False)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("adaptive", [False, True])
def test_sharpness_aware_minimization_is_the_paper_s(adaptive: bool) -> None:
    """Foret et al. 2021, algorithm 1, Kwon et al. 2021, equation 10: recomputed without a step."""
    parts, model = [rows_of(texts(), 0, 5), rows_of(texts(), 5, 7)], encoder()
    count = sum(part.count for part in parts)

    def slopes() -> list[Tensor]:
        outputs = [model(part.tokens_BT, part.positions_BT, part.document_ids_BT).logits for part in parts]
        losses = [
            F.cross_entropy(output, part.targets, ignore_index=IGNORED, reduction="sum")
            for output, part in zip(outputs, parts, strict=True)
        ]
        return list(torch.autograd.grad(sum(losses, torch.zeros(())) / count, list(model.parameters())))

    before = [one.detach().clone() for one in model.parameters()]
    sizes = [one.abs() + 0.01 if adaptive else torch.ones_like(one) for one in before]
    first = slopes()
    norm = math.sqrt(sum(float((g * t).square().sum()) for g, t in zip(first, sizes, strict=True)))
    with torch.no_grad():
        for weight, g, t in zip(model.parameters(), first, sizes, strict=True):
            weight += 0.2 * t * t * g / norm
    wanted = torch.cat([one.flatten() for one in slopes()])
    with torch.no_grad():
        for weight, kept in zip(model.parameters(), before, strict=True):
            weight.copy_(kept)
    names = [name for name, _ in model.named_parameters()]

    step = step_over(model, sharpness=Sharpness(0.2, adaptive=adaptive))
    step.run(parts, 1)
    found = torch.cat([step.optimizer.storage.gradients[name].flatten() for name in names])
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5
    assert float((found - torch.cat([g.flatten() for g in first])).norm() / wanted.norm()) > 1e-2
    # Back to the bit, and what is told is of the weights as they are.
    assert all(
        torch.equal(kept, step.optimizer.storage.weights[name]) for name, kept in zip(names, before, strict=True)
    )
    plain = step_over(encoder())
    plain.run(parts, 1)
    ours, theirs = step.ring.take().tensor()[0], plain.ring.take().tensor()[0]
    assert ours[:2].tolist() == theirs[:2].tolist()  # loss and accuracy
    assert ours[2] != theirs[2]  # the norm of the gradient


class Normed(nn.Module):
    """Features that only BatchNorm keeps statistics of."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(4), nn.Linear(4, CLASSES)

    def forward(self, tokens_BT: Tensor, **_: Tensor) -> Tensor:
        logits: Tensor = self.layer(self.norm(tokens_BT[:, :4].float()))
        return logits


def test_running_statistics_are_those_of_the_weights_themselves() -> None:
    batch, kept = texts(), []
    for sharpness in (None, Sharpness(0.5, adaptive=False)):
        model = Normed()
        step = step_over(model, sharpness=sharpness)
        step.run([batch], 1)
        kept.append([one.clone() for one in model.buffers()])
    assert all(torch.equal(one, other) for one, other in zip(*kept, strict=True))
    assert int(kept[0][2]) == 1


@pytest.mark.parametrize("name", ["fgm", "free_lb", "r_drop", "sam"])
def test_a_loss_scale_changes_nothing_and_an_overflow_is_a_skipped_step(name: str) -> None:
    make, procedure = PROCEDURES[name]
    sharpness = Sharpness(0.1, adaptive=False) if name == "sam" else None
    found = []
    for precision in (Fp32(), Fp16(scaling="static", initial_scale=128.0)):
        step = step_over(make(), procedure=procedure, sharpness=sharpness, precision=precision)
        step.run([rows_of(texts(), 0, 6), rows_of(texts(), 6, 6)], 1)
        found.append(flat(step))  # the update has taken the loss scale out
    assert float((found[1] - found[0]).norm() / found[0].norm()) < 2e-2
    step = step_over(
        make(), procedure=procedure, sharpness=sharpness, precision=Fp16(scaling="static", initial_scale=3e38)
    )
    before = {name: one.clone() for name, one in step.optimizer.storage.weights.items()}
    step.set(learning_rate=0.1)
    step.run([texts()], 1)
    skipped = dict(zip(step.ring.columns, step.ring.take().tensor()[0].tolist(), strict=True))["skipped"]
    assert skipped == 1.0
    assert all(torch.equal(one, step.optimizer.storage.weights[key]) for key, one in before.items())


def test_labels_and_numbers_can_be_kept_together_too() -> None:
    """The same objects serve them: the gradient of R-Drop is finite and another than without."""
    batch = texts()
    numbers = replace(batch, targets=torch.where(batch.targets == IGNORED, float(IGNORED), batch.targets * 1.0))
    for alpha in (1e-9, 5.0):
        step = step_over(Swinging1(), RegressionTask(Regression("mse")), RDrop(alpha, "numbers"))
        step.run([numbers], 1)
        row = dict(zip(step.ring.columns, step.ring.take().tensor()[0].tolist(), strict=True))
        assert row["train/loss/r_drop"] > 0
        assert row["train/loss"] == pytest.approx(row["train/loss/mse"])
    assert BinaryCrossEntropy().term_names == ("binary_cross_entropy",)


class Swinging1(Swinging):
    def __init__(self) -> None:
        super().__init__()
        self.inner = encoder(outputs=1)


def test_what_leaves_no_embedding_is_refused() -> None:
    step = step_over(Normed(), procedure=PROCEDURES["fgm"][1])
    with pytest.raises(ConfigError, match="where those of Normed are is not known"):
        step.run([texts()], 1)


@pytest.mark.parametrize("name", ["fgm", "free_lb", "r_drop", "sam"])
def test_gradients_of_bf16_weights_are_summed_in_fp32(name: str) -> None:
    make, procedure = PROCEDURES[name]
    sharpness, found = Sharpness(0.1, adaptive=False) if name == "sam" else None, []
    for precision, weights in ((Fp32(), torch.float32), (Bf16(), torch.bfloat16)):
        step = step_over(make(), procedure=procedure, sharpness=sharpness, precision=precision, weights=weights)
        assert isinstance(step.optimizer, AdamW)
        narrow = step.optimizer.storage.flat_compute.clone()
        step.run([texts()], 1)
        found.append(flat(step).float())
        assert torch.equal(step.optimizer.storage.flat_compute, narrow)
        several = procedure.num_backwards > 1
        kind = next(iter(step.optimizer.storage.gradients.values())).dtype
        assert kind == (torch.float32 if several else weights)
    assert float((found[1] - found[0]).norm() / found[0].norm()) < 0.1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 10.0), st.floats(1e-3, 10.0), st.integers(1, 4))
def test_no_text_leaves_its_ball_and_none_without_a_gradient_moves(
    seed: int, step: float, radius: float, steps: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    change = Perturbation([torch.zeros(3, 4, 5)])
    for _ in range(steps):
        slope = torch.randn(3, 4, 5, generator=generator) * 10 ** float(torch.randint(-9, 5, (), generator=generator))
        slope[1] = 0.0
        before, change = change, change.moved([slope], step, radius)
        lengths = change.deltas[0].detach().flatten(1).norm(dim=1)
        assert float(lengths.max()) <= min(radius, steps * step) * (1 + 1e-5)
        assert float(lengths[1]) == 0.0
        moved = (change.deltas[0] - before.deltas[0]).detach().flatten(1).norm(dim=1)
        assert float(moved.max()) <= step * (1 + 1e-4) + 1e-6


class Breaks:
    """A procedure for which memory runs out in some pass."""

    term_names: tuple[str, ...] = ()
    num_backwards = 1

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, passes: Any, batch: Batch) -> Any:
        self.left -= 1
        if self.left == 0:
            raise torch.OutOfMemoryError("none left")
        return Plain()(passes, batch)


def test_weights_are_put_back_where_memory_runs_out_up_there() -> None:
    step = step_over(encoder(), procedure=Breaks(4), sharpness=Sharpness(0.5, adaptive=False))
    before = {name: one.clone() for name, one in step.optimizer.storage.weights.items()}
    parts = [rows_of(texts(), 0, 6), rows_of(texts(), 6, 6)]
    with pytest.raises(torch.OutOfMemoryError):
        step.run(parts, 1)
    assert not step.is_updating
    assert all(torch.equal(one, step.optimizer.storage.weights[name]) for name, one in before.items())
    step.run(parts, 1)  # tried again
    whole = step_over(encoder(), sharpness=Sharpness(0.5, adaptive=False))
    whole.run(parts, 1)
    assert torch.equal(flat(step), flat(whole))


def test_weights_are_put_back_where_memory_runs_out_on_the_way_up(monkeypatch: pytest.MonkeyPatch) -> None:
    step = step_over(encoder(), sharpness=Sharpness(0.5, adaptive=False))
    storage = step.optimizer.storage
    before = {name: one.clone() for name, one in storage.weights.items()}
    refresh, calls = type(storage).refresh, []

    def breaks(self: Any) -> None:
        calls.append(all(torch.equal(one, self.weights[name]) for name, one in before.items()))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("none left")
        refresh(self)

    monkeypatch.setattr(type(storage), "refresh", breaks)
    with pytest.raises(torch.OutOfMemoryError):
        step.run([texts()], 1)
    assert calls == [False, True], "moved, and then put back"
    assert all(torch.equal(one, storage.weights[name]) for name, one in before.items())
