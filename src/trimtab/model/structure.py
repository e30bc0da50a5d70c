"""Where a model's layers are, and what passes through them: of ours by their class, of others by how they are built.

Shape suffixes: B sequences · T positions · D hidden size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.model.block import Block
from trimtab.model.mode import in_backward, uncompiled


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of `model` by their names, in order.

    Ours are its blocks. Of another model they are the members of the outermost lists whose members are of one class
    and made of modules: `transformer.h.0`, `encoder.layer.3`. Empty where there is no such list.
    """
    named = dict(model.named_modules())
    found: dict[str, nn.Module] = {name: module for name, module in named.items() if isinstance(module, Block)}
    if found:
        return found
    for name, module in named.items():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or any(name.startswith(f"{one}.") for one in found):
            continue
        members = list(module)
        is_list = isinstance(module, nn.ModuleList) or len(members) > 1
        if is_list and len({type(one) for one in members}) == 1 and any(members[0].children()):
            found |= {f"{name}.{index}" if name else str(index): one for index, one in enumerate(members)}
    return found


@contextmanager
def streams_read(model: nn.Module, tell: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """Inside, `tell` is told of each layer, as it runs, its name, and what goes in and comes out: [B, T, D], detached.

    A layer that runs several times in a pass has a number behind its name from the second time on, `…:2`. Compiled
    layers run as written; what is computed again in backward is not told again.
    """
    calls: Counter[str] = Counter()

    def watch(name: str) -> Callable[..., None]:
        def ran(module: nn.Module, given: tuple[Any, ...], options: Mapping[str, Any], output: Any) -> None:
            before = next((one for one in (*given, *options.values()) if isinstance(one, Tensor)), None)
            after = output[0] if isinstance(output, tuple | list) and output else output
            if isinstance(before, Tensor) and isinstance(after, Tensor) and not in_backward():
                calls[name] += 1
                called = name if calls[name] == 1 else f"{name}:{calls[name]}"
                with torch.no_grad():
                    tell(called, before.detach(), after.detach())

        return ran

    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        for name, layer in layers_of(model).items():
            if isinstance(layer, torch.jit.ScriptModule):
                continue  # takes no hooks
            handle = layer.register_forward_hook(watch(name), with_kwargs=True)
            stack.callback(handle.remove)
        yield
