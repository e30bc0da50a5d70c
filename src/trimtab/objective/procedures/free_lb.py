"""Adversarial training in which every step of the perturbation gives a gradient."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from trimtab.objective.procedures.perturbation import Perturbation, within
from trimtab.signals import IGNORED, Batch, Pass, Passes


@final
class FreeLB:
    """The mean of the objective over `steps` perturbations of the embeddings, each a step further from the first.

    The first is drawn evenly: between -1 and 1 times `initial` / sqrt(positions · width) in each value of a text's own
    positions; padding stays. Each next goes `step` along the gradient, divided by its norm over the text, and back into
    a ball of `radius`. All passes draw the same dropout.

    Source: Zhu et al. 2020, arXiv 1909.11764, algorithm 1; the same dropout: section 3.3. The first perturbation is
    within the ball, too.
    """

    term_names = ("adversarial",)

    def __init__(self, radius: float, *, step: float, steps: int, initial: float) -> None:
        self.radius, self.step, self.steps, self.initial = radius, step, steps, initial
        self.num_backwards = steps

    def __call__(self, passes: Passes, batch: Batch) -> Pass:
        """`steps` passes forward and back; `adversarial` is the mean of the objective over them, and the rest is that
        of the first, whose perturbation is no one's worst."""
        begun = _Beginning(self.initial, self.radius, passes.generator, batch)
        first = passes.forward(batch, begun)
        passes.backward(first.total / self.steps)
        change, mean = begun.perturbation, first.total.detach() / self.steps
        gradients = change.gradients()
        with passes.apart():
            for _ in range(self.steps - 1):
                change = change.moved(gradients, self.step, self.radius)
                passes.again()
                worse = passes.forward(batch, change)
                passes.backward(worse.total / self.steps)
                mean, gradients = mean + worse.total.detach() / self.steps, change.gradients()
        return Pass(first.output, first.total, {**first.means, "adversarial": mean}, first.scores)


@final
class _Beginning:
    """The first perturbation, which is drawn when the model says how large it is."""

    def __init__(self, initial: float, radius: float, generator: torch.Generator, batch: Batch) -> None:
        self.initial, self.radius, self.generator, self.batch = initial, radius, generator, batch
        self.perturbation = Perturbation()

    def __call__(self, embeddings_BTD: Tensor, number: int) -> Tensor:
        real_BT1 = _real(self.batch, embeddings_BTD, number).unsqueeze(-1)
        values_B11 = (real_BT1.sum(1, keepdim=True) * embeddings_BTD.shape[2]).clamp_min(1)
        drawn = torch.rand(embeddings_BTD.shape, generator=self.generator, device=embeddings_BTD.device)
        drawn = torch.where(real_BT1, (2.0 * drawn - 1.0) * (self.initial / values_B11.sqrt()), 0.0)
        drawn = drawn.to(torch.promote_types(embeddings_BTD.dtype, torch.float32))
        self.perturbation.deltas.append(within(drawn, self.radius).requires_grad_())
        return self.perturbation(embeddings_BTD, number)


def _real(batch: Batch, embeddings_BTD: Tensor, number: int) -> Tensor:
    """Which positions of text `number` are no padding, bool [B, T]; all where that is not known."""
    shape, second_BS = embeddings_BTD.shape[:2], batch.second_BS
    if number == 0 and batch.document_ids_BT.shape == shape:
        return batch.document_ids_BT >= 0
    if number == 1 and second_BS is not None and second_BS.shape == shape:
        return batch.targets != IGNORED if batch.targets.shape == shape else second_BS >= 0
    return embeddings_BTD.new_ones(shape, dtype=torch.bool)
