"""The monitors that a configuration asks for, open for as long as an attempt lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from trimtab.config import Config
from trimtab.events import Monitor
from trimtab.monitor.sinks.build import open_sinks
from trimtab.runs import RunDirectory


@contextmanager
def standing(config: Config, run: RunDirectory) -> Iterator[tuple[Monitor, ...]]:
    """Opens what `config` names for `run`, and closes it in the opposite order, after the report of the run."""
    with ExitStack() as stack:
        yield (*stack.enter_context(open_sinks(config, run)),)
