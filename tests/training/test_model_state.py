"""A model's state as tensors: there and back, best weights included."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trimtab.errors import CheckpointError, ConfigError
from trimtab.training.checkpoint import Snapshot, load_model
from trimtab.training.checkpoint.files import read_snapshot, write_snapshot
from trimtab.training.checkpoint.model_state import model_tensors, require_saveable


class Keeps(nn.Module):
    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.kept = kept

    def get_extra_state(self) -> Any:
        return self.kept

    def set_extra_state(self, state: Any) -> None:
        self.kept = state


def model(kept: Any) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(2), Keeps(kept))


def named(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"model/{name}": tensor.clone() for name, tensor in tensors.items()}


KEPT = [
    None,
    True,
    3,
    0.1,
    -math.inf,
    "inf",
    "ü\x00",
    [1, [2.5, "a"], {}],
    {"a": {"b": None}},
]


@pytest.mark.parametrize("kept", KEPT)
def test_json_comes_back_as_it_was(kept: Any) -> None:
    tensors = model_tensors(model(kept))
    assert tensors["1._extra_state.json"].dtype == torch.uint8
    other = model({"something": "longer than that"})
    load_model(other, named(tensors))
    assert other[1].kept == kept
    assert type(other[1].kept) is type(kept)


def test_a_tensor_comes_back_and_may_have_changed_its_shape_or_kind() -> None:
    tensors = model_tensors(model(torch.arange(5)))
    other = model([1])
    load_model(other, named(tensors))
    assert torch.equal(other[1].kept, torch.arange(5))
    load_model(other, named(model_tensors(model([2]))))
    assert other[1].kept == [2]


@pytest.mark.parametrize("kept", [(1, 2), {1: 2}, {1, 2}, b"bytes", [object()]])
def test_what_json_would_change_is_refused(kept: Any) -> None:
    with pytest.raises(CheckpointError, match=r"1\._extra_state"):
        model_tensors(model(kept))


def test_extra_state_that_one_side_lacks_is_another_model() -> None:
    plain = nn.Sequential(nn.BatchNorm1d(2), nn.Module())
    with pytest.raises(CheckpointError, match=r"unknown: \['1\._extra_state', '1\.weight'\]"):
        load_model(plain, named(model_tensors(model(1))))
    with pytest.raises(CheckpointError, match=r"Missing: \['1\._extra_state', '1\.weight'\]"):
        load_model(model(1), named(model_tensors(plain)))


def test_a_hook_that_adds_what_is_no_tensor_is_refused() -> None:
    strange = nn.Linear(2, 2)
    strange.register_state_dict_post_hook(lambda module, state, prefix, local: state.update(version="1"))
    with pytest.raises(Exception, match="version of its state is a str"):
        require_saveable(strange)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.uint16, torch.float8_e4m3fn])
def test_a_dtype_that_safetensors_has_is_saved_and_another_is_refused_at_once(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("kept", torch.ones(4).to(dtype))
    require_saveable(model)
    tensors = {f"model/{name}": tensor for name, tensor in model_tensors(model).items()}
    write_snapshot(Snapshot(tensors, {}), tmp_path / "t", tmp_path / "step-00000001", {"step": 1})
    back = read_snapshot(tmp_path / "step-00000001").tensors["model/kept"]
    assert back.dtype == dtype
    assert torch.equal(back.view(torch.uint8), model.kept.view(torch.uint8))
    model.register_buffer("odd", torch.ones(2, dtype=torch.complex128))
    with pytest.raises(ConfigError, match=r"odd is of type torch.complex128"):
        require_saveable(model)
