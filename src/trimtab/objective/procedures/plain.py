"""One pass forward, one back."""

from __future__ import annotations

from typing import final

from trimtab.signals import Batch, Pass, Passes


@final
class Plain:
    """The gradient of the objective."""

    term_names: tuple[str, ...] = ()
    num_backwards = 1

    def __call__(self, passes: Passes, batch: Batch) -> Pass:
        """Forward and backward."""
        found = passes.forward(batch)
        passes.backward(found.total)
        return found
