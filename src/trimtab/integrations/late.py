"""Values as they are handed to a log call: what lies on a device is copied there and then, and waited for later."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, final

import numpy as np

_NUMBERS = (float, int, bool)


@final
@dataclass(slots=True)
class Late:
    """A tensor on its way to the host: `resolve` waits for it, in a thread of ours."""

    host: Any
    arrived: Any
    """A CUDA event, or None where the copy waits by itself."""

    def resolve(self) -> Any:
        """The array [...], float64 for half precisions, too."""
        if self.arrived is not None:
            self.arrived.synchronize()
        host = self.host.cpu()
        return host.double().numpy() if host.is_floating_point() else host.numpy()


@final
@dataclass(slots=True)
class Vector:
    """Several values by name, which come over together."""

    names: tuple[str, ...]
    values: Late | float

    def resolve(self) -> dict[str, float]:
        """Name to value; nothing where they cannot be read."""
        found = resolved(self.values)
        return {} if found is None else dict(zip(self.names, np.ravel(found).tolist(), strict=True))


def is_tensor(value: Any) -> bool:
    """Whether `value` is a tensor of torch, which is not loaded for that."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def snapshot(value: Any) -> Any:
    """`value` as it is now, whatever becomes of it later: a number, an array, a `Late`; others as they are.

    It never waits for a device, and raises nothing: a tensor that cannot be read (of another kind of storage, or on a
    device that has failed) is None.
    """
    if type(value) in _NUMBERS:
        return value
    if isinstance(value, np.ndarray):
        return value.copy() if value.size != 1 else value.item()
    if isinstance(value, np.generic):
        return value.item()
    if not is_tensor(value):
        return value
    try:
        return _of_tensor(value)
    except Exception:  # the loop that logs must not end for it
        return None


def _of_tensor(tensor: Any) -> Any:
    torch = sys.modules["torch"]
    with torch.no_grad():
        tensor = tensor.detach()
        match tensor.device.type:
            case "cpu":
                return tensor.item() if tensor.numel() == 1 else Late(tensor.clone(), None)
            case "cuda":
                host = tensor.to("cpu", non_blocking=True)  # into pinned memory
                arrived = torch.cuda.Event()
                arrived.record(torch.cuda.current_stream(tensor.device))
                return Late(host, arrived)
            case _:
                return Late(tensor.clone(), None)


def resolved(value: Any) -> Any:
    """What `snapshot` gave, with everything on the host: a number where there is one value; None: it has none."""
    if not isinstance(value, Late):
        return value
    try:
        array = value.resolve()
    except Exception:  # without content, or of a device that has failed
        return None
    return array.item() if array.size == 1 else array
