"""The output of an embedding, changed for one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from trimtab.errors import ConfigError


@contextmanager
def changing(embedding: nn.Module, change: Callable[[Tensor, int], Tensor]) -> Iterator[None]:
    """Within it each output of `embedding`, numbered from 0, is what `change` makes of it; afterwards no trace is left.

    Raises: ConfigError when it was not asked for anything.
    """
    calls = 0

    def hook(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return change(output, calls - 1)

    handle = embedding.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if calls == 0:
        raise ConfigError(
            f"the model computed without its input embeddings ({type(embedding).__name__}), which embedding and "
            "procedure change",
            hint="leave out what changes embeddings: embedding.*, and procedure fgm, pgd and free_lb",
        )
