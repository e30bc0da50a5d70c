"""Keeps what fails in a callback away from the training that it looks at."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import ParamSpec, final

_Arguments = ParamSpec("_Arguments")


@final
class Guard:
    """Calls functions until one raises: that is one warning, and from then on nothing is called."""

    def __init__(self) -> None:
        self.silent = False
        """Whether nothing is called any more, because something failed or this is not the first rank."""
        self.failure = ""
        """What failed, in a line."""
        self.on_failure: Callable[[], None] | None = None
        """Called once after the warning, to let go of what is held."""

    def call(
        self, function: Callable[_Arguments, object], *arguments: _Arguments.args, **named: _Arguments.kwargs
    ) -> None:
        """`function(*arguments)`, unless something failed before. Only KeyboardInterrupt and its like pass."""
        if self.silent:
            return
        try:
            function(*arguments, **named)
        except Exception as error:
            self.silent = True
            self.failure = what = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            try:
                warnings.warn(f"trimtab no longer observes this run: {what}", RuntimeWarning, stacklevel=3)
                if self.on_failure is not None:
                    self.on_failure()
            except Exception:  # warnings may have been made errors
                return
