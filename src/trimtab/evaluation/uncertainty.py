"""How far several answers to the same text differ: of one model under dropout, or of several models.

Shape suffixes: M members · N texts · V classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from trimtab.data import Tokenizer
from trimtab.errors import UsageError
from trimtab.evaluation.batch_norm import batch_norms
from trimtab.evaluation.predict import answers_of, predict_probabilities
from trimtab.model import count_dropout_sites, evaluating
from trimtab.objective import MultiLabelTask
from trimtab.signals import Task, key, seeded


@final
@dataclass(frozen=True, slots=True)
class Uncertainty:
    """What the members say together, fp64 on the CPU. Entropies in nats."""

    mean: Tensor
    """Probabilities [N, V], or numbers [N]: the mean over members."""
    total: Tensor
    """[N]: the entropy of the mean; of numbers the standard deviation over members."""
    within: Tensor | None
    """[N]: the mean over members of their entropy: what a text leaves open. None of numbers."""
    between: Tensor | None
    """[N]: `total` - `within`, the mutual information of answer and member: what more data would settle."""


def combine(members_MNV: Tensor) -> Uncertainty:
    """The uncertainty of M members' probabilities [M, N, V], or numbers [M, N].

    Source: Lakshminarayanan et al. 2017, arXiv 1612.01474 (ensembles); Houlsby et al. 2011, arXiv 1112.5745, eq. 2
    (mutual information).
    """
    members = members_MNV.double()
    mean = members.mean(0)
    if members.ndim == 2:
        return Uncertainty(mean, members.std(0, unbiased=False), None, None)
    total, within = _entropy(mean), _entropy(members).mean(0)
    return Uncertainty(mean, total, within, (total - within).clamp_min(0.0))


def estimate_uncertainty(
    models: Sequence[nn.Module],
    task: Task,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    sequence_length: int,
    passes: int = 0,
    temperatures: Sequence[float | Sequence[float]] | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> Uncertainty:
    """How sure `models` are of the classes of `texts`, or of the numbers, each counted once, or `passes` times.

    With `passes` each pass has dropout as in training (Gal and Ghahramani 2016, arXiv 1506.02142), a pure function of
    `seed` and the number of model and pass. Logits are divided by `temperatures`, one for each model. Of several labels
    at once the entropies are sums over labels.

    Raises:
        UsageError: one model and no passes, which leaves nothing to differ; passes through a model without dropout; a
            task whose answer is neither a class of a text nor a number.
    """
    if task.name not in ("classification", "regression"):
        raise UsageError(f"task {task.name} has no uncertainty of texts. It is there for classification and regression")
    if not models or (len(models) == 1 and passes < 2):
        raise UsageError(
            f"uncertainty is how far answers differ: give several models, or passes of at least 2. Received: "
            f"{len(models)} model(s), passes {passes}"
        )
    if passes and any(count_dropout_sites(model) == 0 for model in models):
        raise UsageError("a model without dropout says the same in every pass", hint="give several models instead")
    members: list[Tensor] = []
    for number, model in enumerate(models):
        temperature: float | Sequence[float] = 1.0 if temperatures is None else temperatures[number]
        for each in range(max(1, passes)):
            with seeded(key(seed, number, each, "evaluation")):
                mode = dropping if passes else evaluating
                if task.name == "regression":
                    found = answers_of(
                        task.predictions,
                        model,
                        task,
                        tokenizer,
                        texts,
                        sequence_length=sequence_length,
                        batch_size=batch_size,
                        device=next(model.parameters()).device,
                        mode=mode,
                    )
                else:
                    found = predict_probabilities(
                        model,
                        task,
                        tokenizer,
                        texts,
                        sequence_length=sequence_length,
                        temperature=temperature,
                        batch_size=batch_size,
                        device=next(model.parameters()).device,
                        mode=mode,
                    )
            members.append(torch.stack(found))
    return _of_labels(members) if isinstance(task, MultiLabelTask) else combine(torch.stack(members))


@contextmanager
def dropping(model: nn.Module) -> Iterator[None]:
    """Within it `model` drops as in training, and normalizes as in evaluation; no gradient; modes are restored."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    for norm in batch_norms(model).values():
        norm.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _of_labels(members: Sequence[Tensor]) -> Uncertainty:
    """Each label is a question of its own with two answers."""
    chances_MNV = torch.stack(list(members)).double()
    both_MNV2 = torch.stack((chances_MNV, 1.0 - chances_MNV), dim=-1)
    total, within = _entropy(both_MNV2.mean(0)).sum(-1), _entropy(both_MNV2).mean(0).sum(-1)
    return Uncertainty(chances_MNV.mean(0), total, within, (total - within).clamp_min(0.0))


def _entropy(chances: Tensor) -> Tensor:
    entropies: Tensor = -torch.special.xlogy(chances, chances).sum(-1)
    return entropies
