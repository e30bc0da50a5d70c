"""Which fault a log most resembles, where no rule is sure."""

from __future__ import annotations

from trimtab.doctor.differential.resemble import resembling

__all__ = ["resembling"]
