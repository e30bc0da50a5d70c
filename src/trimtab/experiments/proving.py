"""Prove a remedy: train the original and the changed configuration side by side, from the same seeds, and compare."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

from trimtab.config import Config, dump_config
from trimtab.config.alerts import AlertsConfig
from trimtab.config.profile import ProfileConfig
from trimtab.doctor.compare import open_side
from trimtab.doctor.compare.changes import changes_between
from trimtab.doctor.compare.outcomes import obstacles_between
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.fix import Fix
from trimtab.doctor.load import open_case
from trimtab.doctor.tried import PROOFS
from trimtab.errors import NumericsError, UsageError
from trimtab.events import EvaluationEnded, Event, StepsEnded, Stop
from trimtab.experiments.proof import MOST_SEEDS, Outcome, Proof, Side, judge, short_steps
from trimtab.runs import RunDirectory
from trimtab.runs.files import write_json
from trimtab.runs.reasons import would_repeat
from trimtab.trainer import Trainer

_OF_NO_MATTER: Final[Mapping[str, Any]] = {"sinks": (), "alerts": AlertsConfig(), "profile": ProfileConfig()}
"""What a run tells to others, and what it measures beside its steps: not when it is repeated for a proof."""


def prove(
    run: Path,
    original: Config,
    fix: Fix,
    *,
    onset_step: int = 0,
    full: bool = False,
    seeds: int = 1,
    report: Callable[[str, float], None] | None = None,
) -> Proof | None:
    """Train `original` and `fix.config` from each of `seeds` seeds, and say whether the change held.

    The runs are whole runs, in `proofs/` of `run`: seeds are the run's own and those after it. A short proof stops both
    sides at the same evaluation, a quarter of the way and well after `onset_step`, with the schedule of the whole run;
    `full` trains all steps. Called again it goes on where it was interrupted, and what is done is not done again; an
    original is shared by all fixes of a run. None when it was interrupted.

    Raises: UsageError where nothing is changed; what training raises, but for numbers that fail, which is an outcome.
    """
    if fix.config is None:
        raise UsageError("there is no change to prove: no finding has a setting left to try")
    if not 1 <= seeds <= MOST_SEEDS:
        raise UsageError(f"seeds: must be 1 to {MOST_SEEDS}. Received: {seeds}")
    of_steps = original.training.steps
    short = short_steps(of_steps, original.evaluation.every, onset_step)
    changed = fix.config
    told = report or (lambda what, fraction: None)
    outcomes: list[Outcome] = []
    for seed in range(original.seed, original.seed + seeds):
        for side, config in _sides(original, changed):
            # Where the fix changes how often is evaluated, each side stops at its own first evaluation from there on.
            last = config.training.steps if full else min(short, config.training.steps)
            place = f"{len(outcomes) + 1} of {2 * seeds}: {side}, seed {seed}"
            asked = seeded(config, seed)
            folder = run / PROOFS / digest(asked, last) / f"seed-{seed}"
            if not is_over(folder) and not _train(asked, folder, last, place, told):
                return None
            outcomes.append(outcome_of(folder, side, asked))
    codes = fix.codes or tuple(dict.fromkeys(change.code for change in fix.changes))
    steps = of_steps if full else min(short, of_steps)
    obstacles = _obstacles(outcomes[:2])
    proof = judge(outcomes, codes, fix.overrides, steps=steps, of_steps=of_steps, obstacles=obstacles)
    write_json(folder.parent / "proof.json", proof.to_json())
    return proof


def _obstacles(pair: Sequence[Outcome]) -> tuple[str, ...]:
    """Why their losses cannot be compared: other data, other amounts, or losses of another kind."""
    original, fixed = (open_side(Path(one.run)) for one in pair)
    return obstacles_between(original, fixed, changes_between(original, fixed))


def _sides(original: Config, fixed: Config) -> Sequence[tuple[Side, Config]]:
    return (("original", original), ("fixed", fixed))


def seeded(config: Config, seed: int) -> Config:
    """`config` from a seed, without what is told to others."""
    return config.model_copy(update={"seed": seed, **_OF_NO_MATTER})


def digest(config: Config, last: int) -> str:
    """One for all seeds of a configuration and length."""
    text = dump_config(config.model_copy(update={"seed": 0, "name": "proof"}))
    return hashlib.sha256(f"{last}\n{text}".encode()).hexdigest()[:12]


def is_over(folder: Path) -> bool:
    """Whether there is a run that is done, or failed in its numbers, so that going on would come to the same."""
    if not RunDirectory.is_run(folder):
        return False
    run = RunDirectory.open(folder)
    status = run.status()
    if status == "failed":
        history = open_case(run).history
        return history.ended is not None and would_repeat([*history.decisions, history.ended])
    return status in ("finished", "stopped")


def _train(config: Config, folder: Path, last: int, place: str, told: Callable[[str, float], None]) -> bool:
    """Train to the end, or to `last`, going on with what is there; False when it was interrupted."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    total = config.training.steps
    restores = config.stopping.name == "patience" and config.stopping.restore_best
    trainer = Trainer(
        config,
        run=folder,
        monitors=[_Following(place, last, told)],
        controllers=[StopAt(last, restore_best=restores)] if last < total else [],
        report=lambda what, fraction: told(f"{place}: {what}", fraction),
    )
    try:
        return trainer.fit().status != "interrupted"
    except NumericsError:
        return True


def outcome_of(folder: Path, side: Side, config: Config) -> Outcome:
    """What a run of `config` left in its record."""
    run = RunDirectory.open(folder)
    case = open_case(run)
    ended = case.history.ended
    assert ended is not None
    step = ended.step if ended.restored_step is None else ended.restored_step
    loss, name = None, f"validation/loss@{config.selected}" if config.selected else "validation/loss"
    if (series := case.history.get(name)) is not None:
        steps, values = series.finite()
        loss = next((float(value) for at, value in zip(steps, values, strict=True) if at == step), None)
    found = [
        code
        for finding in diagnose(case, run.name).findings
        if finding.severity != "info"
        for code in (finding.code, *finding.consequences)
    ]
    return Outcome(side, config.seed, str(folder), ended.status, ended.step, loss, tuple(found))


@final
class StopAt:
    """Ends a run at the first evaluation from a step on."""

    name = "proof"

    def __init__(self, step: int, *, restore_best: bool) -> None:
        self.step, self.restore_best = step, restore_best

    def decide(self, event: Event) -> Stop | None:
        """The end, when it is time."""
        if isinstance(event, EvaluationEnded) and event.step >= self.step:
            return Stop(f"a proof looks at {self.step:,} steps", restore_best=self.restore_best)
        return None

    def state(self) -> dict[str, Any]:
        """Nothing is remembered."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Nothing is remembered."""


@final
class _Following:
    """Tells how far a run of a proof is."""

    def __init__(self, place: str, last: int, told: Callable[[str, float], None]) -> None:
        self._place, self._last, self._told = place, last, told

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded):
            self._told(self._place, min(1.0, event.last_step / self._last))
