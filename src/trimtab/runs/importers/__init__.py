"""Logs of other trainers, read as a history: what they measured under our names, and what was lost on the way."""

from trimtab.runs.importers.imported import Imported
from trimtab.runs.importers.read import read_foreign

__all__ = ["Imported", "read_foreign"]
