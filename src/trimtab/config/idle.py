"""What a table of options without effect is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.config.run import Config


@dataclass(frozen=True, slots=True)
class Idle:
    """Keys that change nothing in a configuration of which `when` is true, because of the key `switch`."""

    keys: tuple[str, ...]
    switch: str
    when: Callable[[Config], bool]
    reason: str
    remedy: str
