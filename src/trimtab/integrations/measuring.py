"""What is measured of a loop: norms of layers, and where the time of a step goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from trimtab.integrations.late import Late, Vector, snapshot


def layer_norms(model: Any) -> dict[str, Any] | None:
    """The 2-norms of the parameters that are trained and of their gradients, as values on their way; None without any.

    Sharded and quantized parameters, whose norm would need the other ranks or another format, are left out.
    """
    torch = sys.modules["torch"]  # the model is one of torch's; a logger alone does not load it
    plain = (torch.nn.Parameter, torch.Tensor)
    named = [(name, one) for name, one in model.named_parameters() if one.requires_grad and type(one) in plain]
    if not named:
        return None
    device = named[0][1].device
    weights = norms([one for _, one in named], device)
    names = tuple(f"layer/{name}/weight_norm" for name, _ in named)
    found: dict[str, Any] = {"layer//weight_norm": _vector(names, weights)}
    if any(one.grad is not None for _, one in named):
        gradients = norms([one.grad for _, one in named], device)
        names = *(f"layer/{name}/grad_norm" for name, _ in named), "grad_norm"
        found["layer//grad_norm"] = _vector(names, torch.cat([gradients, gradients.norm()[None]]))
    return found


def norms(tensors: Sequence[Any], device: Any) -> Any:
    """The 2-norm of each tensor [P], on the device; 0 where there is none."""
    torch = sys.modules["torch"]
    with torch.no_grad():
        there = [tensor.detach() for tensor in tensors if tensor is not None]
        zero = torch.zeros((), device=device)
        each = iter(torch._foreach_norm(there) if there else [])
        return torch.stack([next(each).to(device, torch.float32) if one is not None else zero for one in tensors])


def _vector(names: tuple[str, ...], values: Any) -> Vector | None:
    now = snapshot(values)
    return Vector(names, now) if isinstance(now, Late | float) else None


@final
class Stopwatch:
    """Splits the time of a loop into waiting for data and the rest."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._waited = 0.0
        self._device_is_behind: Any = None

    def data_came(self) -> None:
        """A batch is there."""
        behind, self._device_is_behind = self._device_is_behind, None
        # While the device still works on the step before, nothing waits for the data.
        self._waited = time.perf_counter() - self._begun if behind is None or behind.query() else 0.0

    def step_ended(self) -> dict[str, float]:
        """The body of the loop is over: seconds of it and of the wait before it."""
        now = time.perf_counter()
        seconds = {"step_seconds": now - self._begun, "data_seconds": self._waited}
        self._begun = now
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
            self._device_is_behind = torch.cuda.Event()
            self._device_is_behind.record()
        return seconds


def at_fetches(profiler: Any, act: Callable[[], None]) -> Callable[[], None]:
    """Call `act` each time that Lightning begins to fetch a batch, of which it tells its profiler alone: what it does
    between a step and that, logging for example, is no waiting for data. Gives what ends it."""
    started = profiler.start = _Started(vars(profiler).get("start"), profiler.start, act)

    def end() -> None:
        started.is_over = True
        # What was put there since is left, and takes this one with it when it ends.
        while isinstance(top := vars(profiler).get("start"), _Started) and top.is_over:
            if top.before is None:
                del profiler.start
            else:
                profiler.start = top.before

    return end


@dataclass
class _Started:
    """What stands for a profiler's `start`, and what stood there before."""

    before: Any
    start: Callable[[str], None]
    act: Callable[[], None]
    is_over: bool = False

    def __call__(self, action_name: str) -> None:
        """`start`; as a fetch begins, `act` before it."""
        if not self.is_over and action_name.endswith("train_dataloader_next"):
            self.act()
        self.start(action_name)
