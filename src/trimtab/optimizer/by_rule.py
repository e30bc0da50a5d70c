"""Any algorithm over flat storage: state by name, skipping on the device, evaluation weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, final

import torch
from torch import Tensor

from trimtab.optimizer.algorithms.rule import Now, Rule, State
from trimtab.optimizer.contract import Rehearsal
from trimtab.optimizer.curvature import Curvature
from trimtab.optimizer.parameter_groups import ParameterGroup
from trimtab.optimizer.storage import FlatStorage
from trimtab.signals import Gradients

_ESTIMATE: Final = "estimate"


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one call of a rule updates: one parameter, a stack of one shape, or a whole group as one vector."""

    group: ParameterGroup
    rule: Rule
    names: tuple[str, ...]
    start: int
    """Where it begins in flat storage."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    state: State = field(default_factory=dict)

    def of(self, flat: Tensor) -> Tensor:
        """Its part of a flat buffer, in its own shape."""
        return flat.as_strided(self.shape, self.strides, self.start)


@final
class RuleOptimizer:
    """Updates each group of parameters by its rule. On a GPU nothing waits unless the rule does.

    A skipped update leaves weights, state and the count of applied updates as they were.
    """

    def __init__(
        self, groups: Sequence[tuple[ParameterGroup, Rule]], *, compute_dtype: torch.dtype = torch.float32
    ) -> None:
        self.groups = tuple(group for group, _ in groups)
        self.storage = storage = FlatStorage(self.groups, compute_dtype)
        self._applied = torch.zeros((), dtype=torch.float32, device=storage.flat_weight.device)
        self._pieces: list[_Piece] = []
        for (group, rule), (start, end) in zip(groups, storage.group_spans, strict=True):
            if rule.elementwise:
                pieces = [_Piece(group, rule, tuple(group.parameters), start, (end - start,), (1,))]
            else:
                pieces = [_stack(group, rule, storage, names) for names in _alike(group, rule, storage)]
            self._pieces += [replace(piece, state=rule.begin(piece.of(storage.flat_weight))) for piece in pieces]

        every = {rule.estimates_every for _, rule in groups} - {0}
        self.curvature = Curvature(storage, min(every)) if every else None
        self.averages = any(rule.evaluated is not None for _, rule in groups)

    @torch.no_grad()
    def update(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """One update with the rates in `settings`, and the factor `weight_decay` on each group's own."""
        on_host = self._applied.device.type == "cpu"
        if on_host and float(gradients.skip):
            return
        self._update(gradients, settings, on_host=on_host)
        if self.curvature is not None:
            self.curvature.settle(gradients.skip)

    @contextmanager
    def rehearsal(self) -> Iterator[Rehearsal]:
        """Every rule is computed as in an update that a GPU skips; a CPU would leave it out."""

        @torch.no_grad()
        def rehearse(gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
            skipped = replace(gradients, skip=torch.ones_like(gradients.skip))
            self._update(skipped, settings, on_host=False)

        yield rehearse

    def _update(self, gradients: Gradients, settings: Mapping[str, Tensor], *, on_host: bool) -> None:
        """With `on_host` the update is not skipped; else nothing depends on whether it is, but what is written."""
        storage = self.storage
        estimate = None if self.curvature is None else self.curvature.newest()
        applies = gradients.skip == 0
        self._applied.add_(1.0 - gradients.skip)
        # At a first step that is skipped there is no applied update: it is only kept finite.
        count = self._applied.clamp_min(1.0).double()
        for piece in self._pieces:
            gradient = piece.of(storage.flat_gradient).float() * gradients.scale
            if not on_host:
                # A gradient that is not finite must not reach the state, not even multiplied by zero.
                gradient = torch.where(applies, gradient, 0.0)
            rate = settings[piece.group.rate_setting] * piece.group.rate
            seen = None if estimate is None else piece.of(estimate)
            now = Now(rate, settings["weight_decay"] * piece.group.weight_decay, count, seen)
            weight = piece.of(storage.flat_weight)
            new_weight, new_state = piece.rule.step(weight, gradient, piece.state, now)
            for old, new in ((weight, new_weight), *((piece.state[slot], new_state[slot]) for slot in piece.state)):
                if new is not old:
                    old.copy_(new if on_host else torch.where(applies, new, old))
        storage.refresh()

    def state_by_name(self) -> dict[str, dict[str, Tensor]]:
        """The slots of each parameter's rule, and the count of applied updates under ''.

        An estimate of the curvature that no update has used yet is one more.
        """
        state: dict[str, dict[str, Tensor]] = {"": {"applied": self._applied}}
        for piece in self._pieces:
            for index, name in enumerate(piece.names):
                slots: Mapping[str, Tensor] = piece.state
                if piece.rule.elementwise:
                    begin, end = (offset - piece.start for offset in self.storage.spans[name])
                    shape = self.storage.shapes[name]
                    slots = {slot: t[begin:end].view(shape) if t.ndim else t for slot, t in slots.items()}
                elif len(piece.names) > 1:
                    slots = {slot: t[index] for slot, t in slots.items()}
                state[name] = dict(slots)
        for name, estimate in ({} if self.curvature is None else self.curvature.unused()).items():
            state[name][_ESTIMATE] = estimate
        return state

    def load_state_by_name(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copy `state` in, by name. Raises: KeyError for a name or slot that is missing."""
        if self.curvature is not None:
            unused = {name: slots[_ESTIMATE] for name, slots in state.items() if _ESTIMATE in slots}
            self.curvature.load(unused, has_begun=float(state[""]["applied"]) > 0)
        for name, slots in self.state_by_name().items():
            for slot, tensor in slots.items():
                tensor.copy_(state[name][slot])

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Inside, the model holds the weights to be judged, where the rule has others than it trains."""
        if not self.averages:
            yield
            return
        trained = self.storage.flat_weight.clone()
        with torch.no_grad():
            for piece in self._pieces:
                if piece.rule.evaluated is not None:
                    weight = piece.of(self.storage.flat_weight)
                    weight.copy_(piece.rule.evaluated(weight, piece.state))
        self.storage.refresh()
        try:
            yield
        finally:
            self.storage.flat_weight.copy_(trained)
            self.storage.refresh()


def _alike(group: ParameterGroup, rule: Rule, storage: FlatStorage) -> list[list[str]]:
    """Names of parameters that a rule may take stacked: of one shape, and equally far apart in storage."""
    runs: dict[torch.Size, list[list[str]]] = {}
    for name in group.parameters:
        of_shape = runs.setdefault(storage.shapes[name], [])
        run = of_shape[-1] if of_shape else []
        starts = [storage.spans[each][0] for each in (*run[:2], *run[-1:], name)]
        apart = len(run) < 2 or starts[-1] - starts[-2] == starts[1] - starts[0]
        if run and rule.takes_stacks and apart:
            run.append(name)
        else:
            of_shape.append([name])
    return [run for of_shape in runs.values() for run in of_shape]


def _stack(group: ParameterGroup, rule: Rule, storage: FlatStorage, names: Sequence[str]) -> _Piece:
    shape, start = storage.shapes[names[0]], storage.spans[names[0]][0]
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    if len(names) == 1:
        return _Piece(group, rule, tuple(names), start, tuple(shape), strides)
    between = storage.spans[names[1]][0] - start
    return _Piece(group, rule, tuple(names), start, (len(names), *shape), (between, *strides))
