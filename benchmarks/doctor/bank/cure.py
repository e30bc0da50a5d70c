"""How often remedies cure: of each faulty run of trimtab what the doctor would change is trained, beside its twin.

PYTHONPATH=benchmarks/doctor python -m bank cure --from DIR [--only PATTERN] [--seeds 3] [--minutes M] [--json FILE]

The fixed run has the faulty one's length, and what was planted in code stays in. It is cured where its validation loss,
of the weights that the run would hand back, is within 5 % of the twin's mean, or no higher than the twin's highest, as
a mean over the seeds. Of faults of speed and memory the loss says nothing: there the finding has to be gone, too. A
remedy to train longer is tried for as long as the twin trains.

Runs whose first finding has no change of settings to offer are listed apart: a bug in code or data is mended by hand.
"""

from __future__ import annotations

import fnmatch
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, final

from bank import clock, ours
from bank.generate import TOOK_LONGER, in_a_fork, preload, thin, train
from bank.scenario import HEALTHY, Scenario
from bank.score import Share, case_of, log_of
from bank.texts import prepare

if TYPE_CHECKING:
    from trimtab.config import Config
    from trimtab.doctor.fix import Fix
    from trimtab.experiments.proof import Outcome, Side

WITHIN: Final = 0.05
"""Of the twin's loss."""
LIMIT_SECONDS: Final = 400.0
"""Of the clock; what takes longer goes on the next time."""
OF_NO_LOSS: Final = ("input-bound", "throughput-decay", "memory-leak", "thread-oversubscription")
"""Faults that leave the loss as it is."""

State = Literal["tried", "by hand", "not found", "not comparable", "unfinished"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A faulty run, what was changed, and what came of it."""

    name: str
    code: str
    """What was planted."""
    found: str
    """The first finding that is a warning or worse; '' where there is none."""
    state: State
    changes: tuple[str, ...] = ()
    faulty: float | None = None
    """The loss that the faulty run itself ended with."""
    twin: tuple[float | None, ...] = ()
    """By seed."""
    fixed: tuple[float | None, ...] = ()
    left: int = 0
    """Fixed runs in which the finding was still there."""
    why: str = ""
    """Of what was not tried, or could not be compared."""

    @property
    def is_named(self) -> bool:
        """Whether the doctor named what was planted."""
        return self.found == self.code

    @property
    def highest(self) -> float:
        """What counts as cured: up to here."""
        known = [loss for loss in self.twin if loss is not None]
        return max((1.0 + WITHIN) * statistics.fmean(known), *known) if known else float("-inf")

    @property
    def is_cured(self) -> bool:
        """Whether the fixed runs are as good as their twins."""
        known = [loss for loss in self.fixed if loss is not None]
        if len(known) < max(1, len(self.fixed)) or (self.code in OF_NO_LOSS and self.left > 0):
            return False
        return statistics.fmean(known) <= self.highest

    @property
    def is_sound_already(self) -> bool:
        """Whether the faulty run itself would count as cured: its loss never showed the fault."""
        return self.code not in OF_NO_LOSS and self.faulty is not None and self.faulty <= self.highest

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"cured": self.is_cured if self.state == "tried" else None}


def cure(
    folder: Path,
    only: str | None,
    seeds: int,
    minutes: float,
    report: Callable[[str], None],
) -> list[Attempt]:
    """Try what the doctor offers on the runs of a folder, for so many minutes; what was trained is kept beside them."""
    preload(["trimtab"])
    end = time.monotonic() + 60.0 * minutes
    found = []
    for path in sorted(folder.glob("*/truth.json")):
        truth = json.loads(path.read_text(encoding="utf-8"))
        if truth["logger"] != "trimtab" or truth["code"] == HEALTHY:
            continue
        if only and not fnmatch.fnmatch(truth["name"], only):
            continue
        tried = _try(truth, path.parent, prepare(truth["part"], folder.parent), seeds, end)
        (path.parent / "cure" / "cure.json").write_text(json.dumps(tried.to_json(), indent=1), encoding="utf-8")
        found.append(tried)
        report(_line(tried))
    return found


def _try(truth: Mapping[str, Any], place: Path, data: Path, seeds: int, end: float) -> Attempt:
    from trimtab.config import dump_config, load_written
    from trimtab.doctor.compare import open_side
    from trimtab.doctor.compare.changes import changes_between
    from trimtab.doctor.compare.outcomes import obstacles_between
    from trimtab.doctor.diagnose import diagnose
    from trimtab.doctor.fix import fix
    from trimtab.doctor.tried import tried_in_run
    from trimtab.experiments.proving import outcome_of

    scenario = _scenario(truth)
    faulty, sound = (
        ours.prepare_run(scenario, _made(place / "cure" / name), data, twin=name == "sound")
        for name in ("faulty", "sound")
    )
    written = place / "cure" / "config.yaml"  # as that of the run, with the paths of this machine
    written.write_text(dump_config(ours.config_of(faulty)), encoding="utf-8")
    case = case_of(log_of(place), "trimtab")
    diagnosis = diagnose(case, truth["name"])
    loud = [one for one in diagnosis.findings if one.severity != "info"]
    told: dict[str, Any] = {"name": truth["name"], "code": truth["code"], "found": loud[0].code if loud else ""}
    if not loud:
        return Attempt(**told, state="not found")
    fixed = fix(
        diagnosis,
        lambda overrides: load_written(written, overrides),
        lambda finding: tried_in_run(case, finding.code, finding.onset_step),
    )
    if fixed.config is None or loud[0].code not in fixed.codes:
        return Attempt(**told, state="by hand", why=_by_hand(fixed, loud[0].code))
    told |= {
        "changes": tuple(fixed.overrides),
        "faulty": outcome_of(log_of(place), "original", ours.config_of(faulty)).loss,
    }
    outcomes: dict[Side, list[Outcome]] = {"twin": [], "fixed": []}
    twin = ours.config_of(sound)
    for seed in range(scenario.seed, scenario.seed + seeds):
        for side, setup, config in (("twin", sound, twin), ("fixed", faulty, _no_longer(fixed.config, twin))):
            if (outcome := _trained(setup, config, side, seed, place / "cure", end)) is None:
                return Attempt(**told, state="unfinished")
            outcomes[side].append(outcome)
    a, b = (open_side(Path(outcomes[side][0].run)) for side in ("fixed", "twin"))
    obstacles = obstacles_between(a, b, changes_between(a, b))
    if any(one.loss is None for one in outcomes["twin"]):
        obstacles = (*obstacles, "a twin is not sound itself")
    return Attempt(
        **told,
        state="not comparable" if obstacles else "tried",
        twin=tuple(one.loss for one in outcomes["twin"]),
        fixed=tuple(one.loss for one in outcomes["fixed"]),
        left=sum(loud[0].code in one.found for one in outcomes["fixed"]),
        why="; ".join(obstacles),
    )


def _trained(setup: ours.Setup, config: Config, side: Side, seed: int, folder: Path, end: float) -> Outcome | None:
    """What a run came to that is trained in a process of its own, unless it was before; None when time is up."""
    from trimtab.experiments.proof import Outcome
    from trimtab.experiments.proving import digest, is_over, outcome_of, seeded

    asked = seeded(config, seed)
    run = folder / f"{side}-{digest(asked, asked.training.steps)}" / f"seed-{seed}"
    run.parent.mkdir(parents=True, exist_ok=True)
    if not is_over(run):
        if time.monotonic() > end:
            return None

        def act() -> None:
            if setup.scenario.code != "thread-oversubscription":
                clock.install()
            print(train(lambda: ours.train(setup, run, config=asked)))
            thin(run)

        if problem := in_a_fork(act, run.parent, LIMIT_SECONDS):
            (run.parent / f"failed-{seed}.txt").write_text(problem, encoding="utf-8")
            if problem.startswith(TOOK_LONGER):
                return None
    if not is_over(run):
        return Outcome(side, seed, str(run), "failed", 0, None, ())
    return outcome_of(run, side, asked)


def _no_longer(config: Config, twin: Config) -> Config:
    """`config` for no more steps than its twin, with evaluations as often."""
    if config.training.steps <= twin.training.steps:
        return config
    return config.model_copy(
        update={
            "training": config.training.model_copy(update={"steps": twin.training.steps}),
            "evaluation": config.evaluation.model_copy(update={"every": twin.evaluation.every}),
        }
    )


def _scenario(truth: Mapping[str, Any]) -> Scenario:
    names = ("part", "logger", "task", "code", "variant", "severity")
    return Scenario(**{name: truth[name] for name in names}, round=int(truth["name"].rpartition("-")[2]))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _by_hand(fixed: Fix, code: str) -> str:
    return next((one.remedy for one in fixed.advice if one.code == code), "")


def _line(one: Attempt) -> str:
    if one.state != "tried":
        return f"{one.state:<14} {one.name}: {one.found or 'nothing'}{f': {one.why}' if one.why else ''} " + " ".join(
            one.changes
        )
    said = "cured" if one.is_cured else "not cured"
    faulty, twin, fixed = (
        ", ".join("–" if loss is None else f"{loss:.3f}" for loss in losses)
        for losses in ((one.faulty,), one.twin, one.fixed)
    )
    left = f", found again in {one.left}" if one.left else ""
    return f"{said:<14} {one.name}: {one.found}; faulty {faulty}, twin {twin}, fixed {fixed}{left}; " + " ".join(
        one.changes
    )


def table(found: Sequence[Attempt]) -> str:
    """All figures in Markdown, by what was planted."""
    lines = [
        "| planted | runs | tried | cured | cured where named first | sound already |",
        "|---|---|---|---|---|---|",
    ]
    for code in [*sorted({one.code for one in found}), "all"]:
        of_code = [one for one in found if code in (one.code, "all")]
        tried = [one for one in of_code if one.state == "tried"]
        named = [one for one in tried if one.is_named]
        if tried:
            shares = (_cured(tried), _cured(named)) if code == "all" else map(_short, (_cured(tried), _cured(named)))
            sound = sum(one.is_sound_already for one in tried)
            lines.append(
                f"| {code} | {len(of_code)} | {len(tried)} | " + " | ".join(map(str, shares)) + f" | {sound} |"
            )
    for state, title in TITLES.items():
        names = [f"{one.code} ({one.found})" if not one.is_named else one.code for one in found if one.state == state]
        if names:
            lines += ["", f"{title}: {len(names)}: {', '.join(_counted(names))}."]
    return "\n".join(lines)


TITLES: Final[Mapping[State, str]] = {
    "by hand": "No setting mends what was found (planted, and in brackets found instead)",
    "not found": "Nothing was found",
    "not comparable": "Losses that cannot be held against the twin's",
    "unfinished": "Time was up",
}


def _cured(tried: Sequence[Attempt]) -> Share:
    return Share(sum(one.is_cured for one in tried), len(tried))


def _short(share: Share) -> str:
    return f"{share.count} of {share.of}" if share.of else "–"


def _counted(names: Iterable[str]) -> Iterator[str]:
    names = list(names)
    for name in sorted(set(names)):
        yield name if names.count(name) == 1 else f"{name} {names.count(name)}"


def main(folder: Path, only: str | None, seeds: int, minutes: float, file: Path | None) -> None:
    """Try, print, and write JSON."""
    found = cure(folder, only, seeds, minutes, lambda told: print(told, flush=True))
    print()
    print(table(found))
    if file is not None:
        tried = [one for one in found if one.state == "tried"]
        figures = {"all": _cured(tried), "named first": _cured([one for one in tried if one.is_named])}
        told = {
            "seeds": seeds,
            "cured": {name: share.to_json() for name, share in figures.items()},
            "states": {state: sum(one.state == state for one in found) for state in ("tried", *TITLES)},
            "runs": [one.to_json() for one in found],
        }
        file.write_text(json.dumps(told, indent=1), encoding="utf-8")
