"""What made the difference between two runs: their settings, data, machine, events, and where their curves part."""

from trimtab.doctor.compare.compare import compare, other_runs, runs_beside
from trimtab.doctor.compare.comparison import Change, Comparison, Outcome, Parting, Reason, Side, Turn
from trimtab.doctor.compare.sides import open_side

__all__ = [
    "Change",
    "Comparison",
    "Outcome",
    "Parting",
    "Reason",
    "Side",
    "Turn",
    "compare",
    "open_side",
    "other_runs",
    "runs_beside",
]
