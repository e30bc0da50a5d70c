"""Procedures and sharpness on a GPU, over bf16 weights: parts add up, weights are put back, R-Drop in a graph."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from trimtab.config import Bf16, DecoderConfig
from trimtab.model import EmbeddingTransforms, build_model
from trimtab.model.embeddings import Cutout, EmbeddingNoise
from trimtab.objective import CausalLanguageModelingTask, CrossEntropy, FreeLB, Plain, ProjectedGradient, RDrop
from trimtab.optimizer import AdamW, parameter_groups, skip_non_finite
from trimtab.signals import Batch, Procedure, Ring
from trimtab.training import Precision, Step, columns_of_step
from trimtab.training.capture import capture
from trimtab.training.sharpness import Sharpness

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

PROCEDURES: dict[str, Procedure] = {
    "fgm": ProjectedGradient(0.5, step=0.5, steps=1, weight=1.0),
    "pgd": ProjectedGradient(0.5, step=0.2, steps=3, weight=1.0),
    "free_lb": FreeLB(0.5, step=0.2, steps=3, initial=0.0),
    "sam": Plain(),
}


def step_of(
    procedure: Procedure,
    *,
    sharpness: Sharpness | None = None,
    dropout: float = 0.0,
    embeddings: EmbeddingTransforms | None = None,
) -> Step:
    device = torch.device("cuda")
    config = DecoderConfig.model_validate(
        {"num_layers": 2, "hidden_size": 64, "num_heads": 2, "dropout": {"residual": dropout}}
    )
    model = build_model(config, vocabulary_size=101, sequence_length=32, seed=0).to(device).train()
    task = CausalLanguageModelingTask(CrossEntropy().to(device))
    step = Step(
        model=model,
        task=task,
        optimizer=AdamW(parameter_groups(model, 0.1), compute_dtype=torch.bfloat16),
        transforms=[skip_non_finite()],
        probes=[],
        precision=Precision(Bf16(), device, torch.bfloat16),
        ring=Ring(columns_of_step((*task.term_names, *procedure.term_names), scaled=False), 10, device),
        device=device,
        seed=0,
        procedure=procedure,
        sharpness=sharpness,
        embeddings=embeddings,
    )
    step.set(learning_rate=1e-3, weight_decay=1.0)
    return step


def rows(count: int = 8) -> Batch:
    tokens = torch.randint(0, 101, (count, 32), generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(count, 32, dtype=torch.int32)
    return Batch(tokens, tokens.roll(-1, 1), zeros, zeros, torch.arange(count), count * 32)


def halves(batch: Batch) -> list[Batch]:
    return [
        replace(batch.each(lambda tensor, part=part: tensor[part]), count=batch.count // 2)  # type: ignore[misc]
        for part in (slice(0, 4), slice(4, 8))
    ]


def gradient(step: Step) -> torch.Tensor:
    return torch.cat([one.float().flatten() for one in step.optimizer.storage.gradients.values()])


@pytest.mark.parametrize("name", PROCEDURES)
def test_micro_batches_add_up_and_weights_are_put_back(name: str) -> None:
    found = []
    for batches in ([rows()], halves(rows())):
        step = step_of(PROCEDURES[name], sharpness=Sharpness(0.05, adaptive=False) if name == "sam" else None)
        step.set(learning_rate=0.0)
        before = [one.clone() for one in step.optimizer.storage.weights.values()]
        step.run(batches, 1)
        found.append(gradient(step))
        after = step.optimizer.storage.weights.values()
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert torch.isfinite(found[0]).all()
    assert float((found[1] - found[0]).norm() / found[0].norm()) < 5e-2
    plain = step_of(Plain())
    plain.run([rows()], 1)
    assert float((gradient(plain) - found[0]).norm() / found[0].norm()) > 1e-2


@pytest.mark.parametrize("name", PROCEDURES)
def test_a_step_is_repeated_to_the_same_bits(name: str) -> None:
    """Dropout, noise and cutout included: what is drawn is a function of the step."""
    weights = []
    for _ in range(2):
        step = step_of(
            PROCEDURES[name],
            sharpness=Sharpness(0.05, adaptive=True) if name == "sam" else None,
            dropout=0.2,
            embeddings=EmbeddingTransforms(cutout=Cutout(0.1, "span"), noise=EmbeddingNoise(5.0)),
        )
        torch.use_deterministic_algorithms(True)
        try:
            for number in range(1, 4):
                step.run(halves(rows()), number)
        finally:
            torch.use_deterministic_algorithms(False)
        weights.append([one.clone() for one in step.optimizer.storage.weights.values()])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_r_drop_in_a_graph_is_that_outside() -> None:
    """Both passes of a replay draw, one after the other, what they draw outside."""
    found = []
    for captured in (True, False):
        step = step_of(RDrop(2.0, "classes"), dropout=0.2)
        if captured:
            step.captured = capture(step, rows(), in_parts=False)
        for number in range(1, 5):
            step.run([rows()], number)
        found.append(step.ring.take().wait())
    columns = list(step.ring.columns)
    apart = columns.index("train/loss/r_drop")
    assert (found[0][:, apart] > 0).all()
    torch.testing.assert_close(torch.as_tensor(found[0]), torch.as_tensor(found[1]), rtol=2e-2, atol=1e-4)
