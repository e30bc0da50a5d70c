"""Where a model is wrong: confusion of classes, and loss and accuracy by slices of a set.

All sums are on the device, of a size that does not depend on the set, but for two numbers of each text in a regression.
Shape suffixes: B sequences · T positions · V classes · N samples · G groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.data import LabelledTexts, PackedSequences, Sequences
from trimtab.objective import MultiLabelTask, logits_of
from trimtab.objective.calibration import calibration_error, reliability_curve, reliability_sums
from trimtab.signals import IGNORED, Batch, LossTerms, ModelOutput, Task

GROUPS: Final = 4
"""Of samples by length and by rarity: quarters."""
MOST_CLASSES: Final = 200
"""With more, there is no table of which class is taken for which."""
HARDEST: Final = 10
"""Samples with the highest loss that are named."""
_COUNTS: Final = (0, 10, 100, 1_000, 10_000)
"""How often a token occurs in training, from which a group of tokens begins."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """A way to divide the targets of a set."""

    name: str
    groups: tuple[str, ...]
    of_samples: NDArray[np.int64] | None = None
    """The group of each sample, [N]."""
    of_targets: NDArray[np.int64] | None = None
    """The group of each class or token, [V]."""
    of_places: bool = False
    """By position in the sequence, in quarters of its length."""


def groupings_of(task: Task, sequences: Sequences, training: Sequences, classes: tuple[str, ...]) -> list[Grouping]:
    """Those that fit: by class; by length and rarity of words of a text; by token and position of a language model.

    How rare a token is says how often it occurs in `training`; how rare the words of a text are, the mean over its
    tokens of -log of that part.
    """
    found: list[Grouping] = []
    if classes and not isinstance(task, MultiLabelTask):
        found.append(Grouping("class", classes, of_targets=np.arange(len(classes))))
    if isinstance(sequences, LabelledTexts):
        quarters, names = _quarters(sequences.lengths.astype(np.float64), "tokens")
        found.append(Grouping("length", names, of_samples=quarters))
        if isinstance(training, LabelledTexts):
            occurs = _occurrences(training.all_tokens, sequences.all_tokens)
            surprise = -np.log((occurs + 0.5) / (occurs.sum() + 0.5 * len(occurs)))
            rarity = np.array([float(surprise[row].mean()) if len(row) else 0.0 for row in sequences.rows()])
            quarters, names = _quarters(rarity, "nats a token by frequency")
            found.append(Grouping("rarity", names, of_samples=quarters))
    elif isinstance(sequences, PackedSequences) and isinstance(training, PackedSequences):
        occurs = _occurrences(training.tokens, sequences.tokens)
        groups = np.searchsorted(np.array(_COUNTS), occurs, side="right") - 1
        groups = np.where(occurs == 0, 0, np.maximum(groups, 0) + 1)
        names = ("never", "below 10", "10 to 99", "100 to 999", "1,000 to 9,999", "10,000 and more")
        found.append(Grouping("rarity of the token in training", names, of_targets=groups))
        places = ("first quarter", "second quarter", "third quarter", "last quarter")
        found.append(Grouping("position in the sequence", places, of_places=True))
    return found


def _occurrences(training: NDArray[Any], judged: NDArray[Any]) -> NDArray[np.int64]:
    """How often each token occurs in training, as far as the tokens of both sets reach."""
    size = int(max(training.max(initial=0), judged.max(initial=0))) + 1
    counts = np.zeros(size, dtype=np.int64)
    for first in range(0, len(training), 1 << 22):
        counts += np.bincount(training[first : first + (1 << 22)], minlength=size)
    return counts


def _quarters(values_N: NDArray[np.float64], unit: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The quarter of each value, and what the quarters are; fewer where values are equal."""
    edges = np.unique(np.quantile(values_N, [0.25, 0.5, 0.75])) if len(values_N) else np.empty(0)
    edges = edges[edges < values_N.max(initial=-np.inf)]
    places = np.searchsorted(edges, values_N, side="left")
    bounds = [values_N.min(initial=np.inf), *edges, values_N.max(initial=-np.inf)]
    whole = bool((values_N == np.rint(values_N)).all())
    shown = [f"{bound:.0f}" if whole else f"{bound:.2f}" for bound in bounds]
    names = [
        f"{'up to' if place == 0 else 'above ' + shown[place] + ', to'} {high} {unit}"
        for place, high in enumerate(shown[1:])
    ]
    return places, tuple(names)


@final
class Details:
    """Looks at each batch of an evaluation, for `evaluate(look=…)`."""

    def __init__(
        self, task: Task, num_samples: int, groupings: list[Grouping], num_classes: int, device: torch.device
    ) -> None:
        self._groupings, self._num_samples = groupings, num_samples
        self._is_multi_label = isinstance(task, MultiLabelTask)
        # Of tokens there may be so many that their logits, all at once, would not fit where a fused head does.
        self._counts_right = num_classes > 0 and not self._is_multi_label
        self._tables: dict[str, Tensor] = {}
        for one in groupings:
            table = one.of_samples if one.of_samples is not None else one.of_targets
            if table is not None:
                self._tables[one.name] = torch.from_numpy(np.asarray(table, dtype=np.int64)).to(device)
        # Count, loss, right.
        self._sums = {
            one.name: torch.zeros(3, len(one.groups), dtype=torch.float64, device=device) for one in groupings
        }
        self._losses_2N = torch.zeros(2, num_samples + 1, dtype=torch.float64, device=device)
        tabled = self._counts_right and num_classes <= MOST_CLASSES
        self._confusion_VV = (
            torch.zeros(num_classes, num_classes, dtype=torch.float64, device=device) if tabled else None
        )
        self._reliability: Tensor | None = None
        self._task = task if task.name == "regression" else None
        self._numbers: list[Tensor] = []

    def __call__(self, batch: Batch, output: ModelOutput | Tensor, terms: LossTerms) -> None:
        """Add a batch; does not wait for the device."""
        targets, losses = batch.targets, terms.losses.double()
        if self._is_multi_label:  # a text has one loss, that of all its labels
            losses, counted = losses.sum(-1), (targets != IGNORED).any(-1)
        else:
            counted = targets != IGNORED
        samples = batch.sample_ids_B.view(-1, *[1] * (losses.ndim - 1)).expand_as(losses)
        places = torch.where(samples >= 0, samples, self._num_samples).flatten()
        weight = counted.double()
        self._losses_2N.index_add_(1, places, torch.stack((losses * weight, weight)).flatten(1))
        if self._task is not None:  # two numbers of each text: there is no sum that ranks come of
            self._numbers.append(torch.stack((self._task.predictions(output, batch), targets.double(), weight)))
        right = torch.zeros_like(losses)
        if self._counts_right:
            confidence, said = logits_of(output).float().softmax(-1).max(-1)
            hits = counted & (said == targets)
            right = hits.double()
            if self._confusion_VV is not None:
                size = len(self._confusion_VV)
                pairs = (targets.clamp_min(0) * size + said).flatten()
                self._confusion_VV.view(-1).index_add_(0, pairs, weight.flatten())
            sums = reliability_sums(confidence, hits, counted)
            self._reliability = sums if self._reliability is None else self._reliability + sums
        values_3 = torch.stack((weight, losses * weight, right)).flatten(1)
        for one in self._groupings:
            groups = self._groups(one, batch, places, losses.shape)
            self._sums[one.name].index_add_(1, groups, values_3)

    def _groups(self, one: Grouping, batch: Batch, places: Tensor, shape: torch.Size) -> Tensor:
        if one.of_places:
            length = shape[-1]
            across = torch.arange(length, device=places.device) * len(one.groups) // length
            return across.expand(shape).flatten()
        table = self._tables[one.name]
        if one.of_samples is not None:
            return table[places.clamp_max(len(table) - 1)]
        return table[batch.targets.clamp(0, len(table) - 1).flatten()]

    def found(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """`slices`, `hardest` samples; of classes `confusion`, `classes` and `reliability`. JSON values; waits."""
        result: dict[str, Any] = {
            "slices": {one.name: self._table(one.groups, self._sums[one.name].cpu()) for one in self._groupings}
        }
        sums_2N = self._losses_2N[:, :-1].cpu()
        means_N = torch.where(sums_2N[1] > 0, sums_2N[0] / sums_2N[1].clamp_min(1.0), -torch.inf)
        order = means_N.argsort(descending=True, stable=True)[:HARDEST].tolist()
        result["hardest"] = [
            {"sample": index, "loss": float(means_N[index])} for index in order if means_N[index] > -torch.inf
        ]
        if self._numbers:
            answers_N, targets_N, counted_N = torch.cat(self._numbers, dim=1).cpu().numpy()
            kept_N = counted_N > 0
            result["spearman"] = rank_correlation(answers_N[kept_N], targets_N[kept_N])
        if self._confusion_VV is not None:
            counts_VV = self._confusion_VV.cpu()
            result["confusion"] = {"classes": list(classes), "counts": counts_VV.long().tolist()}
            result["classes"] = _by_class(classes, counts_VV.numpy())
        if self._reliability is not None:
            sums = self._reliability.tolist()
            result["reliability"] = reliability_curve(sums)
            result["calibration_error"] = calibration_error(sums)
        return result

    def _table(self, names: tuple[str, ...], sums_3G: Tensor) -> list[dict[str, Any]]:
        rows = []
        for name, (count, loss, right) in zip(names, sums_3G.T.tolist(), strict=True):
            if count:
                row: dict[str, Any] = {"name": name, "count": int(count), "loss": loss / count}
                rows.append(row | ({"accuracy": right / count} if self._counts_right else {}))
        return rows


def rank_correlation(answers_N: NDArray[np.float64], targets_N: NDArray[np.float64]) -> float | None:
    """Spearman's correlation; equal values share the mean of their ranks. None where one of both is always the same."""
    ranks = [_ranks(values_N) for values_N in (answers_N, targets_N)]
    if any(len(one) < 2 or one.min() == one.max() for one in ranks):
        return None
    ours, theirs = (one - one.mean() for one in ranks)
    return float(ours @ theirs / np.sqrt((ours @ ours) * (theirs @ theirs)))


def _ranks(values_N: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: NDArray[np.float64] = (last - (counts - 1) / 2.0)[places]
    return mean


def _by_class(classes: tuple[str, ...], counts_VV: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class, and what it is most often taken for."""
    rows = []
    for place, name in enumerate(classes):
        hits, said, right = counts_VV[place, place], counts_VV[:, place].sum(), counts_VV[place].sum()
        others = counts_VV[place].copy()
        others[place] = 0.0
        rows.append(
            {
                "name": name,
                "count": int(right),
                "precision": float(hits / said) if said else None,
                "recall": float(hits / right) if right else None,
                "f1": float(2 * hits / (said + right)) if said + right else None,
                "taken_for": classes[int(others.argmax())] if others.any() else None,
            }
        )
    return rows


def in_lines(found: Mapping[str, Any]) -> list[str]:
    """The details as lines of text: slices, classes, and the pairs that are confused most."""
    lines: list[str] = []
    for name, rows in found["slices"].items():
        if name == "class":
            continue
        lines.append(f"by {name}")
        lines += [
            f"  {row['name']:<44} {row['count']:>9,}   loss {row['loss']:.4f}"
            + (f"   accuracy {row['accuracy']:.1%}" if "accuracy" in row else "")
            for row in rows
        ]
    if found.get("spearman") is not None:
        lines.append(f"rank correlation of answers and targets (Spearman) {found['spearman']:.4f}")
    if "classes" in found:
        lines.append("by class")
        for row in found["classes"]:
            known = [f"{key} {row[key]:.1%}" for key in ("precision", "recall", "f1") if row[key] is not None]
            taken = f"   taken for {row['taken_for']}" if row["taken_for"] else ""
            lines.append(f"  {row['name']:<44} {row['count']:>9,}   {'   '.join(known)}{taken}")
    if "reliability" in found:
        lines.append(f"confidence (calibration error {found['calibration_error']:.3f})")
        lines += [
            f"  {row['low']:.2f} to {row['high']:.2f}{'':<32} {row['count']:>9,}   sure {row['confidence']:.1%}"
            f"   right {row['accuracy']:.1%}"
            for row in found["reliability"]
        ]
    return lines
