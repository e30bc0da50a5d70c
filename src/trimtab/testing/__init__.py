"""Conformance tests for third-party parts: each function raises AssertionError saying which promise is broken."""

from trimtab.testing.controllers import check_controller
from trimtab.testing.events import sample_events
from trimtab.testing.monitors import check_monitor
from trimtab.testing.optimizers import check_optimizer
from trimtab.testing.schedules import check_schedule

__all__ = ["check_controller", "check_monitor", "check_optimizer", "check_schedule", "sample_events"]
