"""Adversarial training on embeddings: by one step (FGM), or by several with a projection (PGD)."""

from __future__ import annotations

from typing import final

from trimtab.objective.procedures.perturbation import Perturbation
from trimtab.signals import Batch, Pass, Passes


@final
class ProjectedGradient:
    """The objective, and `weight` times the objective at embeddings that are worse for the model.

    The first perturbation is 0; each of `steps` steps goes `step` along the gradient, divided by its norm over the
    text, and back into a ball of `radius`. With one step of length `radius` it is the fast gradient method. All passes
    draw the same dropout, so that the perturbation is made for the model that it is used on.

    Source: FGM: Miyato et al. 2017, arXiv 1605.07725, equations 5 and 6, with embeddings as they are, where the paper
    scales them to variance 1. PGD: Madry et al. 2018, arXiv 1706.06083, section 2.1, with the 2-norm in place of the
    largest value; the objective without perturbation is kept, as in FGM.
    """

    term_names = ("adversarial",)
    num_backwards = 2

    def __init__(self, radius: float, *, step: float, steps: int, weight: float) -> None:
        self.radius, self.step, self.steps, self.weight = radius, step, steps, weight

    def __call__(self, passes: Passes, batch: Batch) -> Pass:
        """steps + 1 passes forward and back, two of which leave gradients; `adversarial` is the objective in the last,
        and the rest is that of the pass without perturbation."""
        change = Perturbation()
        plain = passes.forward(batch, change)
        passes.backward(plain.total)
        change = change.moved(change.gradients(), self.step, self.radius)
        with passes.apart():
            for _ in range(self.steps - 1):
                passes.again()
                worse = passes.forward(batch, change)
                change = change.moved(passes.slopes(worse.total, change.deltas), self.step, self.radius)
            passes.again()
            worse = passes.forward(batch, change)
            passes.backward(self.weight * worse.total)
        return Pass(plain.output, plain.total, {**plain.means, "adversarial": worse.total.detach()}, plain.scores)
