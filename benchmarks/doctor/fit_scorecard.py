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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from scipy.optimize import minimize
from scorecard_table import Floats, Table, collect

from trimtab.doctor.differential.card import DIGITS, MARKS, Scorecard, probabilities
from trimtab.doctor.differential.resemble import MOST_NAMED, TIMED

BINS: Final = 5
SHRINK: Final = 20.0
FOLDS: Final = 5
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


@final
@dataclass(frozen=True)
class Fitted:
    """Weights, healthy first among the classes."""

    codes: tuple[str, ...]
    cuts: Mapping[str, Floats]
    weights_JK: Floats
    intercepts_K: Floats
    heard_M: Floats

    def logits(self, table: Table) -> Floats:
        """ln P(code) / P(healthy) [N, C]."""
        whole = encoded(table, self.cuts) @ self.weights_JK + self.intercepts_K
        return np.asarray((whole[:, 1:] - whole[:, :1]) + table.heard_NCM @ self.heard_M)

    def softened(self, by: float) -> Fitted:
        """The same with all logits divided."""
        return Fitted(self.codes, self.cuts, self.weights_JK / by, self.intercepts_K / by, self.heard_M / by)


def fit(table: Table, shrink: float = SHRINK) -> Fitted:
    """By L-BFGS from zero: convex, so that there is one answer."""
    cuts = cuts_of(table)
    x, said = encoded(table, cuts), table.heard_NCM.astype(np.float32)
    (num, width), classes = x.shape, len(table.codes) + 1
    truth = table.truth_N + 1
    _, place, counts = np.unique(table.run_N, return_inverse=True, return_counts=True)
    weight = (1.0 / counts[place]).astype(np.float32)
    target = np.eye(classes, dtype=np.float32)[truth]
    machine_J = np.array([name.startswith(OF_MACHINE) for name, edges in cuts.items() for _ in edges])
    machine_K = np.array([False, *(code in TIMED for code in table.codes)])
    free_JK = ~machine_J[:, None] | machine_K

    def parted(flat: Floats) -> tuple[Floats, Floats, Floats]:
        """Weights [J, K], intercepts [K], and what is heard [M]."""
        return flat[: width * classes].reshape(width, classes), flat[width * classes : -MARKS], flat[-MARKS:]

    def loss(flat: Floats) -> tuple[float, Floats]:
        flat = flat.astype(np.float32)
        w, b, r = parted(flat)
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

    begin = np.zeros(width * classes + classes + MARKS)
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return Fitted(table.codes, cuts, *parted(found))


@final
@dataclass(frozen=True, slots=True)
class Figures:
    """What became of some logs of other trainers."""

    faulty: int
    first: int
    """Named first by the rules, as a warning or worse."""
    three_by_rules: int
    three: int
    """Among the first three, what the scorecard names included."""

    def __str__(self) -> str:
        """In a line."""
        return f"of {self.faulty}: first {self.first}, among three {self.three} (by rules alone {self.three_by_rules})"


def figures(fitted: Fitted, table: Table) -> Figures:
    """Of logs as they are."""
    table = table.where(table.whole_N & (table.truth_N >= 0))
    by_code = np.array([probabilities(logits)[1] for logits in fitted.logits(table)])
    # The codes of two tables may differ: what was not fitted is never named.
    truth = np.array(table.codes)[table.truth_N]
    said = [
        [table.codes[at] for at in sorted(np.flatnonzero(heard_CM.any(axis=1)), key=lambda at: _order(heard_CM[at]))]
        for heard_CM in table.heard_NCM
    ]
    likely = [[fitted.codes[at] for at in np.argsort(-odds, kind="stable")] for odds in by_code]
    named = [
        rules + [code for code in guesses if code not in rules] for rules, guesses in zip(said, likely, strict=True)
    ]
    return Figures(
        len(truth),
        int(table.first_N.sum()),
        sum(code in rules[:MOST_NAMED] for code, rules in zip(truth, said, strict=True)),
        sum(code in codes[:MOST_NAMED] for code, codes in zip(truth, named, strict=True)),
    )


def _order(told: Floats) -> tuple[float, float, float]:
    """What leads, warnings, remarks, each the surer first."""
    remarked, sure, warned, surer, leads = told
    return (-leads, -warned * surer, -remarked * sure)


def temperature(table: Table, rows: Floats, logits_NC: Floats) -> float:
    """What logits are divided by, so that held-out probabilities are as often right as they say.

    Source: Guo et al. 2017, arXiv 1706.04599.
    """
    truth, whole = table.truth_N[rows] + 1, np.insert(logits_NC, 0, 0.0, axis=1)

    def loss(by: float) -> float:
        z = whole / by
        z -= z.max(axis=1, keepdims=True)
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), truth]).mean())

    return min(np.geomspace(0.5, 4.0, 61).tolist(), key=loss)


def groups_of(table: Table) -> list[list[str]]:
    """Generators that share no code: what stands before a hyphen or a digit, as in C-own and C2, is one of them."""
    names = sorted(set(table.generator_N.tolist()))
    stems = [name.partition("-")[0].rstrip("0123456789") for name in names]
    return [[name for name, stem in zip(names, stems, strict=True) if stem == one] for one in sorted(set(stems))]


def held_out(table: Table, shrink: float = SHRINK) -> tuple[Floats, Floats]:
    """Logits of logs as they are, each of a fit without its run [N, C]; and their rows."""
    runs = np.unique(table.run_N)
    fold = np.random.default_rng(0).permutation(len(runs)) % FOLDS
    rows, logits = [], []
    for number in range(FOLDS):
        out = np.isin(table.run_N, runs[fold == number])
        asked = out & table.whole_N
        logits.append(fit(table.where(~out), shrink).logits(table.where(asked)))
        rows.append(np.flatnonzero(asked))
    return np.concatenate(rows), np.concatenate(logits)


def calibrated(table: Table, shrink: float = SHRINK) -> Fitted:
    """A fit whose probabilities held-out runs bear out."""
    return fit(table, shrink).softened(temperature(table, *held_out(table, shrink)))


def across(table: Table, shrink: float = SHRINK) -> None:
    """Fitted on some generators, asked of the logs of another."""
    groups = groups_of(table)
    for left_out in groups:
        kept = [one for group in groups if group != left_out for one in group]
        asked = np.isin(table.generator_N, left_out) & ~np.char.endswith(table.generator_N, "-own")
        if asked.any():
            told = figures(fit(table.where(np.isin(table.generator_N, kept)), shrink), table.where(asked))
            print(f"{'+'.join(kept)} -> {'+'.join(left_out)}, {told}", flush=True)


def exported(fitted: Fitted, table: Table) -> dict[str, Any]:
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
        "codes": list(fitted.codes),
        "intercepts": _whole(fitted.intercepts_K[1:] - fitted.intercepts_K[0]),
        "heard": _whole(fitted.heard_M),
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
    told = exported(calibrated(table), table)
    arguments.into.write_text(json.dumps(told, separators=(",", ":")) + "\n", encoding="utf-8")
    assert Scorecard.of(told).codes == table.codes
    print(f"{told['runs']} runs, {arguments.into.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
