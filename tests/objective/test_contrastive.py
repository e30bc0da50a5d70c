"""Losses of vectors against plain sums in float64; the gradient cache against the whole batch; metrics by formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trimtab.config import Bf16, EncoderConfig, Fp32
from trimtab.data.targets import joined_rows
from trimtab.model import Encoder, build_model
from trimtab.objective import ContrastiveTask, InfoNce, SupervisedContrastive
from trimtab.objective.procedures import joined
from trimtab.optimizer import AdamW, parameter_groups
from trimtab.signals import IGNORED, Batch, ModelOutput, Outputs, Ring, Vectors, set_randomness
from trimtab.training import Precision, Step, columns_of_step

GENERATOR = torch.Generator().manual_seed(4)
FIRST, SECOND = torch.randn(2, 9, 5, dtype=torch.float64, generator=GENERATOR)
TARGETS = torch.tensor([0, 1, 2, 1, 4, IGNORED, 6, 0, 8])  # 1 and 3, 0 and 7 share a text
CLASSES = torch.tensor([0, 1, 2, 1, 0, IGNORED, 1, 0, 3])  # 2 and 3 stand alone


def plain_info_nce(first: Tensor, second: Tensor, temperature: float, symmetric: bool) -> list[Tensor]:
    """Each row's loss, from sums over lists."""
    losses = []
    for i, target in enumerate(TARGETS.tolist()):
        if target == IGNORED:
            losses.append(first.new_zeros(()))
            continue
        others = [j for j, other in enumerate(TARGETS.tolist()) if j == i or other not in (target, IGNORED)]
        own = torch.exp(first[i] @ second[i] / temperature)
        loss = -torch.log(own / sum(torch.exp(first[i] @ second[j] / temperature) for j in others))
        if symmetric:
            loss = (loss - torch.log(own / sum(torch.exp(first[j] @ second[i] / temperature) for j in others))) / 2
        losses.append(loss)
    return losses


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("learned", [False, True])
def test_info_nce_is_a_plain_sum_with_its_gradient(symmetric: bool, learned: bool) -> None:
    ours = [FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()]
    theirs = [FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()]
    scale = torch.tensor(1 / 0.3, dtype=torch.float64) if learned else None
    given = InfoNce(5.0 if learned else 0.3, symmetric=symmetric)(*ours, TARGETS, scale)
    plain = plain_info_nce(*theirs, 0.3, symmetric)
    (term,) = given.terms
    assert not term.additive
    torch.testing.assert_close(term.sum, sum(plain), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(given.losses, torch.stack(plain).detach(), rtol=1e-12, atol=1e-14)
    term.sum.backward()
    sum(plain).backward()  # type: ignore[union-attr]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-12)
        assert one.grad is not None
        assert not one.grad[5].any()


def test_info_nce_by_hand() -> None:
    """Two pairs of orthogonal vectors at temperature 1: -log(e / (e + 1)) each; others may hold anything."""
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0], [math.nan, math.inf]], dtype=torch.float64)
    terms = InfoNce(1.0)(first, first, torch.tensor([0, 1, IGNORED]))
    assert float(terms.terms[0].sum) == pytest.approx(2 * math.log(1 + math.exp(-1)), rel=1e-12)
    assert int(terms.scores["accuracy"]) == 2
    # Equal vectors tell nothing apart: every place is the last.
    assert int(InfoNce(1.0)(first[[0, 0]], first[[0, 0]], torch.tensor([0, 1])).scores["accuracy"]) == 0


def test_supervised_contrastive_is_equation_2_with_its_gradient() -> None:
    ours, theirs = FIRST.clone(), FIRST.clone().requires_grad_()
    ours[5] = math.inf
    ours.requires_grad_()
    given = SupervisedContrastive(0.3)(ours, CLASSES)
    plain = theirs.new_zeros(())
    counted = [i for i, one in enumerate(CLASSES.tolist()) if one != IGNORED]
    for i in counted:
        others = [a for a in counted if a != i]
        partners = [p for p in others if CLASSES[p] == CLASSES[i]]
        normalizer = sum(torch.exp(theirs[i] @ theirs[a] / 0.3) for a in others)
        for p in partners:
            plain = plain - torch.log(torch.exp(theirs[i] @ theirs[p] / 0.3) / normalizer) / len(partners)
    torch.testing.assert_close(given.terms[0].sum, plain, rtol=1e-12, atol=0.0)
    given.terms[0].sum.backward()
    plain.backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("targets", [torch.tensor([3]), torch.tensor([3, IGNORED]), torch.tensor([1, 2])])
def test_nothing_to_tell_apart_has_no_loss_and_a_finite_gradient(targets: Tensor) -> None:
    vectors = torch.ones(len(targets), 3, dtype=torch.float64, requires_grad=True)
    total = SupervisedContrastive(0.1)(vectors, targets).terms[0].sum
    total.backward()
    assert float(total.detach()) == 0.0
    assert vectors.grad is not None
    assert bool(torch.isfinite(vectors.grad).all())


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz")), max_size=9))
def test_rows_that_share_a_text_are_one(pairs: list[tuple[str, str]]) -> None:
    """Against the closure of the relation, by brute force."""
    near = [[bool({*a} & {*b}) for b in pairs] for a in pairs]
    for k in range(len(pairs)):
        near = [[row[j] or (row[k] and near[k][j]) for j in range(len(pairs))] for row in near]
    assert joined_rows(pairs).tolist() == [row.index(True) for row in near]


def encoder(dropout: float = 0.0, **vectors: Any) -> Encoder:
    config = EncoderConfig.model_validate(
        {
            "name": "encoder",
            "num_layers": 1,
            "hidden_size": 16,
            "num_heads": 2,
            "dropout": {"residual": dropout, "head": dropout},
        }
    )
    outputs = Outputs(vectors.get("size") or 0, pooled=True, task="contrastive", vectors=Vectors(**vectors))
    model = build_model(config, vocabulary_size=40, sequence_length=12, seed=3, outputs=outputs)
    assert isinstance(model, Encoder)
    return model


def batch_of(sizes: Sequence[int], *, pairs: bool) -> list[Batch]:
    """Rows of ragged texts, in batches of their own width."""
    generator, batches, number = torch.Generator().manual_seed(7), [], 0
    for index, size in enumerate(sizes):
        width, second_width = 6 + index, 9 - index
        tokens = torch.randint(0, 40, (size, 12), generator=generator)
        lengths = torch.randint(2, 6, (2, size, 1), generator=generator)
        place = torch.arange(width)
        real, real_second = place < lengths[0], torch.arange(second_width) < lengths[1]
        ids = torch.arange(number, number + size)
        second = torch.randint(0, 40, (size, second_width), generator=generator)
        targets = ids.clone() if pairs else ids % 3
        if size > 2:
            targets[1] = IGNORED
        batches.append(
            Batch(
                torch.where(real, tokens[:, :width], 0),
                targets,
                torch.where(real, ids[:, None], -1).int(),
                torch.where(real, place, 0).int(),
                ids,
                int((targets != IGNORED).sum()),
                torch.where(real_second, second, -1) if pairs else None,
            )
        )
        number += size
    return batches


def step_of(model: Encoder, task: ContrastiveTask, precision: Precision) -> Step:
    device, columns = torch.device("cpu"), columns_of_step(task.term_names, False, task.score_names)
    step = Step(
        model=model,
        task=task,
        optimizer=AdamW(parameter_groups(model, 0.0)),
        transforms=[],
        probes=[],
        precision=precision,
        ring=Ring(columns, 4, device),
        device=device,
        seed=0,
        caches=True,
    )
    step.set(learning_rate=0.0)
    return step


def gradient_of(step: Step) -> Tensor:
    return torch.cat([one.flatten().clone() for one in step.optimizer.storage.gradients.values()])


KINDS = [
    (InfoNce(0.2), {"size": 7, "temperature": 0.2}, True),
    (InfoNce(0.2, symmetric=False), {"normalize": False}, True),
    (SupervisedContrastive(0.2), {"size": 7}, False),
]


@pytest.mark.parametrize("objective,vectors,pairs", KINDS)
def test_a_cached_gradient_is_that_of_the_large_batch(objective: Any, vectors: dict[str, Any], pairs: bool) -> None:
    device = torch.device("cpu")
    for sizes in ([4, 1, 3], [1, 1, 2], [5, 3]):
        batches = batch_of(sizes, pairs=pairs)
        found = []
        for given_batches in ([joined(batches)], batches):
            step = step_of(encoder(**vectors), ContrastiveTask(objective), Precision(Fp32(), device))
            step.run(given_batches, 1)
            found.append((gradient_of(step), step.ring.take().tensor()))
        (whole, row), (cached, other) = found
        assert float(whole.norm()) > 0
        assert float((cached - whole).norm() / whole.norm()) < 1e-6
        torch.testing.assert_close(other, row, rtol=1e-5, atol=1e-6)
    if vectors.get("temperature"):
        names = list(step.optimizer.storage.gradients)
        assert float(step.optimizer.storage.gradients[names[names.index("head.scale_bias")]].abs()) > 0


def test_both_passes_of_a_cached_gradient_drop_the_same() -> None:
    task, batches = ContrastiveTask(InfoNce(0.2)), batch_of([4, 3], pairs=True)
    model, device = encoder(0.3, size=7), torch.device("cpu")
    step = step_of(model, task, Precision(Fp32(), device))
    step.run(batches, 5)
    cached = gradient_of(step)
    # The same by hand: both graphs kept, one loss over them.
    step.begin()
    outputs: list[ModelOutput] = []
    for index, batch in enumerate(batches):
        set_randomness(0, 5, index, "model", device)
        outputs.append(model(**task.inputs(batch)))
    features = torch.cat([output.features for output in outputs])
    terms = task.terms(replace(outputs[0], features=features), joined(batches))
    (terms.terms[0].sum / sum(batch.count for batch in batches)).backward()
    expected = gradient_of(step)
    assert float((cached - expected).norm() / expected.norm()) < 1e-6


def test_autocast_leaves_similarities_alone() -> None:
    task, (batch,) = ContrastiveTask(InfoNce(0.02)), batch_of([8], pairs=True)
    vectors = torch.nn.functional.normalize(torch.randn(16, 64, generator=torch.Generator().manual_seed(1)), dim=-1)
    with Precision(Bf16(), torch.device("cpu")).autocast():
        rounded = task.terms(vectors, batch).losses
    torch.testing.assert_close(rounded, task.terms(vectors, batch).losses, rtol=0.0, atol=0.0)


def test_padding_and_the_partner_change_no_vector() -> None:
    task, (batch,) = ContrastiveTask(InfoNce()), batch_of([5], pairs=True)
    model = encoder(size=7).eval()
    both = model(**task.inputs(batch)).logits
    for row in range(5):
        for place, tokens in ((2 * row, batch.tokens_BT), (2 * row + 1, batch.second_BS)):
            assert tokens is not None
            real = batch.document_ids_BT[row] >= 0 if place % 2 == 0 else tokens[row] >= 0
            alone = model(tokens[row][real][None]).logits[0]
            torch.testing.assert_close(both[place], alone, rtol=1e-5, atol=1e-6)
    assert torch.equal(task.predictions(model(**task.inputs(batch)), batch), both[0::2])


def metrics_of(task: ContrastiveTask, vectors: Tensor, batch: Batch) -> dict[str, float]:
    return task.metrics(task.tally(vectors, batch, task.terms(vectors, batch)).tolist(), batch.count)


def test_metrics_of_pairs_are_their_formulas() -> None:
    vectors = torch.stack((FIRST, SECOND), 1).flatten(0, 1).float()
    batch = replace(batch_of([9], pairs=True)[0], targets=TARGETS, count=8)
    found = metrics_of(ContrastiveTask(InfoNce()), vectors, batch)
    ranks, apart = [], []
    first, second = (torch.nn.functional.normalize(one, dim=-1) for one in (FIRST, SECOND))
    counted = [i for i in range(9) if TARGETS[i] != IGNORED]
    for i in counted:
        others = [j for j in counted if TARGETS[j] != TARGETS[i]]
        ranks.append(1 + sum(bool(FIRST[i] @ SECOND[j] >= FIRST[i] @ SECOND[i]) for j in others))
        for one in (first, second):
            apart += [math.exp(-2 * float((one[i] - one[j]).square().sum())) for j in others]
    together = [float((first[i] - second[i]).square().sum()) for i in counted]
    assert found["accuracy"] == sum(rank == 1 for rank in ranks) / 8
    assert found["reciprocal_rank"] == pytest.approx(sum(1 / rank for rank in ranks) / 8, rel=1e-9)
    assert found["alignment"] == pytest.approx(sum(together) / 8, rel=1e-5)
    assert found["uniformity"] == pytest.approx(math.log(sum(apart) / len(apart)), rel=1e-5)


def test_metrics_of_classes_are_their_formulas() -> None:
    batch = replace(batch_of([9], pairs=False)[0], targets=CLASSES, count=8)
    found = metrics_of(ContrastiveTask(SupervisedContrastive()), FIRST.float(), batch)
    counted = [i for i in range(9) if CLASSES[i] != IGNORED]
    unit = torch.nn.functional.normalize(FIRST, dim=-1)
    ranks, together, apart = [], [], []
    for i in counted:
        others = [j for j in counted if j != i]
        order = sorted(others, key=lambda j: -float(FIRST[i] @ FIRST[j]))
        ranks += [1 + place for place, j in enumerate(order) if CLASSES[j] == CLASSES[i]][:1]
        together += [float((unit[i] - unit[j]).square().sum()) for j in others if CLASSES[j] == CLASSES[i]]
        apart += [math.exp(-2 * float((unit[i] - unit[j]).square().sum())) for j in others]
    assert found["accuracy"] == sum(rank == 1 for rank in ranks) / 8
    assert found["reciprocal_rank"] == pytest.approx(sum(1 / rank for rank in ranks) / 8, rel=1e-9)
    assert found["alignment"] == pytest.approx(sum(together) / len(together), rel=1e-5)
    assert found["uniformity"] == pytest.approx(math.log(sum(apart) / len(apart)), rel=1e-5)


def test_a_learned_temperature_stays_above_its_bound_and_comes_back() -> None:
    model = encoder(temperature=0.05)
    scale = model.head.scale  # type: ignore[operator]
    assert float(scale().detach()) == pytest.approx(20.0, rel=1e-6)
    torch.nn.init.constant_(model.head.scale_bias, 5.0)  # type: ignore[arg-type]
    assert float(scale().detach()) == pytest.approx(100.0, rel=1e-6)
    scale().backward()
    assert float(model.head.scale_bias.grad) > 0  # type: ignore[operator, union-attr, arg-type]
