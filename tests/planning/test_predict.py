"""Predictions against what was measured (docs/benchmarks.md, docs/how-to/predict-a-run.md), and their laws."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.config import Config, list_presets, load_config
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.data import PackedSequences
from trimtab.errors import ConfigError
from trimtab.model import build_model
from trimtab.model.recompute import set_recompute
from trimtab.objective import build_objective, build_task, head_loss
from trimtab.planning import DEVICES, Prediction, memory, predict, that_fits, work
from trimtab.planning.settings import ways_of
from trimtab.planning.text import render

GPT2_SHAPES = {
    "124m": (12, 12, 768, 50_257, 1024, 32),
    "350m": (24, 16, 1024, 50_257, 1024, 16),
    "10m": (6, 6, 384, 257, 256, 32),
}
"""Layers, heads, width, vocabulary, length, batch: those of benchmarks/speed/gate.py (10m has 65 tokens there)."""


def shaped(case: str, *overrides: str) -> Config:
    layers, heads, width, vocabulary, length, batch = GPT2_SHAPES[case]
    return load_config(
        None,
        [
            f"data.tokenizer.vocabulary_size={vocabulary}",
            f"data.sequence_length={length}",
            f"model={{name: decoder, num_layers: {layers}, hidden_size: {width}, num_heads: {heads}, "
            "positions: {name: learned}}",
            f"training={{steps: 1000000, micro_batch_size: {batch}, precision: {{name: bf16}}}}",
            *overrides,
        ],
        environment={},
    )


@pytest.mark.parametrize(
    "case, overrides, milliseconds, band",
    [
        ("124m", [], 60.7, 0.05),
        ("124m", ["model.activation=gelu_tanh"], 59.0, 0.05),
        ("124m", ["model.activation=gelu_tanh", "training.fused_activation=off"], 64.8, 0.05),
        ("350m", [], 82.3, 0.05),
        ("10m", ["training.compile=whole"], 2.65, 0.05),
        ("10m", ["training.compile=off"], 3.34, 0.15),
        ("124m", ["training.precision.parameters=fp32"], 65.8, 0.05),
    ],
)
def test_a_step_on_an_h100_takes_as_long_as_was_measured(
    case: str, overrides: Sequence[str], milliseconds: float, band: float
) -> None:
    assert 1e3 * predict(shaped(case, *overrides), DEVICES["h100"]).step_seconds == pytest.approx(
        milliseconds, rel=band
    )


@pytest.mark.parametrize("precision, milliseconds", [("bf16", 85.4), ("fp32", 199.0)])
def test_the_demo_on_a_processor_takes_about_as_long_as_was_measured(precision: str, milliseconds: float) -> None:
    config = load_config("demo", [f"training.precision.name={precision}"], environment={})
    assert 1e3 * predict(config, DEVICES["cpu"]).step_seconds == pytest.approx(milliseconds, rel=0.15)


def test_parts_at_124m_are_those_of_the_profile() -> None:
    parts = {part.part: 1e3 * part.seconds for part in predict(shaped("124m"), DEVICES["h100"]).parts}
    measured = {"products of matrices": 33.5, "attention": 9.4, "element-wise": 10.6, "loss": 3.2, "optimizer": 1.4}
    for part, milliseconds in measured.items():
        assert parts[part] == pytest.approx(milliseconds, rel=0.12), part


@pytest.mark.parametrize(
    "case, overrides, gigabytes",
    [
        ("124m", ["objective.chunks=1"], 15.7),
        ("124m", ["objective.chunks=1", "training.precision.parameters=fp32"], 16.4),
    ],
)
def test_memory_on_an_h100_is_what_was_measured(case: str, overrides: Sequence[str], gigabytes: float) -> None:
    allocated = predict(shaped(case, *overrides), DEVICES["h100"]).memory_bytes / 1e9
    assert allocated == pytest.approx(gigabytes, rel=0.06)


def test_sizes_inside_the_loss_are_its_own() -> None:
    assert work.VOCABULARY_MULTIPLE == head_loss.VOCABULARY_MULTIPLE
    assert memory.CHUNK_BYTES == head_loss.CHUNK_BYTES
    chunked, whole = (predict(shaped("124m", *one), DEVICES["h100"]) for one in ([], ["objective.chunks=1"]))
    assert chunked.memory["logits"] < memory.CHUNK_BYTES + 50_304 * 768 * 4 < whole.memory["logits"]


def test_utilization_is_counted_as_in_the_literature() -> None:
    # 59.4 ms at 124M are 47.7 % of 989 TFLOP/s (6 N + 12 L d T a token).
    prediction = predict(shaped("124m"), DEVICES["h100"])
    assert prediction.utilization * prediction.step_seconds / 59.4e-3 == pytest.approx(0.477, abs=0.003)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model.activation=swiglu", "model.qk_norm=true"],
        ["model.norm.name=rms_norm"],
        ["model.dropout={residual: 0.1}"],
        ["training.recompute=selective"],
        ["training.recompute=selective", "model.activation=swiglu", "model.norm.name=rms_norm"],
        ["training.recompute=selective", "model.norm.placement=post"],
        ["training.recompute=full"],
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_kept_for_backward_is_what_autograd_keeps(overrides: list[str], precision: str) -> None:
    if precision == "bf16" and "recompute" in str(overrides):
        pytest.skip("without autocast's cache, which a run has, casts of weights are computed again, too")
    config = load_config(
        None,
        ["data.sequence_length=128", f"training.precision.name={precision}", "data.tokenizer.vocabulary_size=512",
         "training.micro_batch_size=4", *overrides],
        environment={},
    )  # fmt: skip
    prediction = predict(config, DEVICES["cpu"], compiled=False)
    model = build_model(config.model, vocabulary_size=512, sequence_length=128, seed=0).train()
    set_recompute(model, prediction.ways.recompute)
    own = {parameter.untyped_storage().data_ptr() for parameter in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = torch.zeros(4 * 128 + 1, dtype=torch.int64).numpy().astype("uint16")
    batch = PackedSequences(tokens, torch.zeros(1, dtype=torch.int64).numpy(), 128, num_bytes=1).batch(
        torch.arange(4).numpy()
    )
    task = build_task(config.task, build_objective(config.objective))
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False),
    ):
        output = model(**task.inputs(batch))
        assert output.features.requires_grad
        held = sum(kept.values())
    # The head, which keeps the features, is not run here: they are much of what little is kept with full.
    assert prediction.memory["activations"] == pytest.approx(held, rel=0.2 if "full" in str(overrides) else 0.15)


@settings(max_examples=25, deadline=None)
@given(
    device=st.sampled_from(sorted(DEVICES)),
    optimizer=st.sampled_from(sorted(set(OPTIMIZERS) - {"custom"})),
    layers=st.integers(1, 8),
    rows=st.integers(1, 32),
    accumulation=st.integers(1, 8),
    compiled=st.booleans(),
)
def test_more_takes_longer_and_more_room(
    device: str, optimizer: str, layers: int, rows: int, accumulation: int, compiled: bool
) -> None:
    def of(layers: int, rows: int, accumulation: int) -> Prediction:
        overrides = [
            f"optimizer.name={optimizer}",
            f"model.num_layers={layers}",
            f"training={{micro_batch_size: {rows}, accumulation: {accumulation}, precision: {{name: auto}}}}",
        ]
        return predict(load_config(None, overrides, environment={}), DEVICES[device], compiled=compiled)

    base = of(layers, rows, accumulation)
    assert base.step_seconds >= base.ceiling_seconds > 0
    assert 0 < base.utilization < 1
    for more in (of(layers + 1, rows, accumulation), of(layers, rows + 1, accumulation)):
        assert more.step_seconds >= base.step_seconds * (1 - 1e-9)  # where the host sets the pace, rows cost nothing
        assert more.memory_bytes > base.memory_bytes
    assert of(layers, rows, accumulation + 1).step_seconds > base.step_seconds
    json = base.to_json()
    assert json["step_seconds"] == base.step_seconds
    assert json["memory"]["total"] == pytest.approx(sum(base.memory.values()))


@pytest.mark.parametrize("device", sorted(DEVICES))
@pytest.mark.parametrize("name", [name for name in list_presets() if not name.startswith("finetune")])  # from outside
def test_every_preset_is_planned_on_every_device(name: str, device: str) -> None:
    prediction = predict(load_config(name, environment={}), DEVICES[device])
    assert prediction.training_seconds == prediction.steps * prediction.step_seconds > 0


def test_what_does_not_fit_is_divided_further() -> None:
    config = load_config("gpt2", ["training.micro_batch_size=480", "training.accumulation=1"], environment={})
    prediction = predict(config, DEVICES["h100"])
    assert not prediction.fits
    smaller = that_fits(config, prediction)
    assert smaller is not None
    assert smaller.fits
    assert smaller.micro_batch_size * smaller.accumulation == 480
    assert smaller.tokens_per_step == prediction.tokens_per_step
    following = min(size for size in range(smaller.micro_batch_size + 1, 481) if 480 % size == 0)
    assert not predict(config, DEVICES["h100"], micro_batch_size=following).fits


def test_auto_takes_the_largest_that_fits() -> None:
    config = shaped("124m", "training={batch_size: 480, micro_batch_size: auto, precision: {name: bf16}}")
    found = predict(config, DEVICES["rtx4090"])
    assert found.fits
    assert 1 < found.micro_batch_size < 480


def test_nothing_fits_a_model_that_is_too_large() -> None:
    config = load_config("gpt2", ["model={num_layers: 96, hidden_size: 12288, num_heads: 96}"], environment={})
    assert that_fits(config, predict(config, DEVICES["h100"])) is None


def test_growing_accumulation_counts_with_its_mean() -> None:
    plain = predict(load_config("gpt-1m", environment={}), DEVICES["h100"])
    growing = "training.accumulation_schedule={factors: [1, 3], lengths: [0.5]}"
    grown = predict(load_config("gpt-1m", [growing], environment={}), DEVICES["h100"])
    assert grown.tokens_per_step == pytest.approx(2 * plain.tokens_per_step)


@pytest.mark.parametrize(
    "overrides, device, expected",
    [
        ([], "h100", {"precision": "fp32", "narrow": False, "captured": True, "fused_loss": True}),
        (["training.precision.name=bf16"], "h100", {"narrow": True}),
        (["training.precision.name=bf16"], "cpu", {"narrow": False, "captured": False, "fused_loss": False}),
        (["training.precision.name=bf16", "optimizer.name=adamw_8bit"], "h100", {"narrow": False, "captured": False}),
        (["training.precision.name=fp16"], "h100", {"fused_loss": False, "narrow": False}),
        (["optimizer.name=soap"], "h100", {"captured": False}),
        (["training.capture=off"], "h100", {"captured": False}),
        (["training.compile=off"], "h100", {"compiled": False}),
        (["training.compile=on"], "cpu", {"compiled": True}),
        (["objective.name=focal"], "h100", {"fused_loss": False}),
        (["objective.fused=on"], "cpu", {"fused_loss": True}),
    ],
)
def test_ways_are_those_that_training_chooses(overrides: list[str], device: str, expected: dict[str, Any]) -> None:
    ways = ways_of(load_config(None, overrides, environment={}), DEVICES[device], compiled=True)
    for name, value in expected.items():
        assert getattr(ways, name) == value, name


def test_a_precision_that_a_device_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no fp16"):
        predict(load_config(None, ["training.precision.name=fp16"], environment={}), DEVICES["cpu"])


@pytest.mark.parametrize("name", ["gpt-1m", "gpt-30m", "gpt2"])
def test_shares_of_a_step_are_rounded_so_that_none_is_lost(name: str) -> None:
    config = load_config(name)
    prediction = predict(config, DEVICES["h100"])
    (told,) = (line for line in render(name, config, prediction).splitlines() if line.startswith("  profile"))
    shares = [int(share) for share in re.findall(r"\((\d+) %\)", told)]
    whole = prediction.step_seconds
    exact = [100 * part.seconds / whole for part in prediction.parts if part.seconds >= 0.005 * whole]
    assert shares == [round(share) for share in exact]
    assert shares != [int(share) for share in exact]


def test_what_is_computed_again_takes_time_and_no_room() -> None:
    found = {}
    for how in ("none", "selective", "full"):
        ways = [f"training.recompute={how}", "training.precision.name=bf16"]
        found[how] = predict(shaped("124m", *ways), DEVICES["h100"])
    none, selective, full = found.values()
    assert none.step_seconds < selective.step_seconds < 1.1 * none.step_seconds
    assert 1.2 * none.step_seconds < full.step_seconds < 1.4 * none.step_seconds
    assert none.memory_bytes > selective.memory_bytes > full.memory_bytes
    assert full.utilization < none.utilization  # what is done twice is no use


def test_auto_recomputes_what_must_be() -> None:
    sizes = ["training.recompute=auto", "training.precision.name=bf16"]
    chosen = [
        predict(shaped("124m", *sizes, f"training.micro_batch_size={rows}"), DEVICES["rtx4090"]).ways.recompute
        for rows in (1, 4, 8, 16, 32, 64, 128, 480)
    ]
    order = ["none", "selective", "full"]
    assert chosen[0] == "none"
    assert chosen[-1] == "full"
    assert chosen == sorted(chosen, key=order.index)
