"""alerts.jsonl: which rules of `alerts` were met in a run, as far as they go to `file`."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_TAIL_BYTES: Final = 65_536


def read_rule_alerts(path: Path) -> list[dict[str, Any]]:
    """The newest alerts in a file that may be long or torn, or may not be there: `step`, `rule` and `text` of each."""
    found: list[dict[str, Any]] = []
    with suppress(OSError), open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
        for raw in lines if size <= _TAIL_BYTES else lines[1:]:
            with suppress(ValueError, KeyError, TypeError):
                line = json.loads(raw)
                text = str(line["text"]).partition(": ")[2]  # behind the run's name and the step
                found.append({"step": int(line["step"]), "rule": str(line["rule"]), "text": text})
    return found
