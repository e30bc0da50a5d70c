"""What a reader of a run needs of its parts: the tokenizer, and the tree of the model's modules with shapes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.data import PreparedData
from trimtab.model import ForeignModel, Outside, buffers_kept, evaluating, uncompiled
from trimtab.runs import RunDirectory
from trimtab.runs.files import write_json
from trimtab.signals import Task, seeded


def write_parts(run: RunDirectory, model: nn.Module, task: Task, data: PreparedData) -> None:
    """Write tokenizer.json and modules.json into artifacts, where they are not there yet.

    The first sequence of the training set tells the shapes of what modules give.

    The pass is in eval mode, without gradients, and leaves generators and buffers as they were. A module from outside,
    which may keep state anywhere, is not called before its first step.
    """
    run.artifacts.mkdir(exist_ok=True)
    if not (tokenizer := run.artifacts / "tokenizer.json").exists():
        data.tokenizer.save(tokenizer)
    if run.modules.exists():
        return
    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    batch = data.training.batch(np.zeros(1, dtype=np.int64), 1).to(device)
    calls = not isinstance(model, ForeignModel)
    write_json(run.modules, describe_modules(model, task.inputs(batch), calls=calls))


def describe_modules(model: nn.Module, inputs: Mapping[str, Tensor], *, calls: bool = True) -> dict[str, Any]:
    """`class`, `parameters`, `trained`, the shapes of `inputs`, and `modules` in the order of their names' tree.

    Of each module its name ('' is the model), class, parameters with all that is in it (a shared one once), its own
    `weights`, and the shape of its `output`: of the last call, None of one that was not called or gives no tensor.
    A model that cannot be called so, or is not with `calls` False, is told of without outputs, and `why_no_outputs`.
    """
    outputs: dict[str, list[int]] = {}
    problem = "" if calls else "a module from outside may keep state anywhere, and is not called before its first step"
    devices = {one.device for one in model.parameters() if one.device.type == "cuda"}

    def watch(name: str) -> Any:
        def ran(module: nn.Module, given: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) and output else output
            if isinstance(first, Tensor):
                outputs[name] = list(first.shape)

        return ran

    with ExitStack() as stack:
        for name, module in model.named_modules():
            stack.callback(module.register_forward_hook(watch(name)).remove)
        stack.enter_context(torch.random.fork_rng(devices=list(devices)))
        if isinstance(model, Outside):
            stack.enter_context(buffers_kept(model))
        try:
            with evaluating(model), uncompiled(), seeded(0):
                if calls:
                    model(**inputs)
        except Exception as error:  # a module from outside raises what it likes, and the first step will say it better
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
    told = {
        "class": type(model).__name__,
        "parameters": sum(one.numel() for one in model.parameters()),
        "trained": sum(one.numel() for one in model.parameters() if one.requires_grad),
        "inputs": {name: list(tensor.shape) for name, tensor in inputs.items()},
        "modules": [
            {
                "name": name,
                "class": type(module).__name__,
                "parameters": sum(one.numel() for one in module.parameters()),
                "weights": {
                    key: {
                        "shape": list(one.shape),
                        "dtype": str(one.dtype).removeprefix("torch."),
                        "trained": one.requires_grad,
                    }
                    for key, one in module.named_parameters(recurse=False)
                },
                "output": outputs.get(name),
            }
            for name, module in model.named_modules()
        ],
    }
    return told | ({"why_no_outputs": problem} if problem else {})
