"""A run as JSON lines, for programs: `--log-format json`.

A line is an object: "event" names its kind, "time" is in Unix seconds, "step" says where it belongs, and the event's
own fields follow, as in the record (reference/events.md). Of a window the values of layers are left out. Numbers that
are not finite are the strings "nan", "inf" and "-inf". Nothing else is written to that stream.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TextIO, final

from trimtab.events import Event, StepsEnded
from trimtab.runs import event_to_json


@final
class JsonLines:
    """A monitor that writes each event as a line of ASCII JSON; a stream that breaks is no error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._broken = False

    def observe(self, event: Event) -> None:
        """Write `event`."""
        if self._broken:
            return
        if isinstance(event, StepsEnded):
            event = replace(event, layers={})
        content = event_to_json(event)
        line = {"event": content["event"], "time": round(time.time(), 3)} | content
        try:
            self._stream.write(json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n")
            self._stream.flush()
        except OSError:
            self._broken = True
        except ValueError:
            if not self._stream.closed:
                raise
            self._broken = True
