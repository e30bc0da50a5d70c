"""The files that a run ends with: diagnosis.json and report.html."""

from __future__ import annotations

from trimtab.doctor import Diagnosis, open_case
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.order import with_order
from trimtab.report.gather import gather
from trimtab.report.page import render_html
from trimtab.runs.directory import RunDirectory


def write_report(run: RunDirectory) -> Diagnosis:
    """Judge the run and write both files, each whole or not at all; the same record gives the same bytes.

    Raises: UsageError when a newer trimtab wrote the run; StorageError when it cannot be read or written.
    """
    case = open_case(run)
    diagnosis = with_order(case, diagnose(case, run.name))
    report = gather(run, case, diagnosis)
    run.write_json(run.diagnosis, diagnosis.to_json())
    run.write_text(run.report, render_html(report))
    return diagnosis
