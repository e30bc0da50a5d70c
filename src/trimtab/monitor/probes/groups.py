"""Tensors of one size side by side: a kernel reads a group of them, where it would read one.

A model of a hundred parameters has a dozen sizes, and most of its parameters are small: what is asked of each of them
costs a launch for each group, not for each parameter.

Shape suffixes: P tensors · G tensors of a group · N values of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

AT_ONCE = 1 << 24
"""Values that are copied side by side at once: 64 MiB of fp32. A larger tensor is a group of its own, and no copy."""


def grouped(tensors: Mapping[str, Tensor]) -> list[tuple[str, ...]]:
    """Names of tensors of one size, at most `AT_ONCE` values together, in the order of the first of each."""
    by_size: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        by_size.setdefault(tensor.numel(), []).append(name)
    groups: list[tuple[str, ...]] = []
    for size, names in by_size.items():
        most = max(1, AT_ONCE // max(1, size))
        groups += [tuple(names[first : first + most]) for first in range(0, len(names), most)]
    return groups


def of_groups(
    tensors: Mapping[str, Tensor], read: Callable[[Sequence[str], Tensor], Sequence[Tensor]]
) -> tuple[Tensor, ...]:
    """What `read` says of each group, in the order of `tensors`: [P, …] each.

    `read` is given names and values [G, N], not to be changed, and gives tensors [G, …], the same number of each group.
    At least one tensor is needed; all are of one dtype, where one device holds them.
    """
    groups = grouped(tensors)
    found: list[Sequence[Tensor]] = []
    for names in groups:
        rows = [tensors[name].detach().reshape(-1) for name in names]
        found.append(read(names, rows[0][None] if len(rows) == 1 else torch.stack(rows)))
    place = {name: index for index, name in enumerate(name for names in groups for name in names)}
    order = [place[name] for name in tensors]
    joined = [torch.cat(list(each)) for each in zip(*found, strict=True)]
    if order == sorted(order):
        return tuple(joined)
    order_P = torch.tensor(order, device=joined[0].device)
    return tuple(each.index_select(0, order_P) for each in joined)
