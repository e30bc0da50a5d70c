"""In what numbers a device computes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_step import LENGTH, VOCABULARY, make_batch, make_step

from trimtab.config import Bf16, DecoderConfig, Fp16, Fp32, Tf32, load_config
from trimtab.control import SkippedSteps, build_controllers
from trimtab.errors import ConfigError
from trimtab.events import StepsEnded
from trimtab.model import build_model
from trimtab.objective import CrossEntropy
from trimtab.training import Precision, precision
from trimtab.training.precision import LossScaler

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


def test_the_scale_halves_on_overflow_and_doubles_after_a_stable_while() -> None:
    """As torch's own scaler does, step for step."""
    theirs = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=3)
    ours = LossScaler(1024.0, 3, CPU)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for overflows in (0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0):
        theirs.scale(weight.sum()).backward()
        assert weight.grad is not None
        if overflows:
            weight.grad.fill_(torch.inf)
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        ours.update(torch.tensor(float(overflows)))
        assert float(ours.scale) == theirs.get_scale()


def test_the_scale_stays_between_its_bounds() -> None:
    scaler = LossScaler(2.0, 1, CPU)
    for _ in range(3):
        scaler.update(torch.ones(()))
    assert float(scaler.scale) == 1.0
    for _ in range(30):
        scaler.update(torch.zeros(()))
    assert float(scaler.scale) == 2.0**24


def test_a_static_scale_stays_and_its_overflow_is_skipped() -> None:
    step = make_step(precision=Fp16(scaling="static", initial_scale=512.0))
    plain = make_step()
    for number in (1, 2):
        step.run([make_batch(4, number)], number)
        plain.run([make_batch(4, number)], number)
    ours, exact = (dict(zip(one.ring.columns, one.ring.take().wait()[-1], strict=True)) for one in (step, plain))
    assert ours["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.02)
    assert ours["loss_scale"] == 512.0
    large = make_step(precision=Fp16(scaling="static", initial_scale=2.0**24))
    before = {name: weight.clone() for name, weight in large.optimizer.storage.weights.items()}
    large.run([make_batch(4, 1)], 1)
    row = dict(zip(large.ring.columns, large.ring.take().wait()[-1], strict=True))
    assert (row["skipped"], row["loss_scale"]) == (1.0, 2.0**24)
    assert large.precision.scaler is not None
    assert float(large.precision.scaler.scale) == 2.0**24
    assert all(torch.equal(before[name], weight) for name, weight in large.optimizer.storage.weights.items())


@pytest.mark.parametrize("scaling,stops_at", [("static", 3), ("dynamic", None)])
def test_a_static_scale_that_always_overflows_ends_the_run(scaling: str, stops_at: int | None) -> None:
    """A dynamic one falls, so that skipped steps count from its floor on alone."""
    precision = f"training.precision={{name: fp16, initial_scale: 512.0, scaling: {scaling}}}"
    config = load_config("gpt-1m", [precision, "gradients.max_skipped=3"], environment={})
    (skipped,) = [one for one in build_controllers(config) if isinstance(one, SkippedSteps)]
    per_step = {"skipped": np.ones(6), "loss_scale": np.full(6, 512.0)}
    decision = skipped.decide(StepsEnded(1, 6, per_step, {}))
    assert (decision is None) == (stops_at is None)
    if decision is not None:
        assert decision.exit_code == 4
        assert f"up to step {stops_at}:" in decision.reason


def test_growth_of_a_static_scale_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"growth_every.*\n?.*scaling is static"):
        load_config("gpt-1m", ["training.precision={name: fp16, scaling: static, growth_every: 5}"], environment={})


def test_tf32_is_refused_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="tensor cores of NVIDIA GPUs since Ampere; this device is a CPU") as caught:
        precision.set_products(Tf32(), CPU)
    assert "training.precision.name=auto" in str(caught.value.hint)
    with pytest.raises(ConfigError, match=r"tf32.*training\.device is cpu"):
        load_config("gpt-1m", ["training.precision.name=tf32", "training.device=cpu"], environment={})
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        precision.set_products(Fp32(), CPU)
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("given", [Bf16(), Fp16()], ids=["bf16", "fp16"])
@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_under_autocast_residual_stream_norms_and_loss_are_fp32(given: Any, norm: str) -> None:
    """What is called keeping norms and loss in fp32 is so without an option: they take and give float32."""
    shape = {"num_layers": 2, "hidden_size": 16, "num_heads": 2, "norm": {"name": norm}}
    config = DecoderConfig.model_validate(shape)
    model = build_model(config, vocabulary_size=VOCABULARY, sequence_length=LENGTH, seed=3)
    seen: dict[str, set[torch.dtype]] = {"norm": set(), "linear": set()}

    def look(kind: str) -> Any:
        return lambda module, inputs, output: seen[kind].update({inputs[0].dtype, output.dtype})

    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm | torch.nn.RMSNorm):
            module.register_forward_hook(look("norm"))
        elif isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: seen["linear"].add(output.dtype))
    step = make_step(precision=given, model=model)
    step.run([make_batch(2, 0)], 1)
    assert seen["linear"] == {step.precision.dtype}
    assert seen["norm"] == {torch.float32}
    assert step.settings["loss"].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_softmax_and_loss_sum_in_fp32_whatever_they_are_given(dtype: torch.dtype) -> None:
    """4,096 equal terms: a sum in bf16 stands still at 256, one in fp16 at 2,048."""
    q, k, v = torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 4096, 8), torch.ones(1, 1, 4096, 8)
    mean = torch.nn.functional.scaled_dot_product_attention(q.to(dtype), k.to(dtype), v.to(dtype))
    assert mean.dtype == dtype
    assert torch.equal(mean, torch.ones_like(mean))
    logits, targets = torch.zeros(3, 4096, dtype=dtype), torch.zeros(3, dtype=torch.int64)
    (term,) = CrossEntropy()(logits, targets).terms
    assert float(term.sum) == pytest.approx(3 * math.log(4096), rel=1e-6)
