"""Runs with known faults as a table of features: what `fit_scorecard.py` fits.

A run gives several rows: its log as it is, and as others might have kept it, with fewer rows or columns.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.diagnose import findings_of
from trimtab.doctor.differential.card import SILENT, Heard
from trimtab.doctor.differential.features import FEATURES, features_of
from trimtab.doctor.differential.resemble import heard_in
from trimtab.doctor.load import open_case, open_foreign_case
from trimtab.errors import TrimtabError
from trimtab.runs.directory import RunDirectory
from trimtab.runs.history import History, Series

Floats = NDArray[np.float64]

HEALTHY: Final = "healthy"
USUAL: Final = (
    "train/loss",
    "validation/loss",
    "validation/accuracy",
    "learning_rate",
    "grad_norm",
    "step_seconds",
    "data_seconds",
    "memory_bytes",
)
"""What others log."""
VARIANTS: Final = ("thinned", "fewer columns")


@final
@dataclass(frozen=True)
class Table:
    """One row for each variant of each run [N]."""

    features: tuple[str, ...]
    values_NF: Floats
    """NaN: not told."""
    codes: tuple[str, ...]
    truth_N: NDArray[np.int64]
    """A place in `codes`; -1 for a sound run."""
    heard_NCM: Floats
    """What the rules said of each code, as `Heard.told` has it; 0: nothing."""
    loud_N: NDArray[np.bool_]
    """Whether a rule gave a warning or an error."""
    first_N: NDArray[np.bool_]
    """Whether the rules named the fault first."""
    run_N: NDArray[np.int64]
    generator_N: NDArray[np.str_]
    whole_N: NDArray[np.bool_]
    """The log as it is."""

    def __len__(self) -> int:
        """Rows."""
        return len(self.truth_N)

    def where(self, kept: NDArray[np.bool_]) -> Table:
        """Some of its rows."""
        rows = {name: value[kept] for name, value in vars(self).items() if name.endswith("_N")}
        return Table(self.features, self.values_NF[kept], self.codes, heard_NCM=self.heard_NCM[kept], **rows)

    def save(self, path: Path) -> None:
        """To a file."""
        told = {name: np.array(value) for name, value in vars(self).items()}
        told["values_NF"] = self.values_NF.astype(np.float32)
        told["heard_NCM"] = self.heard_NCM.astype(np.float16)
        np.savez_compressed(path, allow_pickle=False, **told)

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a file."""
        with np.load(path, allow_pickle=False) as told:
            found = {name: told[name] for name in told.files}
        for name in ("features", "codes"):
            found[name] = tuple(str(one) for one in found[name])
        for name in ("values_NF", "heard_NCM"):
            found[name] = found[name].astype(np.float64)
        return cls(**found)

    def digest(self) -> str:
        """SHA-256 of what is fitted."""
        whole = hashlib.sha256()
        for value in (self.values_NF, self.truth_N, self.heard_NCM):
            whole.update(np.ascontiguousarray(np.asarray(value, np.float32)).tobytes())
        return whole.hexdigest()


def collect(folders: Mapping[str, Path], variants: Sequence[str] = VARIANTS) -> Table:
    """All runs of these folders, each with a truth.json beside it; generators by name, our own runs as `<name>-own`."""
    run = -1
    rows: list[tuple[Mapping[str, float], str, Mapping[str, Heard], bool, bool, int, str, bool]] = []
    for generator, folder in folders.items():
        for path in sorted(folder.glob("*/truth.json")):
            truth = json.loads(path.read_text(encoding="utf-8"))
            try:
                case = _case_of(path.parent, truth)
            except TrimtabError as problem:
                print(f"{path.parent.name}: {problem}")
                continue
            seed = zlib.crc32(f"{generator}/{path.parent.name}".encode())
            source = f"{generator}-own" if truth.get("logger") == "trimtab" else generator
            run += 1
            for variant, seen in [("", case), *varied(case, variants, np.random.default_rng(seed))]:
                findings = findings_of(seen)[0]
                loud = [finding.code for finding in findings if finding.severity != "info"]
                first = bool(loud) and findings[0].code == truth["code"]
                told = (features_of(seen), truth["code"], heard_in(findings), bool(loud), first, run, source)
                rows.append((*told, not variant))
    return _table(rows)


def _table(rows: Sequence[tuple[Any, ...]]) -> Table:
    codes = tuple(sorted({row[1] for row in rows} - {HEALTHY}))
    features = tuple(FEATURES)
    return Table(
        features,
        np.array([[row[0].get(name, np.nan) for name in features] for row in rows], np.float32).astype(np.float64),
        codes,
        np.array([codes.index(row[1]) if row[1] != HEALTHY else -1 for row in rows]),
        np.array([[row[2].get(code, SILENT).told() for code in codes] for row in rows], np.float16).astype(np.float64),
        np.array([row[3] for row in rows]),
        np.array([row[4] for row in rows]),
        np.array([row[5] for row in rows]),
        np.array([row[6] for row in rows]),
        np.array([row[7] for row in rows]),
    )


def _case_of(place: Path, truth: Mapping[str, Any]) -> Case:
    """As another trainer's log: of a run of ours the curves alone. Raises: TrimtabError when it cannot be read."""
    if "path" in truth:
        return open_foreign_case(place / str(truth["path"]))[0]
    log = next(one for one in sorted(place.iterdir()) if one.name == "run" or one.stem == "run")
    if truth["logger"] != "trimtab":
        return open_foreign_case(log)[0]
    whole, history = open_case(RunDirectory.open(log)).history, History()
    for name in USUAL:
        if (series := whole.get(name)) is not None:
            history.add(name, *series.raw())
    return Case(history, target="text")


def varied(case: Case, variants: Sequence[str], random: np.random.Generator) -> Iterator[tuple[str, Case]]:
    """The same run as others might have logged it."""
    for variant in variants:
        series = dict(case.history.series)
        if "columns" in variant:
            series = {name: one for name, one in series.items() if name == "train/loss" or random.random() < 0.5}
        if "thinned" in variant:
            series |= _thinned(series, int(random.choice([2, 3, 5])), mean=random.random() < 0.4)
        history = History()
        history.total_steps = case.history.total_steps
        for name, one in series.items():
            history.add(name, *one.raw())
        yield variant, Case(history, case.config, case.facts, case.target)


def _thinned(series: Mapping[str, Series], every: int, *, mean: bool) -> Iterator[tuple[str, Series]]:
    for name, one in series.items():
        if name.startswith(("validation/", "user/")) or one.num_samples < 12 * every:
            continue
        if not mean:
            yield name, _every(one, every)
            continue
        steps, values = one.raw()
        whole = len(steps) // every * every
        joined = Series()
        joined.append(steps[:whole].reshape(-1, every)[:, -1], values[:whole].reshape(-1, every).mean(axis=1))
        yield name, joined


def _every(series: Series, every: int) -> Series:
    """Each so manyeth sample, the last among them."""
    steps, values = series.raw()
    kept = Series()
    kept.append(steps[(len(steps) - 1) % every :: every], values[(len(steps) - 1) % every :: every])
    return kept
