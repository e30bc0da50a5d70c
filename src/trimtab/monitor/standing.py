"""The monitors that a configuration asks for, open for as long as an attempt lasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from trimtab.config import Config
from trimtab.events import Monitor
from trimtab.monitor.sinks.build import open_sinks
from trimtab.runs import RunDirectory


@contextmanager
def standing(config: Config, run: RunDirectory, others: Sequence[Monitor] = ()) -> Iterator[tuple[Monitor, ...]]:
    """Opens what `config` names for `run`, and closes it in the opposite order, after the report of the run.

    `others` are the monitors beside these, such as a console; they come first, so that they know an event before what
    an alert says of it.
    """
    monitors: list[Monitor] = []
    with ExitStack() as opened:
        monitors += opened.enter_context(open_sinks(config, run))
        if config.alerts.rules:
            from trimtab.monitor.alerts import open_alerts  # with all that speaks to servers

            monitors += opened.enter_context(open_alerts(config, run, (*others, *monitors)))
        yield (*others, *monitors)
