"""Why it happened: rules that read a configuration before a run, and a run's record during and after it.

The names below are loaded when they are first used, so that the lint alone starts without numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.doctor.case import Case as Case
    from trimtab.doctor.codes import CODES as CODES
    from trimtab.doctor.codes import Code as Code
    from trimtab.doctor.finding import Diagnosis as Diagnosis
    from trimtab.doctor.finding import Evidence as Evidence
    from trimtab.doctor.finding import Finding as Finding
    from trimtab.doctor.finding import Remedy as Remedy
    from trimtab.doctor.finding import Withheld as Withheld
    from trimtab.doctor.finding import finding_to_json as finding_to_json
    from trimtab.doctor.load import open_case as open_case
    from trimtab.doctor.load import open_foreign_case as open_foreign_case

_WHERE = {
    "CODES": "codes",
    "Case": "case",
    "Code": "codes",
    "Diagnosis": "finding",
    "Evidence": "finding",
    "Finding": "finding",
    "Remedy": "finding",
    "Withheld": "finding",
    "finding_to_json": "finding",
    "open_case": "load",
    "open_foreign_case": "load",
}

__all__ = [
    "CODES",
    "Case",
    "Code",
    "Diagnosis",
    "Evidence",
    "Finding",
    "Remedy",
    "Withheld",
    "finding_to_json",
    "open_case",
    "open_foreign_case",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'trimtab.doctor' has no attribute {name!r}")
    return getattr(importlib.import_module(f"trimtab.doctor.{_WHERE[name]}"), name)
