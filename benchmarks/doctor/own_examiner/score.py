"""What the doctor says of each run, against what was done to it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

GRAVE = ("warning", "error")


def interval(hits: int, count: int) -> str:
    """Hits of a count with the Wilson interval of 95 %."""
    if not count:
        return "0 of 0"
    z, p = 1.96, hits / count
    middle, spread = p + z * z / (2 * count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    low, high = ((middle + sign * spread) / (1 + z * z / count) for sign in (-1, 1))
    return f"{hits} of {count}, {100 * p:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def asked(run: Path) -> list[dict[str, Any]]:
    """The doctor's findings, kept beside the run so that it is asked once."""
    kept = run.parent / "doctor.json"
    if not kept.exists():
        command = [sys.executable, "-m", "trimtab.cli", "doctor", str(run), "--json"]
        kept.write_text(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    told = json.loads(kept.read_text())
    runs = told if isinstance(told, list) else [told]
    return list(runs[0].get("findings", ()))


def score(folder: Path, *, wrong: bool) -> None:
    """Print the totals, and with `wrong` a line for each run that is not as it should be."""
    first = strict = among = faulty = alarms = sound = timed = near = dropped = 0
    for file in sorted(folder.glob("*/truth.json")):
        truth = json.loads(file.read_text())
        if not truth["kept"]:
            dropped += 1
            continue
        findings = asked(file.parent / "run")
        grave = [one for one in findings if one["severity"] in GRAVE]
        said = [f"{one['code']}({one['severity']})" for one in findings]
        leading = findings[0]["code"] if findings and findings[0]["severity"] in GRAVE else None
        if truth["code"] is None:
            sound += 1
            alarms += bool(grave)
            is_right = not grave
        else:
            right = {truth["code"], *truth["also"]}
            faulty += 1
            is_right = leading in right
            first += is_right
            strict += leading == truth["code"]
            among += any(one["code"] in right for one in grave[:3])
            if is_right and truth.get("onset") is not None:
                timed += 1
                near += abs((findings[0]["onset_step"] or math.inf) - truth["onset"]) <= max(20, 0.05 * truth["steps"])
        if not is_right or not wrong:
            mark = "  " if is_right else "✗ "
            print(f"{mark}{file.parent.name} [{truth['kind']}] {truth['code'] or 'sound'}: {', '.join(said) or '-'}")
            if not is_right:
                print(f"      {truth['said']}")
    print(f"first finding, or another name of the same: {interval(first, faulty)}")
    print(f"first finding is the very code:             {interval(strict, faulty)}")
    print(f"among the first three:                      {interval(among, faulty)}")
    print(f"false alarms on sound runs:                 {interval(alarms, sound)}")
    print(f"onset within 20 steps, or 5 % of the run:   {interval(near, timed)}")
    print(f"dropped, as they did not show what was meant: {dropped}")
