"""Running means of the weights, kept beside those that are trained, to be judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor

from trimtab.optimizer.storage import FlatStorage, Storage

Share = Callable[[Tensor], Tensor]
"""How many averages there were before (0-dim, fp64) -> what the new weights count in the next one."""


def exponential(decay: float, *, warmup: bool = True) -> Share:
    """average <- decay * average + (1 - decay) * weights; the first is the weights themselves.

    With `warmup` the average after n others keeps at most (1 + n) / (10 + n), so that the beginning is soon forgotten.
    Source: Polyak and Juditsky 1992; the warm-up as in TensorFlow's ExponentialMovingAverage (num_updates).
    """

    def share(before: Tensor) -> Tensor:
        kept = torch.full_like(before, decay)
        if warmup:
            kept = torch.minimum(kept, (1.0 + before) / (10.0 + before))
        return torch.where(before > 0, 1.0 - kept, 1.0)

    return share


def equal() -> Share:
    """average <- average + (weights - average) / n: all n count alike.

    Source: Izmailov et al. 2018, arXiv 1803.05407, algorithm 1.
    """

    def share(before: Tensor) -> Tensor:
        return 1.0 / (before + 1.0)

    return share


def _buffers_of(storage: Storage) -> list[Tensor]:
    """One buffer where the weights are one: an update is then a single pass."""
    return [storage.flat_weight] if isinstance(storage, FlatStorage) else list(storage.weights.values())


def _is_on_host(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


@final
class WeightAverage:
    """An average of the fp32 weights in `storage`, in fp32 on their device; of every `every`-th update after `start`.

    Nothing waits for a GPU in an update, and a graph can replay it. Besides the weights that are trained it has what a
    model keeps for them alone: the statistics of BatchNorm, which `renew` makes anew from the averaged weights.
    """

    def __init__(self, storage: Storage, kind: str, share: Share, *, every: int = 1, start: int = 0) -> None:
        self.kind, self.start = kind, start
        self._storage, self._share, self._every = storage, share, every
        self._sources = _buffers_of(storage)
        self._averages = [source.clone() for source in self._sources]
        device = self._sources[0].device
        self._applied = torch.zeros((), dtype=torch.int64, device=device)
        self._taken = torch.zeros((), dtype=torch.int64, device=device)
        self._buffers: Mapping[str, Tensor] = {}
        self._renew: Callable[[], None] = lambda: None
        self._renewed: tuple[int, dict[str, Tensor]] | None = None

    def belongs(self, buffers: Mapping[str, Tensor], renew: Callable[[], None]) -> None:
        """Give the average its own values of `buffers`; `renew` makes them from the weights that the model holds."""
        self._buffers, self._renew, self._renewed = dict(buffers), renew, None

    @torch.no_grad()
    def update(self, skip: Tensor, active: Tensor) -> None:
        """After an update; nothing changes where it was skipped (`skip` 1), or before the start (`active` 0)."""
        on_host = _is_on_host(self._taken)
        applies = (1.0 - skip) * active
        if on_host and not float(applies):
            return
        self._applied += applies.long()
        takes = applies * (self._applied % self._every == 0)
        if on_host and not float(takes):
            return
        share = (self._share(self._taken.double()) * takes).float()
        self._taken += takes.long()
        for average, source in zip(self._averages, self._sources, strict=True):
            average.lerp_(source, share)

    @property
    def has_begun(self) -> bool:
        """Whether there is an average. Waits for the device."""
        return int(self._taken) > 0

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Inside, the model holds the average and what belongs to it; afterwards it has its own, to the bit."""
        own = [source.clone() for source in self._sources]
        own_buffers = {name: buffer.clone() for name, buffer in self._buffers.items()}
        self._put(self._averages)
        try:
            self._renew_buffers()
            yield
        finally:
            self._put(own)
            with torch.no_grad():
                for name, buffer in own_buffers.items():
                    self._buffers[name].copy_(buffer)

    @torch.no_grad()
    def move(self, storage: Storage) -> None:
        """Go on with the weights of another storage, of the same names: those in the average stay."""
        kept = {name: view.clone() for name, view in self._views().items()}
        self._storage = storage
        self._sources = _buffers_of(storage)
        self._averages = [source.clone() for source in self._sources]
        for name, view in self._views().items():
            view.copy_(kept[name])

    def _put(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            for source, weight in zip(self._sources, weights, strict=True):
                source.copy_(weight)
        self._storage.refresh()

    def _renew_buffers(self) -> None:
        if not self._buffers:
            return
        taken = int(self._taken)
        if self._renewed is not None and self._renewed[0] == taken:
            with torch.no_grad():
                for name, buffer in self._renewed[1].items():
                    self._buffers[name].copy_(buffer)
            return
        self._renew()
        self._renewed = (taken, {name: buffer.clone() for name, buffer in self._buffers.items()})

    def tensors(self) -> dict[str, Tensor]:
        """Weights and buffers of the average by name, for whoever judges it; empty before it has begun."""
        if not self.has_begun:
            return {}
        if self._buffers:
            with self.evaluation_weights():
                pass  # makes the buffers, where they are of an earlier average
        return self._views() | ({} if self._renewed is None else self._renewed[1])

    def _views(self) -> dict[str, Tensor]:
        if isinstance(self._storage, FlatStorage):
            return self._storage.views(self._averages[0])
        return dict(zip(self._storage.weights, self._averages, strict=True))

    def counts(self) -> dict[str, Tensor]:
        """`applied`: updates since the start; `taken`: how many weights are in the average."""
        return {"applied": self._applied, "taken": self._taken}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], counts: Mapping[str, Tensor]) -> None:
        """Become what these say, as `tensors` and `counts` gave them; without counts begin anew.

        Raises: KeyError for a weight that is missing.
        """
        self._renewed = None
        for name, count in self.counts().items():
            count.copy_(counts[name]) if counts else count.zero_()
        if self.has_begun:
            for name, view in self._views().items():
                view.copy_(tensors[name])
