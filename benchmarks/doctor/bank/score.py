"""How the doctor fares on the runs of a folder: figures with their number and a 95 % interval."""

from __future__ import annotations

import fnmatch
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from bank.scenario import HEALTHY

if TYPE_CHECKING:
    from trimtab.doctor import Case

Z: Final = 1.959963984540054
"""Of the normal distribution, for 95 %."""
BINS: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of confidence."""


@final
@dataclass(frozen=True, slots=True)
class Said:
    """One finding."""

    code: str
    severity: str
    confidence: float
    onset: int
    consequences: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Judged:
    """A run, and what was said of it."""

    name: str
    logger: str
    code: str
    onset: int | None
    steps: int
    said: tuple[Said, ...]
    error: str = ""
    """Where nothing could be said, as the log could not be read."""
    cured: bool | None = None
    """Whether what the doctor would change made it as good as its healthy twin, where `cure` has tried that."""

    @property
    def is_faulty(self) -> bool:
        """Whether something was planted."""
        return self.code != HEALTHY

    @property
    def loud(self) -> tuple[Said, ...]:
        """Warnings and worse."""
        return tuple(one for one in self.said if one.severity != "info")

    @property
    def is_first(self) -> bool:
        """Whether the planted fault is the first finding, and a warning or worse."""
        return bool(self.said) and self.said[0].code == self.code and self.said[0].severity != "info"

    @property
    def is_among_three(self) -> bool:
        """Whether it is one of the first three findings."""
        return self.code in [one.code for one in self.said[:3]]

    @property
    def is_found(self) -> bool:
        """Whether it is anywhere, as a consequence or a remark, too."""
        return any(self.code in (one.code, *one.consequences) for one in self.said)

    @property
    def is_right(self) -> bool:
        """First of a faulty run, nothing loud of a sound one."""
        return self.is_first if self.is_faulty else not self.loud

    @property
    def onset_error(self) -> float | None:
        """How far off the onset is, as a part of the run, where the fault was named first."""
        if not self.is_faulty or not self.is_first or self.onset is None:
            return None
        return abs(self.said[0].onset - self.onset) / max(1, self.steps)


@final
@dataclass(frozen=True, slots=True)
class Share:
    """A part of a number, with the 95 % interval of Wilson (1927)."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """The part; None of nothing."""
        return self.count / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        return wilson(self.count, self.of)

    def __str__(self) -> str:
        """As a reader wants it: `12 of 20, 60 % (39–78)`."""
        if not self.of:
            return "–"
        low, high = self.interval
        return f"{self.count} of {self.of}: {100 * self.count / self.of:.0f} % ({100 * low:.0f}–{100 * high:.0f})"

    def to_json(self) -> dict[str, Any]:
        """Count, number, value, interval."""
        return {"count": self.count, "n": self.of, "value": self.value, "interval": self.interval}


def wilson(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share, which is within [0, 1] and of use for small numbers, too. (0, 1) of nothing.

    Source: Wilson 1927, Journal of the American Statistical Association 22.
    """
    if of == 0:
        return 0.0, 1.0
    share, square = count / of, Z * Z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = Z * math.sqrt(share * (1 - share) / of + square / (4 * of * of)) / (1 + square / of)
    return max(0.0, middle - half), min(1.0, middle + half)


@final
@dataclass(frozen=True, slots=True)
class Scores:
    """The figures of some runs."""

    first: Share
    among_three: Share
    found: Share
    false_alarms: Share
    """Healthy runs with a warning or worse."""
    alarms_per_healthy: float | None
    onset_median: float | None
    onset_within: Share
    """Onsets within 5 % of the run, of faults that were named first."""
    calibration: tuple[tuple[float, float, int, float, float], ...]
    """For each bin of confidence that is not empty: its ends, findings, mean confidence, share that is right."""
    calibration_error: float | None
    """The mean distance of confidence and share, weighted by findings."""
    unread: int
    cure: Share
    """Faulty runs that are cured, of those for which the doctor has a change of settings."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        shares = {
            name: getattr(self, name).to_json()
            for name in ("first", "among_three", "found", "false_alarms", "onset_within", "cure")
        }
        return {
            **shares,
            "alarms_per_healthy": self.alarms_per_healthy,
            "onset_median": self.onset_median,
            "calibration": [list(one) for one in self.calibration],
            "calibration_error": self.calibration_error,
            "unread": self.unread,
        }


def scores(judged: Sequence[Judged]) -> Scores:
    """The figures."""
    faulty = [one for one in judged if one.is_faulty]
    sound = [one for one in judged if not one.is_faulty]
    errors = [error for one in faulty if (error := one.onset_error) is not None]
    bins, error = calibration(judged)
    return Scores(
        Share(sum(one.is_first for one in faulty), len(faulty)),
        Share(sum(one.is_among_three for one in faulty), len(faulty)),
        Share(sum(one.is_found for one in faulty), len(faulty)),
        Share(sum(bool(one.loud) for one in sound), len(sound)),
        sum(len(one.loud) for one in sound) / len(sound) if sound else None,
        statistics.median(errors) if errors else None,
        Share(sum(error <= 0.05 for error in errors), len(errors)),
        bins,
        error,
        sum(bool(one.error) for one in judged),
        Share(sum(one.cured is True for one in faulty), sum(one.cured is not None for one in faulty)),
    )


def calibration(judged: Iterable[Judged]) -> tuple[tuple[tuple[float, float, int, float, float], ...], float | None]:
    """Of the leading loud finding of each run, faulty or sound: how sure it is, and how often it is right."""
    pairs = [(one.said[0].confidence, one.is_faulty and one.is_first) for one in judged if one.loud and one.said]
    pairs = [pair for pair in pairs if not math.isnan(pair[0])]  # peers do not say how sure they are
    bins: list[tuple[float, float, int, float, float]] = []
    for low, high in itertools.pairwise(BINS):
        inside = [pair for pair in pairs if low <= pair[0] < high or (high == 1.0 and pair[0] == 1.0)]
        if inside:
            mean = statistics.fmean(confidence for confidence, _ in inside)
            bins.append((low, high, len(inside), mean, sum(right for _, right in inside) / len(inside)))
    total = sum(number for _, _, number, _, _ in bins)
    error = sum(number * abs(mean - share) for _, _, number, mean, share in bins) / total if total else None
    return tuple(bins), error


def case_of(run: Path, logger: str) -> Case:
    """The log as the doctor sees it. Raises: TrimtabError when it cannot be read."""
    from trimtab.doctor.load import open_case, open_foreign_case
    from trimtab.runs import RunDirectory

    return open_case(RunDirectory.open(run)) if logger == "trimtab" else open_foreign_case(run)[0]


def diagnosis_of(run: Path, logger: str) -> tuple[Said, ...]:
    """What the doctor says. Raises: TrimtabError when the log cannot be read."""
    from trimtab.doctor.diagnose import diagnose

    return tuple(
        Said(one.code, one.severity, one.confidence, one.onset_step, one.consequences)
        for one in diagnose(case_of(run, logger), run.name).named
    )


def judge(
    folder: Path,
    part: str,
    only: str | None = None,
    ask: Callable[[Path, str], tuple[Said, ...]] = diagnosis_of,
    watched: bool = False,
) -> list[Judged]:
    """What `ask`, the doctor, says of every run of `part` in `folder`; `watched`: of what trimtab's callback wrote."""
    from trimtab.errors import TrimtabError

    found: list[Judged] = []
    for path in sorted(folder.glob("*/truth.json")):
        truth: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if truth["part"] != part or (only and not fnmatch.fnmatch(truth["name"], only)):
            continue
        said, error = (), ""
        try:
            run = (path.parent / "watched", "trimtab") if watched else (log_of(path.parent), truth["logger"])
            said = ask(*run)
        except TrimtabError as problem:
            error = str(problem)
        cured = cured_of(path.parent) if ask is diagnosis_of else None
        told = (truth[name] for name in ("name", "logger", "code", "onset", "steps"))
        found.append(Judged(*told, said, error, cured))
    return found


def cured_of(place: Path) -> bool | None:
    """What `cure` found out of this run; None where it did not try."""
    path = place / "cure" / "cure.json"
    found: bool | None = json.loads(path.read_text(encoding="utf-8"))["cured"] if path.exists() else None
    return found


def log_of(place: Path) -> Path:
    """The run directory, or the file or folder that another trainer wrote: what stands under `run`."""
    return next(one for one in sorted(place.iterdir()) if one.name == "run" or one.stem == "run")


def table(judged: Sequence[Judged]) -> str:
    """All figures in Markdown: by logger, by code, calibration."""
    rows = [("all", list(judged))]
    loggers = sorted({one.logger for one in judged})
    rows += [(logger, [one for one in judged if one.logger == logger]) for logger in loggers]
    if len(loggers) > 1:
        rows.insert(1, ("all but trimtab", [one for one in judged if one.logger != "trimtab"]))
    names = [name for name, _ in rows]
    figures = [scores(part) for _, part in rows]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]

    def line(title: str, values: Iterable[str]) -> None:
        lines.append(f"| {title} | " + " | ".join(values) + " |")

    line("fault named first, warning or worse", (str(one.first) for one in figures))
    line("among the first three", (str(one.among_three) for one in figures))
    line("anywhere", (str(one.found) for one in figures))
    line("healthy runs with a warning or worse", (str(one.false_alarms) for one in figures))
    line("warnings a healthy run", (_number(one.alarms_per_healthy) for one in figures))
    line("onset within 5 % of the run", (str(one.onset_within) for one in figures))
    line("median error of the onset", (_percent(one.onset_median) for one in figures))
    line("calibration error", (_number(one.calibration_error) for one in figures))
    line("cured by a change of settings", (str(one.cure) for one in figures))
    line("logs that could not be read", (str(one.unread) for one in figures))
    lines += ["", "| planted | runs | first | three | anywhere | said first instead |", "|---|---|---|---|---|---|"]
    for code in sorted({one.code for one in judged if one.is_faulty}):
        of_code = [one for one in judged if one.code == code]
        wrong = [one.said[0].code if one.said else "nothing" for one in of_code if not one.is_first]
        told = ", ".join(f"{name} {wrong.count(name)}" for name in sorted(set(wrong), key=lambda n: -wrong.count(n)))
        counts = [sum(getattr(one, name) for one in of_code) for name in ("is_first", "is_among_three", "is_found")]
        lines.append(f"| {code} | {len(of_code)} | " + " | ".join(map(str, counts)) + f" | {told} |")
    alarms = [said.code for one in judged if not one.is_faulty for said in one.loud]
    if alarms:
        told = ", ".join(f"{name} {alarms.count(name)}" for name in sorted(set(alarms), key=lambda n: -alarms.count(n)))
        lines += ["", f"False alarms: {told}."]
    bins = scores(judged).calibration
    if bins:
        lines += ["", "| confidence | findings | mean | right |", "|---|---|---|---|"]
        lines += [f"| {a:g}–{b:g} | {n} | {mean:.2f} | {right:.2f} |" for a, b, n, mean, right in bins]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def main(folder: Path, part: str, only: str | None, file: Path | None, wrong: bool, watched: bool = False) -> None:
    """Judge, print, and write JSON."""
    begun = time.perf_counter()
    judged = judge(folder, part, only, watched=watched)
    if wrong:
        for one in judged:
            if not one.is_right:
                told = ", ".join(
                    f"{said.code} ({said.severity} {said.confidence:.2f}, {said.onset})" for said in one.said
                )
                print(f"{one.name}: planted at {one.onset} of {one.steps}; said: {one.error or told or 'nothing'}")
        print()
    print(table(judged))
    print(f"\n{len(judged)} runs in {time.perf_counter() - begun:.0f} s")
    if file is not None:
        told = {
            "part": part,
            "scores": scores(judged).to_json(),
            "by_logger": {
                logger: scores([one for one in judged if one.logger == logger]).to_json()
                for logger in sorted({one.logger for one in judged})
            },
            "runs": [asdict(one) for one in judged],
        }
        file.write_text(json.dumps(told, indent=1), encoding="utf-8")
