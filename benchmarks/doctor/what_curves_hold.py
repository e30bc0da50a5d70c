"""How many faults the curves of other trainers' logs tell at all: the rules beside a classifier that knows the ground.

    python what_curves_hold.py --table scorecard-runs.npz --generator bank

The scorecard's regression is fitted to four fifths of the runs, those of the same generator among them, and asked of
the last fifth, five times; healthy is what it calls healthy at the share of false alarms that is allowed. It sees the
ninety features of the curves, and what the rules said. What neither names is not in the curves, or at least not in
these features.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np
from fit_scorecard import Floats, Table, held_out, probabilities

ALLOWED: Final = 0.05
"""False alarms of sound runs."""


def named(table: Table, start: str, allowed: float = ALLOWED) -> tuple[Table, Floats]:
    """The whole logs of generators whose names begin so, and the code that the classifier names, -1: none [N]."""
    rows, logits = held_out(table)
    rows, logits = rows[order := np.argsort(rows)], logits[order]
    asked = np.char.startswith(table.generator_N[rows], start)
    kept = table.where(np.isin(np.arange(len(table)), rows[asked]))
    told = [probabilities(one) for one in logits[asked]]
    sound_N, likeliest_N = np.array([one[0] for one in told]), np.array([one[1].argmax() for one in told])
    of_sound = np.sort(sound_N[kept.truth_N < 0])
    return kept, np.where(sound_N < of_sound[int(allowed * len(of_sound))], likeliest_N, -1)


def main() -> None:
    """A line for each fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--generator", default="", metavar="START", help="the beginning of its name; else all")
    arguments = parser.parse_args()
    table = Table.load(arguments.table)
    table = table.where(~np.char.endswith(table.generator_N, "-own"))
    table, named_N = named(table, arguments.generator)
    print(f"{'':32}{'runs':>6}{'rules, first':>14}{'classifier':>12}")
    for place, code in enumerate((*table.codes, "all faults")):
        of_it = table.truth_N == place if place < len(table.codes) else table.truth_N >= 0
        if of_it.any():
            right = int((named_N == table.truth_N)[of_it].sum())
            print(f"{code:32}{of_it.sum():6}{int(table.first_N[of_it].sum()):14}{right:12}")
    sound = table.truth_N < 0
    print(f"{'false alarms':32}{sound.sum():6}{int(table.loud_N[sound].sum()):14}{int((named_N[sound] >= 0).sum()):12}")


if __name__ == "__main__":
    main()
