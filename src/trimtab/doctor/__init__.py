"""Why it happened: rules that read a configuration before a run, and a run's record during and after it."""

from trimtab.doctor.case import Case
from trimtab.doctor.codes import CODES, Code
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.finding import Diagnosis, Evidence, Finding, Remedy, Withheld, finding_to_json
from trimtab.doctor.load import open_case

__all__ = [
    "CODES",
    "Case",
    "Code",
    "Diagnosis",
    "Evidence",
    "Finding",
    "Remedy",
    "Withheld",
    "diagnose",
    "finding_to_json",
    "open_case",
]
