"""A model's attributes and the generators of a process as they were, after it was asked what nobody else asked it."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

_LARGEST: Final = 1 << 26
"""Bytes of an array: nobody writes into a larger one in each step, and data may be as large."""
_MANY: Final = 1000
"""Things in a container: what is in more of them is not looked through, as of data."""
_OF_TORCH: Final = frozenset(vars(nn.Module()))
"""Attributes of every module: weights, buffers, parts and hooks, which are kept otherwise."""


@contextmanager
def generators_kept() -> Iterator[None]:
    """After it the generators of Python and numpy are as they were: layers of one's own draw from them, too."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """After it each module has the attributes that it had, with what was in them: a counter or a mean need not be a
    buffer, a layer may add to a list, and draw from a generator of its own."""
    held = [(module, dict(vars(module))) for module in model.modules()]
    backs: dict[int, Callable[[], object]] = {}
    for _, attributes in held:
        for name, one in attributes.items():
            if name not in _OF_TORCH:
                _remember(one, backs)
    try:
        yield
    finally:
        with torch.no_grad():
            for module, attributes in held:
                vars(module).clear()
                vars(module).update(attributes)
            for back in backs.values():
                back()


def _remember(one: Any, backs: dict[int, Callable[[], object]]) -> None:
    """Add to `backs` what makes `one`, and all that is in it, what it is now. By what it is: each holds on to its own,
    so that no other gets its number."""
    if id(one) in backs:
        return
    inside: list[Any] = []
    if isinstance(one, Tensor):
        if not isinstance(one, nn.Parameter) and not one.is_inference():
            backs[id(one)] = _of_tensor(one)
    elif isinstance(one, torch.Generator):
        backs[id(one)] = partial(one.set_state, one.get_state())
    elif isinstance(one, np.random.Generator):
        backs[id(one)] = partial(setattr, one.bit_generator, "state", one.bit_generator.state)
    elif isinstance(one, np.random.RandomState):
        backs[id(one)] = partial(one.set_state, one.get_state())
    elif isinstance(one, random.Random):
        backs[id(one)] = partial(one.setstate, one.getstate())
    elif isinstance(one, np.ndarray):
        if one.flags.writeable and one.nbytes <= _LARGEST:
            backs[id(one)] = partial(np.copyto, one, one.copy())
    elif type(one) in (dict, OrderedDict, defaultdict, Counter):
        backs[id(one)], inside = _of_container(one, dict(one), one.update), list(one.values())
    elif type(one) in (list, deque):
        backs[id(one)], inside = _of_container(one, list(one), one.extend), list(one)
    elif type(one) is set:
        backs[id(one)] = _of_container(one, set(one), one.update)
    elif type(one) is tuple:
        inside = list(one)
    if len(inside) <= _MANY:
        for part in inside:
            _remember(part, backs)


def _of_tensor(one: Tensor) -> Callable[[], object]:
    version, was = one._version, one.detach().clone()

    def back() -> None:
        if one._version != version:
            one.copy_(was)

    return back


def _of_container(one: Any, was: Any, fill: Callable[[Any], object]) -> Callable[[], object]:
    def parts(of: Any) -> list[int]:
        return [id(part) for part in (*of, *of.values())] if isinstance(of, dict) else [id(part) for part in of]

    def back() -> None:
        if parts(one) != parts(was):
            one.clear()
            fill(was)

    return back
