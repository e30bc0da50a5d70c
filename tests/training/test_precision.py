"""In what numbers a device computes."""

from __future__ import annotations

import pytest
import torch

from trimtab.config import load_config
from trimtab.training import Precision, precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("has_bf16", "name", "dtype"), [(True, "bf16", torch.bfloat16), (False, "fp32", torch.float32)]
)
def test_auto_is_bf16_where_the_device_computes_in_it(
    has_bf16: bool, name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo takes it: on a processor without bf16 a step would take ten times as long as in fp32."""
    monkeypatch.setattr(precision, "computes_in_bf16", lambda device: has_bf16)
    chosen = Precision(load_config("demo", environment={}).training.precision, CPU)
    assert (chosen.name, chosen.dtype) == (name, dtype)
    assert not chosen.is_emulated
    given = load_config("demo", ["training.precision.name=bf16"], environment={}).training.precision
    assert Precision(given, CPU).is_emulated != has_bf16


def test_it_can_be_asked() -> None:
    assert precision.computes_in_bf16(CPU) in (True, False)
