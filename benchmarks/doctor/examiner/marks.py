"""How the doctor fares in the examination."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from bank.score import Judged, Said, Share, scores


def judge(folder: Path) -> list[Judged]:
    """What the doctor says of every run."""
    from trimtab.doctor.diagnose import diagnose
    from trimtab.doctor.load import open_foreign_case
    from trimtab.errors import TrimtabError

    found = []
    for path in sorted(folder.glob("*/truth.json")):
        truth = json.loads(path.read_text())
        said: tuple[Said, ...] = ()
        error = ""
        try:
            case, _ = open_foreign_case(path.parent / truth["path"])
            findings = diagnose(case, path.parent.name).named
            said = tuple(Said(f.code, f.severity, f.confidence, f.onset_step, tuple(f.consequences)) for f in findings)
        except TrimtabError as problem:
            error = str(problem)
        told = (path.parent.name, truth["format"], truth["code"], truth["onset"], truth["steps"])
        found.append(Judged(*told, said, error))
    return found


def score(folder: Path, file: Path | None, wrong: bool) -> None:
    """Prints the counts, and, with `wrong`, the runs that were judged wrongly."""
    judged = judge(folder)
    found = scores(judged)
    low = f"{found.calibration_error:.3f}" if found.calibration_error is not None else "–"
    print(
        f"{len(judged)} runs\nnamed first            {found.first}\namong the first three  {found.among_three}\n"
        f"anywhere               {found.found}\nfalse alarms           {found.false_alarms}\n"
        f"onset within 5 %       {found.onset_within}\ncalibration error      {low}\n"
        f"unread                 {found.unread}"
    )
    by: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        by[one.logger].append(one)
    formats = {}
    for name, many in sorted(by.items()):
        faulty, sound = [o for o in many if o.is_faulty], [o for o in many if not o.is_faulty]
        formats[name] = [
            Share(sum(o.is_first for o in faulty), len(faulty)),
            Share(sum(bool(o.loud) for o in sound), len(sound)),
        ]
        print(f"  {name:14} first {formats[name][0]}   false alarms {formats[name][1]}")
    if wrong:
        for one in judged:
            if not one.is_right:
                told = ", ".join(f"{s.code} ({s.severity}, {s.confidence:.2f})" for s in one.said)
                print(f"{one.name}: {told or one.error or 'nothing'}")
    if file:
        figures = {
            "runs": len(judged),
            **found.to_json(),
            "formats": {k: [s.to_json() for s in v] for k, v in formats.items()},
        }
        file.write_text(json.dumps(figures, indent=1))
