"""Draws docs/reference/doctor/<code>.svg: what each finding looks like in a real run.

    python docs/symptoms.py [CODE ...]                 draw the pictures of these codes, or of all that have a run
    python docs/symptoms.py --check                    draw nothing; exit 1 naming the pictures that are out of date
    python docs/symptoms.py --keep CODE RUN SENTENCE   keep the log of a run that shows CODE, then draw it
    python docs/symptoms.py --from BANK                the same for every code that no recorded run shows, from a bank

A bank is a folder of runs, each in a folder of its own beside its `truth.json` (benchmarks/doctor/bank).

The runs are those of the tests: `tests/doctor/runs/symptoms.tar.xz` first, which `--keep` fills and which holds no
weights and no trace of the machine, then the others there. Of several the first is taken whose fault is the code, else
the first in which the code's rule finds something. `docs/generate.py` puts the pictures into the pages, with the words
that stand in them. Nothing here needs torch.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trimtab.doctor import Case, Diagnosis, Finding, open_case, open_foreign_case
from trimtab.doctor.diagnose import ask, diagnose
from trimtab.doctor.finding import SEVERITIES
from trimtab.doctor.pages import codes_with_rules
from trimtab.report import words
from trimtab.report.gather import gather
from trimtab.report.picture import render_picture
from trimtab.runs import RunDirectory
from trimtab.runs.record import decode_line, encode_line

FOLDER: Final = Path(__file__).parent / "reference" / "doctor"
RUNS: Final = Path(__file__).parents[1] / "tests" / "doctor" / "runs"
KEPT: Final = RUNS / "symptoms.tar.xz"
TABLE: Final = "runs.json"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run of the tests."""

    path: Path
    truth: str
    sentence: str

    def case(self) -> Case:
        """What the doctor reads of it."""
        return opened(self.path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, check or keep; gives the exit code."""
    parser = argparse.ArgumentParser(description="Draws what findings look like, from recorded runs.")
    parser.add_argument("codes", nargs="*", metavar="CODE", help="which; all if none is given")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a picture is out of date")
    parser.add_argument("--keep", nargs=3, metavar=("CODE", "RUN", "SENTENCE"), help="keep the log of a run")
    parser.add_argument("--from", dest="bank", type=Path, metavar="BANK", help="fill what is missing from a bank")
    given = parser.parse_args(arguments)
    if given.bank:
        keep_from(given.bank)
    if given.keep:
        keep(given.keep[0], Path(given.keep[1]), given.keep[2])
    wanted = given.codes or ([given.keep[0]] if given.keep else codes_with_rules())
    stale = 0
    with tempfile.TemporaryDirectory() as folder:
        runs = list(recorded(Path(folder)))
        for code in wanted:
            path, drawing = FOLDER / f"{code}.svg", drawing_of(code, runs)
            if drawing is None:
                print(f"{code}: no recorded run shows it")
            elif not path.exists() or path.read_text(encoding="utf-8") != drawing:
                stale += 1
                if not given.check:
                    FOLDER.mkdir(parents=True, exist_ok=True)
                    path.write_text(drawing, encoding="utf-8", newline="\n")
                print(f"docs/reference/doctor/{path.name} {'is out of date' if given.check else 'written'}")
    if stale:
        print("next: python docs/symptoms.py" if given.check else "next: python docs/generate.py")
    return 1 if given.check and stale else 0


def drawing_of(code: str, runs: Sequence[Recorded]) -> str | None:
    """The picture of a code; None when no run shows it."""
    planted = [run for run in runs if run.truth == code]
    others = [run for run in runs if run.truth != code]
    for run, least in [*((run, 0) for run in planted), *((run, 1) for run in others), *((run, 0) for run in others)]:
        case = run.case()
        for finding in ask(code, case):
            if isinstance(finding, Finding) and SEVERITIES.index(finding.severity) >= least:
                return _drawn(case, finding, run)
    return None


def _drawn(case: Case, finding: Finding, run: Recorded) -> str:
    diagnosis = Diagnosis(run.path.name, "attention", (finding,), (), "")
    told = (
        f"A real run: {run.sentence.rstrip('.')}. The doctor says of it: {finding.cause.rstrip('.')} "
        f"({words.SEVERITIES[finding.severity]}; {words.confidence(finding.confidence)}; {words.onset(finding)})."
    )
    return render_picture(gather(None, case, diagnosis), finding, told)


def recorded(folder: Path) -> Iterator[Recorded]:
    """The runs of every archive, taken out into `folder`; those kept for pictures first."""
    for archive in sorted(RUNS.glob("*.tar.xz"), key=lambda path: (path != KEPT, path.name)):
        place = folder / archive.name
        with tarfile.open(archive) as packed:
            packed.extractall(place, filter="data")
        table = json.loads((place / TABLE).read_text(encoding="utf-8"))
        for row in table["runs"] if isinstance(table, dict) else table:
            path = place.joinpath(*([str(row["set"])] if "set" in row else []), row["name"])
            if not path.exists():  # a log of one file, whose kind the table does not tell
                path = next(path.parent.glob(f"{path.name}.*"), path)
            yield Recorded(path, row["truth"], row["sentence"])


def opened(path: Path) -> Case:
    """A run, or the log of another trainer."""
    return open_case(RunDirectory(path)) if RunDirectory.is_run(path) else open_foreign_case(path)[0]


def keep(code: str, path: Path, sentence: str) -> None:
    """Put the log of a run that shows `code` into the archive, in place of an earlier one of that code."""
    case = opened(path)
    if not any(isinstance(said, Finding) for said in ask(code, case)):
        raise SystemExit(f"{path}: the rule of {code} finds nothing in it; the doctor says: {diagnose(case).summary}")
    contents: dict[str, bytes] = {}
    if KEPT.exists():
        with tarfile.open(KEPT) as archive:
            for member in archive.getmembers():
                if (stream := archive.extractfile(member)) is not None:
                    contents[member.name] = stream.read()
    rows = json.loads(contents.pop(TABLE, b'{"runs": []}'))["runs"]
    rows = [row for row in rows if row["truth"] != code]
    name = code if path.is_dir() else f"{code}{path.suffix}"
    rows.append({"set": "symptoms", "name": name, "truth": code, "sentence": sentence})
    contents = {file: content for file, content in contents.items() if not file.startswith(f"symptoms/{code}")}
    contents |= {f"symptoms/{name}{file}": content for file, content in _log(path)}
    with tarfile.open(KEPT, "w:xz", preset=9) as archive:
        _add(archive, TABLE, json.dumps({"runs": sorted(rows, key=lambda row: str(row["truth"]))}, indent=1).encode())
        for file in sorted(contents, key=lambda file: (Path(file).suffix, file)):  # what is alike lies together
            _add(archive, file, contents[file])


def keep_from(bank: Path) -> None:
    """Keep a run of a bank for each code that no recorded run shows, one of trimtab's own where there is one."""
    with tempfile.TemporaryDirectory() as folder:
        shown = {run.truth for run in recorded(Path(folder)) if _finding(run.truth, run) is not None}
    for truth in sorted(bank.glob("*/truth.json"), key=lambda path: (not (path.parent / "run").is_dir(), path)):
        planted = json.loads(truth.read_text(encoding="utf-8"))
        path = next((path for path in sorted(truth.parent.glob("run*")) if path.name != "runs"), None)
        code = planted["code"]
        if path is None or code in shown or code not in codes_with_rules():
            continue
        if _finding(code, Recorded(path, code, "")) is not None:
            shown.add(code)
            keep(code, path, planted["sentence"])
            print(f"{code}: {truth.parent.name} is kept")


def _finding(code: str, run: Recorded) -> Finding | None:
    """What the rule of a code says of a run."""
    if code not in codes_with_rules():
        return None
    return next((said for said in ask(code, run.case()) if isinstance(said, Finding)), None)


def _log(path: Path) -> Iterator[tuple[str, bytes]]:
    """What the doctor reads of a run, without traces of the machine that it was made on."""
    if path.is_file():
        yield "", path.read_bytes()
        return
    for file in ("config.yaml", "facts.json"):
        if (path / file).exists():
            yield f"/{file}", _without_places((path / file).read_text(encoding="utf-8")).encode()
    yield "/record.jsonl", b"".join(map(_without_places_in_line, (path / "record.jsonl").open("rb")))
    surroundings: dict[str, Any] = json.loads((path / "environment.json").read_bytes())
    kept = {key: surroundings[key] for key in ("schema", "versions", "seed", "source") if key in surroundings}
    yield "/environment.json", json.dumps(kept).encode()
    for part in sorted((path / "statistics").rglob("*")):
        if part.is_file():
            yield f"/{part.relative_to(path).as_posix()}", part.read_bytes()


def _without_places(text: str) -> str:
    """Of files elsewhere their names alone."""
    return re.sub(r"(?<![\w.:/])/(?:[\w.+-]+/)+([\w.+-]+)", r"\1", text)


def _without_places_in_line(raw: bytes) -> bytes:
    """The same of a line of the record, whose checksum is of what is left."""
    text = raw.decode()
    if _without_places(text) == text:
        return raw
    line = decode_line(raw)
    return raw if line is None else encode_line(json.loads(_without_places(json.dumps(line))))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    sys.exit(main())
