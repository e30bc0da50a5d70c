"""What a monitor promises."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np

from trimtab.events import Event, Monitor, StepsEnded
from trimtab.testing.events import sample_events


def check_monitor(make: Callable[[], Monitor]) -> None:
    """It takes every event without raising, in any run, and changes none of them."""
    for events in (sample_events(), sample_events(1), list(reversed(sample_events(2)))):
        monitor = make()
        for event in events:
            before = copy.deepcopy(event)
            try:
                monitor.observe(event)
            except Exception as error:
                raise AssertionError(f"observe raised {error!r} at {event!r}") from error
            assert _same(before, event), f"observe changed {before!r} into {event!r}"


def _same(a: Event, b: Event) -> bool:
    if isinstance(a, StepsEnded) and isinstance(b, StepsEnded):
        arrays = all(np.array_equal(a.per_step[name], b.per_step[name], equal_nan=True) for name in a.per_step)
        return arrays and a.per_step.keys() == b.per_step.keys() and a.values == b.values and a.layers == b.layers
    return repr(a) == repr(b)
