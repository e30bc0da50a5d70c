"""A run in fp8, with its products emulated: history, resuming, skipped steps, and what is refused."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_step import LENGTH, VOCABULARY, make_batch, make_step

from trimtab.config import DecoderConfig, Fp8, load_config
from trimtab.errors import ConfigError
from trimtab.events import Event, StepsEnded
from trimtab.model import build_model
from trimtab.model.fp8 import prepare_fp8
from trimtab.runs.checkpoints import latest
from trimtab.trainer import Trainer
from trimtab.training import Step, precision
from trimtab.training.capture import held
from trimtab.training.checkpoint import read_tensors
from trimtab.training.precision import set_products

SETTINGS = [
    "data.source={name: text, path: TEXT}",
    "data.tokenizer={name: bytes}",
    "data.sequence_length=32",
    "model={name: decoder, num_layers: 1, hidden_size: 32, num_heads: 2, dropout: {residual: 0.1}}",
    "optimizer={name: adamw, learning_rate: 5e-3}",
    "training.steps=12",
    "training.micro_batch_size=4",
    "training.accumulation=2",
    "training.precision={name: fp8, history: 4}",
    "evaluation={every: 6, gap_tokens: 512, max_tokens: 512, yardsticks: false}",
    "checkpoint.every=4",
]


class Losses:
    def __init__(self, leaves_at: int | None = None) -> None:
        self.values: list[float] = []
        self._leaves_at = leaves_at

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded):
            self.values += event.per_step["train/loss"].tolist()
            if self._leaves_at is not None and event.last_step >= self._leaves_at:
                raise KeyboardInterrupt


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(precision, "why_no_fp8", lambda device: "")
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "queue.py").write_text((Path(os.__file__).parent / "queue.py").read_text())
    return folder


def _fit(text: Path, run: Path, *settings: str, leaves_at: int | None = None) -> tuple[Any, list[float]]:
    losses = Losses(leaves_at)
    lines = [line.replace("TEXT", str(text)) for line in [*SETTINGS, *settings]]
    trainer = Trainer(load_config(None, lines, environment={}), run=run, monitors=[losses])
    trainer.fit()
    return trainer.model, losses.values


def _tensors(run: Path) -> dict[str, torch.Tensor]:
    found = latest(run)
    assert found is not None
    return dict(read_tensors(found.path, ""))


def test_it_learns_and_resumes_to_the_same_bits(text: Path, tmp_path: Path) -> None:
    _, losses = _fit(text, tmp_path / "a")
    assert losses[-1] < 0.85 * losses[0]
    with pytest.raises(KeyboardInterrupt):
        _fit(text, tmp_path / "b", leaves_at=6)
    _fit(text, tmp_path / "b")
    whole, resumed = _tensors(tmp_path / "a"), _tensors(tmp_path / "b")
    scaling = {name for name in whole if name.startswith("scaling/")}
    parts = ("attention.qkv", "attention.output", "feed_forward.up", "feed_forward.down")
    assert scaling == {f"scaling/blocks.0.{part}" for part in parts}
    assert all(whole[name].shape == (3, 4) and bool((whole[name] > 0).all()) for name in scaling)
    trained = [name for name in whole if name.startswith(("model/", "optimizer/", "scaling/"))]
    assert all(torch.equal(whole[name], resumed[name]) for name in trained)


def test_a_run_in_bf16_goes_on_in_fp8(text: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _fit(text, tmp_path / "run", "training.precision={name: bf16, parameters: bf16}", leaves_at=6)
    lines = [line.replace("TEXT", str(text)) for line in SETTINGS]
    Trainer(load_config(None, lines, environment={}), run=tmp_path / "run", accept_drift=True).fit()
    assert (_tensors(tmp_path / "run")["scaling/blocks.0.attention.qkv"] > 0).all()


def _step() -> Step:
    config = DecoderConfig.model_validate({"num_layers": 2, "hidden_size": 32, "num_heads": 2})
    model = build_model(config, vocabulary_size=VOCABULARY, sequence_length=LENGTH, seed=3)
    step = make_step(model=model, precision=Fp8(), parameters=torch.bfloat16)
    step.scaling = prepare_fp8(model, 4, 0)
    return step


def _state(step: Step) -> dict[str, torch.Tensor]:
    assert step.scaling is not None
    state = {f"weight/{name}": tensor.clone() for name, tensor in step.optimizer.storage.weights.items()}
    return state | {name: tensor.clone() for name, tensor in step.scaling.state().items()}


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def test_before_the_first_step_maxima_are_found() -> None:
    """Their gradients of 1e-5 would all be 0 at a scale of 1, and the step would not move the weights."""
    step = _step()
    assert step.scaling is not None
    step.run([make_batch(8, 0), make_batch(8, 1)], 1)
    history = step.scaling.state()["blocks.0.attention.qkv"]
    assert (history[:, :2] > 0).all()  # the calibration and the step
    assert (history[::2, 2:] == 0).all()
    step.run([make_batch(8, 2), make_batch(8, 3)], 2)
    assert (step.scaling.state()["blocks.0.attention.qkv"][::2, :3] > 0).all()
    assert (step.scaling.state()["blocks.0.attention.qkv"][::2, 3] == 0).all()


def test_its_gradient_is_near_that_of_bf16() -> None:
    narrow = _step()
    assert narrow.scaling is not None
    batch = make_batch(16, 0)
    narrow.run([batch], 1)
    gradients = []
    for measures in (True, False):
        narrow.begin()
        if measures:
            with narrow.scaling.measuring():
                narrow.accumulate(batch)
        else:
            narrow.accumulate(batch)
        gradients.append(torch.cat([g.flatten().float().clone() for g in narrow.optimizer.storage.gradients.values()]))
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert 0.99 < float(cosine) < 0.99999


def test_a_skipped_step_changes_nothing() -> None:
    step = _step()
    step.run([make_batch(8, 0)], 1)
    before = _state(step)
    narrow = step.model.get_submodule("blocks.0.feed_forward.up").narrow_FD.float()  # type: ignore[union-attr,operator]
    norm = step.model.get_submodule("final_norm").weight
    with torch.no_grad():
        kept = norm.clone()
        norm[0] = math.nan  # type: ignore[index]
    step.run([make_batch(8, 1)], 2)
    assert _same(before, {**_state(step), "weight/final_norm.weight": before["weight/final_norm.weight"]})
    with torch.no_grad():
        norm.copy_(kept)  # type: ignore[operator,arg-type]
    assert torch.equal(step.model.get_submodule("blocks.0.feed_forward.up").narrow_FD.float(), narrow)  # type: ignore[union-attr,operator]
    step.run([make_batch(8, 2)], 3)
    assert not _same(before, _state(step))


def test_a_held_update_leaves_the_history() -> None:
    """As capture warms up: programs run, `held` is put back, and the next step is what it would have been."""
    plain, warmed = _step(), _step()
    for step in (plain, warmed):
        step.run([make_batch(8, 0)], 1)
    kept = held(warmed)
    warmed.holds.fill_(1.0)
    for _ in range(3):
        warmed.begin()
        warmed.accumulate_program(make_batch(8, 5))
        warmed.update_program(True)
    warmed.begin()
    warmed.holds.zero_()
    for tensor, before in kept:
        tensor.copy_(before)
    assert _same(_state(plain), _state(warmed))
    for step in (plain, warmed):
        step.run([make_batch(8, 1)], 2)
    assert _same(_state(plain), _state(warmed))


def test_the_maxima_of_a_step_are_those_of_all_its_micro_batches() -> None:
    whole, parts = _step(), _step()
    batches = [make_batch(8, 1), make_batch(8, 2)]
    for step in (whole, parts):
        assert step.scaling is not None
        step.run([make_batch(8, 0)], 1)
    for batch in batches:
        whole.begin()
        whole.accumulate(batch)
    parts.begin(in_parts=True)
    seen = []
    for batch in batches:
        parts.accumulate(batch, 0.5)
        seen.append(float(parts.model.get_submodule("blocks.1.feed_forward.down").largest_input))  # type: ignore[arg-type]
    alone = float(whole.model.get_submodule("blocks.1.feed_forward.down").largest_input)  # type: ignore[arg-type]
    assert seen[1] == max(seen[0], alone)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["training.device=cpu"], "fp8 is for NVIDIA GPUs since Ada and Hopper, and training.device is cpu"),
        (["training.quantize={name: int8}"], "fp8 narrows bf16 weights, and training.quantize int8"),
        (["optimizer={name: adamw_8bit, learning_rate: 1e-3}"], "optimizer.name adamw_8bit keeps them in fp32"),
        (["model={name: custom, target: 'a:b'}"], "for trimtab's own transformers, and model.name is custom"),
        (["model={name: hugging_face, path: x}"], "for trimtab's own transformers, and model.name is hugging_face"),
        (["model.freeze=['embedding*']"], "model.freeze leaves some untrained"),
        (["model.hidden_size=40", "model.num_heads=4"], "multiples of 16. model.hidden_size: 40"),
        (["model.feed_forward_size=100"], "multiples of 16. model.feed_forward_size: 100"),
        (
            ["model.hidden_size=48", "model.num_heads=12", "model.num_kv_heads=1"],
            "model.num_kv_heads: the width of queries, keys and values: 56",
        ),
        (["training.precision.history=0"], "training.precision"),
    ],
)
def test_what_does_not_go_with_it_is_refused(settings: list[str], told: str) -> None:
    base = ["training.precision.name=fp8", "model={name: decoder}"]
    with pytest.raises(ConfigError) as refused:
        load_config(None, [*base, *settings], environment={})
    assert told in str(refused.value)


def test_a_device_without_it_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"this device is a CPU. Received: 'fp8'") as refused:
        set_products(Fp8(), torch.device("cpu"))
    assert "bf16" in str(refused.value.hint)
