"""Two passes under different dropout, and a term that keeps their answers together."""

from __future__ import annotations

from typing import final

from trimtab.objective.procedures.divergence import Answers, symmetric_divergence
from trimtab.objective.tasks.parts import logits_of
from trimtab.signals import Batch, Pass, Passes


@final
class RDrop:
    """The mean of the objective of two passes, and alpha / 2 times (KL(p‖q) + KL(q‖p)) / 2 of their answers p and q.

    That is half of the paper's loss, so that its gradient is as large as that of one pass, and alpha means the same.
    The passes draw one after the other, so that their dropout differs.
    Source: Liang et al. 2021, arXiv 2106.14448, equations 2 to 4; numbers: own, by the square of the difference.
    """

    term_names = ("r_drop",)
    num_backwards = 1

    def __init__(self, alpha: float, answers: Answers) -> None:
        self.alpha, self.answers = alpha, answers

    def __call__(self, passes: Passes, batch: Batch) -> Pass:
        """Two passes forward, one back through both. `r_drop` is (KL(p‖q) + KL(q‖p)) / 2 for each target."""
        first = passes.forward(batch)
        with passes.apart():  # until they went back: a norm may compare its statistics with those of the pass
            second = passes.forward(batch)
            logits = logits_of(first.output), logits_of(second.output)
            apart = symmetric_divergence(*logits, batch.targets, self.answers) / 2 * passes.inverse["target"]
            plain = (first.total + second.total) / 2
            passes.backward(plain + self.alpha / 2 * apart)
        return Pass(
            first.output,
            plain,
            {name: (mean + second.means[name]) / 2 for name, mean in first.means.items()} | {"r_drop": apart.detach()},
            {name: (score + second.scores[name]) / 2 for name, score in first.scores.items()},
        )
