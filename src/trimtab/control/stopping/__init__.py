"""When to end a run."""

from trimtab.control.stopping.patience import Patience
from trimtab.control.stopping.skipped import SkippedSteps

__all__ = ["Patience", "SkippedSteps"]
