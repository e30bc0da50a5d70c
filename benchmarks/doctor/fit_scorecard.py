"""Fits the scorecard of `trimtab.doctor.differential` to runs with known faults, and says how it does on others'.

    python fit_scorecard.py collect --from bank=DIR --from strangers=DIR --into table.npz
    python fit_scorecard.py across --table table.npz          # fitted on some generators, asked of another
    python fit_scorecard.py fit --table table.npz --into ../../src/trimtab/doctor/differential/scorecard.json

A multinomial logistic regression, with healthy as the class that others are held against. A feature is cut at
quantiles; one weight for each cut, shrunk towards 0, so that neighbouring bins differ little; what was not logged
weighs nothing.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from scipy.optimize import minimize
from scorecard_table import Floats, Table, collect

from trimtab.doctor.differential.card import DIGITS, Scorecard, probabilities
from trimtab.doctor.differential.resemble import PROBABLE, TIMED

BINS: Final = 5
SHRINK: Final = 30.0
FOLDS: Final = 5
FALSE_ALARMS: Final = 0.01
"""Of held-out sound runs: a third of what is allowed, since logs of yet other programs raise several times as many."""
LEAST_SURE: Final = 0.9
"""That something is wrong, whatever held-out runs allow: what the doctor calls almost sure."""
FEWEST: Final = 20
"""Rows that have a feature, for it to be of use."""
RARE: Final = 0.005
OF_MACHINE: Final = ("time_", "memory_")
"""Features that speak of what the machine does, and of nothing else."""


def cuts_of(table: Table) -> dict[str, Floats]:
    """Where each feature is cut: at quantiles, and near both ends."""
    at = [*np.linspace(0, 1, BINS + 1)[1:-1], 0.02, 0.98]
    found: dict[str, Floats] = {}
    for name, values in zip(table.features, table.values_NF.T, strict=True):
        told = values[~np.isnan(values)]
        if len(told) < FEWEST:
            continue
        edges = np.unique([float(f"{edge:.4g}") for edge in np.quantile(told, at)])
        edges = np.array([edge for edge in edges if RARE < float((told > edge).mean()) < 1.0 - RARE])
        if len(edges):
            found[name] = edges
    return found


def encoded(table: Table, cuts: Mapping[str, Floats]) -> Floats:
    """Half above each cut, minus half below, 0 where it is not known [N, J]."""
    columns = []
    for name, edges in cuts.items():
        values = table.values_NF[:, table.features.index(name), None]
        columns.append(np.where(np.isnan(values), 0.0, np.where(values > edges, 0.5, -0.5)))
    return np.concatenate(columns, axis=1, dtype=np.float32)


def heard(table: Table) -> Floats:
    """What the rules remarked of each code: that they did, and how sure they were [N, C, 2]. Nothing of a run of which
    they are sure: the scorecard is not asked there, and learns from it as from one that they did not know."""
    remarks = np.where(table.loud_N[:, None], np.nan, table.remarks_NC)
    return np.stack([~np.isnan(remarks), np.nan_to_num(remarks)], axis=2).astype(np.float32)


@final
@dataclass(frozen=True)
class Fitted:
    """Weights, healthy first among the classes."""

    codes: tuple[str, ...]
    cuts: Mapping[str, Floats]
    weights_JK: Floats
    intercepts_K: Floats
    remark: Floats

    def logits(self, table: Table) -> Floats:
        """ln P(code) / P(healthy) [N, C]."""
        whole = encoded(table, self.cuts) @ self.weights_JK + self.intercepts_K
        return np.asarray((whole[:, 1:] - whole[:, :1]) + heard(table) @ self.remark)

    def softened(self, by: float) -> Fitted:
        """The same with all logits divided."""
        return Fitted(self.codes, self.cuts, self.weights_JK / by, self.intercepts_K / by, self.remark / by)


def fit(table: Table, shrink: float = SHRINK) -> Fitted:
    """By L-BFGS from zero: convex, so that there is one answer."""
    cuts = cuts_of(table)
    x, said = encoded(table, cuts), heard(table)
    (num, width), classes = x.shape, len(table.codes) + 1
    truth = table.truth_N + 1
    _, place, counts = np.unique(table.run_N, return_inverse=True, return_counts=True)
    weight = (1.0 / counts[place]).astype(np.float32)
    target = np.eye(classes, dtype=np.float32)[truth]
    machine_J = np.array([name.startswith(OF_MACHINE) for name, edges in cuts.items() for _ in edges])
    machine_K = np.array([False, *(code in TIMED for code in table.codes)])
    free_JK = ~machine_J[:, None] | machine_K

    def loss(flat: Floats) -> tuple[float, Floats]:
        flat = flat.astype(np.float32)
        w, b, r = flat[: width * classes].reshape(width, classes), flat[width * classes : -2], flat[-2:]
        z = x @ w + b
        z[:, 1:] += said @ r
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z)
        p /= p.sum(axis=1, keepdims=True)
        value = -float(weight @ np.log(p[np.arange(num), truth] + 1e-30))
        value += 0.5 * shrink * float((w * w).sum()) + 0.025 * float(b @ b) + 0.05 * float(r @ r)
        off = (p - target) * weight[:, None]
        slopes = [((x.T @ off + shrink * w) * free_JK).ravel(), off.sum(axis=0) + 0.05 * b]
        slopes.append(np.einsum("nc,ncm->m", off[:, 1:], said) + 0.1 * r)
        return value, np.concatenate(slopes).astype(np.float64)

    found = minimize(
        loss, np.zeros(width * classes + classes + 2), jac=True, method="L-BFGS-B", options={"maxiter": 500}
    ).x
    return Fitted(
        table.codes,
        cuts,
        found[: width * classes].reshape(width, classes),
        found[width * classes : -2],
        found[-2:],
    )


@final
@dataclass(frozen=True, slots=True)
class Figures:
    """What became of some runs, the rules' answers included."""

    faulty: int
    first_by_rules: int
    first: int
    among_three: int
    """Of faulty runs in which the rules were not sure, and the scorecard spoke."""
    spoken: int
    remarked: int
    """Faulty runs in which it spoke or remarked, and named the fault among three."""
    healthy: int
    false_by_rules: int
    false: int
    remarked_healthy: int
    """Sound ones with a remark of it."""

    def __str__(self) -> str:
        """In a line."""
        return (
            f"first {self.first} of {self.faulty} (rules alone {self.first_by_rules}); spoken in {self.spoken} "
            f"faulty runs, right {self.first - self.first_by_rules}, among three {self.among_three}; "
            f"with remarks {self.remarked}; false {self.false} of {self.healthy} (rules alone {self.false_by_rules}), "
            f"remarks in {self.remarked_healthy}"
        )


def chances(fitted: Fitted, table: Table) -> tuple[Floats, Floats]:
    """P(something is wrong) [N] and P(code) [N, C]."""
    found = [probabilities(logits) for logits in fitted.logits(table)]
    return np.array([1.0 - sound for sound, _ in found]), np.array([codes for _, codes in found])


def figures(fitted: Fitted, table: Table, threshold: float) -> Figures:
    """Of logs as they are."""
    table = table.where(table.whole_N)
    wrong, by_code = chances(fitted, table)
    # The codes of two tables may differ: what was not fitted is never named.
    ordered = np.argsort(-by_code, axis=1, kind="stable")
    faulty, speaks = table.truth_N >= 0, ~table.loud_N & (wrong >= threshold)
    remarks = ~table.loud_N & (wrong >= min(PROBABLE, threshold))
    names, own = np.array(fitted.codes), np.array(table.codes)
    truth = own[np.maximum(table.truth_N, 0)]
    right = names[ordered[:, 0]] == truth
    three = (names[ordered[:, :3]] == truth[:, None]).any(axis=1)
    return Figures(
        int(faulty.sum()),
        int((faulty & table.first_N).sum()),
        int((faulty & (table.first_N | (speaks & right))).sum()),
        int((faulty & speaks & three).sum()),
        int((faulty & speaks).sum()),
        int((faulty & remarks & three).sum()),
        int((~faulty).sum()),
        int((~faulty & table.loud_N).sum()),
        int((~faulty & (table.loud_N | speaks)).sum()),
        int((~faulty & remarks & ~speaks).sum()),
    )


def temperature(table: Table, rows: Floats, logits_NC: Floats) -> float:
    """What logits are divided by, so that held-out probabilities are as often right as they say, where rules are not
    sure. Source: Guo et al. 2017, arXiv 1706.04599."""
    quiet = ~table.loud_N[rows]
    truth, whole = table.truth_N[rows][quiet] + 1, np.insert(logits_NC[quiet], 0, 0.0, axis=1)

    def loss(by: float) -> float:
        z = whole / by
        z -= z.max(axis=1, keepdims=True)
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), truth]).mean())

    return min(np.geomspace(0.5, 4.0, 61).tolist(), key=loss)


def threshold_of(table: Table, rows: Floats, logits_NC: Floats) -> float:
    """The least P(something is wrong) that is said: above that of all held-out sound runs but so many."""
    sound = table.truth_N[rows] < 0
    quiet = sound & ~table.loud_N[rows]
    wrong = np.sort([1.0 - probabilities(one)[0] for one in logits_NC[quiet]])[::-1]
    allowed = math.floor(FALSE_ALARMS * int(sound.sum()))
    return float(math.ceil(1000 * wrong[allowed]) / 1000) if allowed < len(wrong) else 0.5


def groups_of(table: Table) -> list[list[str]]:
    """Generators that share no code: what stands before a hyphen or a digit, as in C-own and C2, is one of them."""
    names = sorted(set(table.generator_N.tolist()))
    stems = [name.partition("-")[0].rstrip("0123456789") for name in names]
    return [[name for name, stem in zip(names, stems, strict=True) if stem == one] for one in sorted(set(stems))]


def held_out(table: Table, shrink: float = SHRINK, *, by_generator: bool = False) -> tuple[Floats, Floats]:
    """Logits of logs as they are, each of a fit without its run, or without its generator [N, C]; and their rows."""
    runs = np.unique(table.run_N)
    fold = np.random.default_rng(0).permutation(len(runs)) % FOLDS
    if by_generator:
        parts = [np.isin(table.generator_N, group) for group in groups_of(table)]
        parts = [out for out in parts if out.mean() <= 0.5]  # without most of the runs it is another fit
    else:
        parts = [np.isin(table.run_N, runs[fold == number]) for number in range(FOLDS)]
    rows, logits = [], []
    for out in parts:
        asked = out & table.whole_N
        logits.append(fit(table.where(~out), shrink).logits(table.where(asked)))
        rows.append(np.flatnonzero(asked))
    return np.concatenate(rows), np.concatenate(logits)


def calibrated(table: Table, shrink: float = SHRINK) -> tuple[Fitted, float]:
    """A fit whose probabilities held-out runs bear out, and the threshold, which runs of other generators do, too."""
    rows, logits = held_out(table, shrink)
    by = temperature(table, rows, logits)
    threshold = threshold_of(table, rows, logits / by)
    if len(groups_of(table)) > 2:
        rows, logits = held_out(table, shrink, by_generator=True)
        threshold = max(threshold, threshold_of(table, rows, logits / by))
    return fit(table, shrink).softened(by), max(threshold, LEAST_SURE)


def across(table: Table, shrink: float = SHRINK) -> None:
    """Fitted on some generators, asked of others."""
    groups = groups_of(table)
    for left_out in groups:
        others = [group for group in groups if group != left_out]
        together = [[one for group in others for one in group]] if len(others) > 1 else []
        for kept in others + together:
            fitted, threshold = calibrated(table.where(np.isin(table.generator_N, kept)), shrink)
            asked = table.where(np.isin(table.generator_N, left_out))
            told = figures(fitted, asked, threshold)
            print(f"{'+'.join(kept)} -> {'+'.join(left_out)}, threshold {threshold:.2f}: {told}", flush=True)


def exported(fitted: Fitted, threshold: float, table: Table) -> dict[str, Any]:
    """As the values of the file."""
    sound = table.where(table.whole_N & (table.truth_N < 0))
    against_JC = fitted.weights_JK[:, 1:] - fitted.weights_JK[:, :1]
    features, place = {}, 0
    for name, edges in fitted.cuts.items():
        weights_EC = against_JC[place : place + len(edges)]
        place += len(edges)
        above = np.arange(len(edges) + 1)[:, None] > np.arange(len(edges))
        points = np.where(above, 0.5, -0.5) @ weights_EC
        usual = float(np.nanmedian(sound.values_NF[:, table.features.index(name)]))
        features[name] = {"edges": edges.tolist(), "usual": float(f"{usual:.4g}"), "points": _whole(points)}
    kinds = table.truth_N[table.whole_N]
    return {
        "runs": len(kinds),
        "faulty": int((kinds >= 0).sum()),
        "sha256": table.digest(),
        "threshold": threshold,
        "codes": list(fitted.codes),
        "intercepts": _whole(fitted.intercepts_K[1:] - fitted.intercepts_K[0]),
        "remark": _whole(fitted.remark),
        "features": features,
    }


def _whole(points: Floats) -> Any:
    return np.round(points * DIGITS).astype(int).tolist()


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    collecting, crossing, fitting = (commands.add_parser(name) for name in ("collect", "across", "fit"))
    collecting.add_argument("--from", dest="folders", action="append", required=True, metavar="NAME=DIR")
    for one in (collecting, fitting):
        one.add_argument("--into", type=Path, required=True)
    for one in (crossing, fitting):
        one.add_argument("--table", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "collect":
        folders = [one.partition("=") for one in arguments.folders]
        table = collect({name: Path(folder) for name, _, folder in folders})
        table.save(arguments.into)
        print(f"{len(np.unique(table.run_N))} runs, {len(table)} rows")
        return
    table = Table.load(arguments.table)
    if arguments.command == "across":
        across(table)
        return
    fitted, threshold = calibrated(table)
    told = exported(fitted, threshold, table)
    arguments.into.write_text(json.dumps(told, separators=(",", ":")) + "\n", encoding="utf-8")
    assert Scorecard.of(told).codes == table.codes
    print(f"{told['runs']} runs, threshold {threshold}, {arguments.into.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
