"""What named modules give for the probe batch, as it is: files to look into later.

artifacts/captures/step-00000500.safetensors holds for each module its first rows, [rows, last dimension], in the dtype
in which they were computed; the rows of [B, T, D] are the positions of the first sequence, then of the next. With them
`inputs/<name>`, what the model was given, where privacy.samples is on: tokens are texts; in the metadata each module's
whole shape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, final

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from trimtab.config import Config
from trimtab.config.nearest import did_you_mean, nearest_names
from trimtab.errors import ConfigError, StorageError, UsageError
from trimtab.monitor.probes.examiner import Examiner
from trimtab.runs import RunDirectory
from trimtab.runs.files import write_bytes
from trimtab.signals import Examined, Readings

_INPUTS: Final = "inputs/"


def add_capture(config: Config, examiner: Examiner | None, model: nn.Module, run: RunDirectory) -> None:
    """Let `examiner` write down what `config` names. Raises: ConfigError for a name that no module has."""
    asked = config.logging.capture
    if asked.layers and examiner is not None:
        chosen = chosen_modules(model, asked.layers)
        inputs = config.privacy.samples == "on"
        examiner.examinations.append(
            CaptureExamination(chosen, asked.values, asked.megabytes * 10**6, run.captures, inputs=inputs)
        )


def chosen_modules(model: nn.Module, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The names of modules that fit, in the model's order. Raises: ConfigError for a pattern that fits none."""
    names = [name for name, _ in model.named_modules() if name]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"logging.capture.layers: no module has such a name. Received: {pattern!r}",
                hint=did_you_mean(nearest_names(pattern, names)) or "`trimtab show RUN --modules` lists them",
            )
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


@final
class CaptureExamination:
    """Writes a file at each examination, until all together take `most_bytes`; then it says so and is left out."""

    name = "capture"

    def __init__(self, modules: tuple[str, ...], values: int, most_bytes: int, folder: Path, *, inputs: bool) -> None:
        """`inputs`: whether what the model was given is written, too."""
        self._inputs = inputs
        self._modules, self._values, self._most_bytes, self._folder = modules, values, most_bytes, folder
        self._tensors: dict[str, Tensor] = {}
        self._shapes: dict[str, list[int]] = {}

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[None]:
        """Hooks on the chosen modules."""
        self._tensors, self._shapes = {}, {}
        named = dict(model.named_modules())
        handles = [named[name].register_forward_hook(self._keep(name)) for name in self._modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, name: str) -> Callable[..., None]:
        def ran(module: nn.Module, given: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) and output else output
            if not isinstance(first, Tensor):
                return
            self._shapes[name] = list(first.shape)
            rows = first.detach().reshape(-1, first.shape[-1] if first.dim() else 1)
            self._tensors[name] = rows[: max(1, self._values // rows.shape[1])].clone()

        return ran

    def read(self, examined: Examined) -> Readings:
        """Writes the file. Raises: StorageError when it would be too much, or cannot be written."""
        tensors = {name: tensor.cpu() for name, tensor in self._tensors.items()}
        for name, tensor in examined.task.inputs(examined.batch).items() if self._inputs else ():
            tensors[_INPUTS + name] = tensor.cpu().contiguous()
        self._tensors = {}
        path = self._folder / f"step-{examined.step:08d}.safetensors"
        metadata = {"step": str(examined.step), "shapes": json.dumps(self._shapes)}
        data = save(tensors, metadata)
        held = sum(one.stat().st_size for one in self._folder.glob("step-*.safetensors") if one != path)
        if held + len(data) > self._most_bytes:
            raise StorageError(
                f"captures would take {math.ceil((held + len(data)) / 1e6)} MB, more than logging.capture.megabytes"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
        return Readings()


@final
@dataclass(frozen=True, slots=True)
class Capture:
    """What one examination wrote down."""

    step: int
    modules: Mapping[str, Tensor]
    """By name, [rows, last dimension]."""
    shapes: Mapping[str, tuple[int, ...]]
    """By name, what the module gave as a whole."""
    inputs: Mapping[str, Tensor]
    """What the model was given; empty where privacy.samples is not on."""


def read_captures(run: str | Path) -> list[Capture]:
    """What a run captured, in the order of its steps; empty where it captured nothing. Raises: UsageError."""
    folder = RunDirectory.open(Path(run)).captures
    return [_read(path) for path in sorted(folder.glob("step-*.safetensors"))]


def _read(path: Path) -> Capture:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        shapes = {name: tuple(shape) for name, shape in json.loads(metadata["shapes"]).items()}
    except Exception as error:  # safetensors has errors of its own, and so has damaged metadata
        raise UsageError(f"{path}: is no capture, or damaged: {error}") from error
    return Capture(
        int(metadata["step"]),
        {name: tensor for name, tensor in tensors.items() if not name.startswith(_INPUTS)},
        shapes,
        {name.removeprefix(_INPUTS): tensor for name, tensor in tensors.items() if name.startswith(_INPUTS)},
    )
