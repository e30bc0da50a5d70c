"""What else a log resembles, besides what the rules found."""

from __future__ import annotations

from trimtab.doctor.differential.resemble import guesses_of

__all__ = ["guesses_of"]
