"""How many faults the curves of other trainers' logs tell at all: the rules beside a classifier that knows their kinds.

    python what_curves_hold.py --table scorecard-runs.npz --generator bank
    python what_curves_hold.py --table scorecard-runs.npz --asked test.npz    # of `fit_scorecard.py collect`

The scorecard's regression is fitted to four fifths of the runs, those of the same generator among them, and asked of
the last fifth, five times; or, with `--asked`, fitted to all of them and asked of others. It calls sound what it is
sure of enough that sound runs raise no more than 5 % false alarms. It sees the ninety features of the curves, and what
the rules said. What neither names is not in the curves, or at least not in these features.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from fit_scorecard import Floats, Table, fit, held_out, probabilities

ALLOWED: Final = 0.05
"""False alarms of sound runs."""
UNKNOWN: Final = -2
"""A fault that no run of the table has."""


def named(table: Table, logits_NC: Floats, allowed: float = ALLOWED) -> Floats:
    """The code that the classifier names of each row, -1: none [N]."""
    told = [probabilities(one) for one in logits_NC]
    sound_N, likeliest_N = np.array([one[0] for one in told]), np.array([one[1].argmax() for one in told])
    of_sound = np.sort(sound_N[table.truth_N == -1])
    return np.where(sound_N < of_sound[int(allowed * len(of_sound))], likeliest_N, -1)


def out_of_fold(table: Table, start: str) -> tuple[Table, Floats]:
    """The whole logs of generators whose names begin so, and their logits, each of a fit without its run."""
    rows, logits = held_out(table)
    rows, logits = rows[order := np.argsort(rows)], logits[order]
    asked = np.char.startswith(table.generator_N[rows], start)
    return table.where(np.isin(np.arange(len(table)), rows[asked])), logits[asked]


def of_others(table: Table, asked: Table) -> tuple[Table, Floats]:
    """The whole logs of `asked` with the codes of `table`, and their logits of a fit to all of that."""
    asked = asked.where(asked.whole_N)
    heard_NCM = np.zeros((len(asked), len(table.codes), asked.heard_NCM.shape[2]))
    place = {code: index for index, code in enumerate(table.codes)}
    for index, code in enumerate(asked.codes):
        if code in place:
            heard_NCM[:, place[code]] = asked.heard_NCM[:, index]
    truth_N = np.array([place.get(asked.codes[one], UNKNOWN) if one >= 0 else -1 for one in asked.truth_N])
    asked = replace(asked, codes=table.codes, heard_NCM=heard_NCM, truth_N=truth_N)
    return asked, fit(table).logits(asked)


def main() -> None:
    """A line for each fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--generator", default="", metavar="START", help="the beginning of its name; else all")
    parser.add_argument("--asked", type=Path, metavar="FILE", help="another table, of which no run is fitted")
    arguments = parser.parse_args()
    table = _of_others_logs(Table.load(arguments.table))
    if arguments.asked is None:
        asked, logits = out_of_fold(table, arguments.generator)
    else:
        asked, logits = of_others(table, _of_others_logs(Table.load(arguments.asked)))
    named_N = named(asked, logits)
    print(f"{'':32}{'runs':>6}{'rules, first':>14}{'classifier':>12}")
    for place, code in enumerate((*asked.codes, "all faults")):
        of_it = asked.truth_N == place if place < len(asked.codes) else asked.truth_N != -1
        if of_it.any() and (arguments.asked is None or code == "all faults"):
            right = int((named_N == asked.truth_N)[of_it].sum())
            print(f"{code:32}{of_it.sum():6}{int(asked.first_N[of_it].sum()):14}{right:12}")
    sound = asked.truth_N == -1
    print(f"{'false alarms':32}{sound.sum():6}{int(asked.loud_N[sound].sum()):14}{int((named_N[sound] >= 0).sum()):12}")


def _of_others_logs(table: Table) -> Table:
    return table.where(~np.char.endswith(table.generator_N, "-own"))


if __name__ == "__main__":
    main()
