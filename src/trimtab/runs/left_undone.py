"""What a run that is over still lacks, where its process died between its last step and the end of its work."""

from __future__ import annotations

from trimtab.events import RunEnded
from trimtab.runs.directory import RunDirectory
from trimtab.runs.files import read_json
from trimtab.runs.record import decode_line, event_from_json, lines_backwards


def left_undone(run: RunDirectory, *, quantizes: bool, calibrates: bool = False) -> list[str]:
    """`quantized`, `calibration` and `report`, as far as they should be there and are not; nothing of a run that is not
    over.

    A report older than the record is of an earlier attempt. Soups and runs of other trainers have no such ending.
    """
    if run.status() not in ("finished", "stopped") or run.trainer != "trimtab":
        return []
    if not run.facts.exists() or "soup" in read_json(run.facts):
        return []
    undone = ["quantized"] if quantizes and not run.quantized.exists() else []
    undone += ["calibration"] if calibrates and not run.calibration.exists() else []
    if undone:
        return [*undone, "report"]
    is_there = run.report.exists() and run.report.stat().st_mtime_ns >= run.record.stat().st_mtime_ns
    return [] if is_there else ["report"]


def ending_of(run: RunDirectory) -> RunEnded | None:
    """The newest end in the record."""
    with open(run.record, "rb") as file:
        for raw, _ in lines_backwards(file):
            line = decode_line(raw) or {}
            if line.get("event") == "RunEnded" and isinstance(event := event_from_json(line), RunEnded):
                return event
    return None
