"""Layers that compute as if they were quantized, and then are: against plain arithmetic, on disk, and in a run."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trimtab import LanguageModelTrainer, load_config
from trimtab.cli import main
from trimtab.config import DecoderConfig, EncoderDecoderConfig, Int4Quantization, Int8Quantization
from trimtab.errors import CheckpointError, ConfigError, DriftError, UsageError
from trimtab.events import ArtifactLogged, Event, StepsEnded
from trimtab.model import build_model
from trimtab.model.quantize import (
    load_quantized,
    prepare_quantization,
    quantized_copy,
    quantized_tensors,
    set_rounding,
    without_quantization,
)
from trimtab.runs import RunDirectory
from trimtab.training.checkpoint import read_tensors
from trimtab.training.trained import open_trained

pytest.importorskip("torchao", reason="needs the extra lowbit")

BOTH = [Int8Quantization(), Int4Quantization(group_size=8)]
ALL = [*BOTH, Int8Quantization(activations="float"), Int4Quantization(activations="float", group_size=16)]


def _id(config: Any) -> str:
    return f"{config.name} {config.activations}"


def _decoder(seed: int = 1) -> nn.Module:
    shape = {"num_layers": 2, "hidden_size": 32, "num_heads": 2, "bias": True}
    return build_model(DecoderConfig.model_validate(shape), vocabulary_size=37, sequence_length=16, seed=seed).eval()


TOKENS = torch.randint(0, 37, (3, 16), generator=torch.Generator().manual_seed(0))


def _rounded(weight: torch.Tensor, bits: int, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Symmetric rounding, in float64; the scale of each value; and which is the largest of its group.

    The largest value falls on a tie, half a step beyond the largest integer: it may come down on either side.
    """
    grouped = weight.double().reshape(weight.shape[0], -1, group)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    largest = grouped.abs().amax(-1, keepdim=True)
    scale = largest / ((high - low) / 2)
    rounded = (grouped / scale).round().clamp(low, high) * scale
    parts = rounded, scale.expand_as(grouped), grouped.abs() == largest
    return tuple(part.reshape(weight.shape) for part in parts)  # type: ignore[return-value]


@pytest.mark.parametrize("bits,config", [(8, ALL[2]), (4, ALL[3])], ids=["int8", "int4"])
def test_weights_are_rounded_as_by_hand(bits: int, config: Any) -> None:
    model = _decoder()
    prepare_quantization(model, config)
    layer: Any = model.get_submodule("blocks.1.feed_forward.up")
    used = layer(torch.eye(32)).T.double() - layer.bias.double()[:, None]
    rounded, scale, is_largest = _rounded(layer.weight.detach(), bits, 16 if bits == 4 else 32)
    assert int(is_largest.sum()) == 128 * (32 // (16 if bits == 4 else 32))
    assert torch.allclose(used[~is_largest], rounded[~is_largest], rtol=1e-5, atol=1e-7)
    assert bool(((used - rounded).abs() <= 1.001 * scale).all())


@pytest.mark.parametrize("config", ALL, ids=_id)
def test_quantized_it_computes_what_training_computed(config: Any) -> None:
    model = _decoder()
    plain = model(TOKENS).logits
    names = prepare_quantization(model, config)
    rounded = model(TOKENS).logits
    converted = quantized_copy(model, config)
    assert torch.equal(converted(TOKENS).logits, rounded)
    assert not torch.allclose(rounded, plain, atol=1e-4)
    with without_quantization(model):
        assert torch.equal(model(TOKENS).logits, plain)
    assert torch.equal(model(TOKENS).logits, rounded)
    assert sorted(names) == sorted(
        f"blocks.{i}.{part}"
        for i in (0, 1)
        for part in ("attention.qkv", "attention.output", "feed_forward.up", "feed_forward.down")
    )


@pytest.mark.parametrize("config", ALL, ids=_id)
def test_on_disk_it_is_integers_and_comes_back_to_the_bit(config: Any) -> None:
    model = _decoder()
    prepare_quantization(model, config)
    converted = quantized_copy(model, config)
    tensors = quantized_tensors(converted)
    weight = "quantized/blocks.0.feed_forward.up.weight"
    bits = 4 if isinstance(config, Int4Quantization) else 8
    assert tensors[f"{weight}/values"].dtype == (torch.uint8 if bits == 4 else torch.int8)
    assert tensors[f"{weight}/values"].nbytes == 128 * 32 * bits // 8
    again = _decoder(seed=9)
    prepare_quantization(again, config)
    loaded = load_quantized(again, config, tensors)
    assert torch.equal(loaded(TOKENS).logits, converted(TOKENS).logits)
    del tensors["model/embedding.weight"]
    with pytest.raises(CheckpointError, match=r"embedding\.weight"):
        load_quantized(again, config, tensors)


def test_gradients_pass_through_the_rounding() -> None:
    """The straight-through estimator: that of a layer's weight is what it is with the rounded weight and input."""
    config = Int8Quantization()
    model = _decoder()
    prepare_quantization(model, config)
    layer = model.get_submodule("blocks.0.feed_forward.up")
    assert isinstance(layer, nn.Linear)
    x = torch.randn(7, 32, generator=torch.Generator().manual_seed(2))
    given = torch.randn(7, 128, generator=torch.Generator().manual_seed(3))
    layer(x).backward(given)
    assert layer.weight.grad is not None
    read: Any = layer.activation_fake_quantizer
    expected = given.T @ read(x).detach()
    stopped = layer.weight.grad == 0.0
    assert torch.allclose(layer.weight.grad[~stopped], expected[~stopped], rtol=1e-4, atol=1e-5)
    _, _, is_largest = _rounded(layer.weight.detach(), 8, 32)
    assert bool((is_largest | ~stopped).all()), "only what lies beyond the largest integer is held back"


def test_until_it_starts_training_does_not_round_and_evaluation_does() -> None:
    model, plain = _decoder(), _decoder()
    prepare_quantization(model, BOTH[1])
    set_rounding(model, in_training=False)
    rounded = model(TOKENS).logits
    assert not torch.equal(rounded, plain(TOKENS).logits)
    assert torch.equal(model.train()(TOKENS).logits, plain.train()(TOKENS).logits)
    set_rounding(model, in_training=True)
    assert torch.equal(model(TOKENS).logits, rounded)
    assert torch.equal(quantized_copy(model, BOTH[1]).eval()(TOKENS).logits, rounded)


def test_a_run_rounds_from_its_start_on(tmp_path: Path) -> None:
    """Up to there its losses are those of a run without; from the next step on they are others."""
    losses = []
    for run, quantize in (("plain", {"name": "none"}), ("late", {"name": "int4", "group_size": 8, "start": 12})):
        trainer = _trainer(tmp_path, run, quantize)
        trainer.fit()
        told = [e.per_step["train/loss"] for e in trainer.remembers.events if isinstance(e, StepsEnded)]
        losses.append([float(loss) for part in told for loss in part])
    assert losses[0][:12] == losses[1][:12]
    assert all(a != b for a, b in zip(losses[0][12:], losses[1][12:], strict=True))


def test_encoder_and_decoder_take_part() -> None:
    shape = {"num_layers": 1, "hidden_size": 32, "num_heads": 2}
    config = EncoderDecoderConfig.model_validate(shape)
    model = build_model(config, vocabulary_size=37, sequence_length=16, seed=0)
    names = prepare_quantization(model, Int8Quantization())
    assert {name.partition(".")[0] for name in names} == {"encoder", "decoder"}
    assert any("memory_attention" in name for name in names)


class Remembers:
    def __init__(self, stop_at: int = 0) -> None:
        self.events: list[Event] = []
        self.stop_at = stop_at

    def observe(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, StepsEnded) and event.last_step == self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def _trainer(tmp_path: Path, run: str, quantize: dict[str, Any], *, stop_at: int = 0, **changes: Any) -> Any:
    source = tmp_path / "text.txt"
    source.write_text((Path(os.__file__).parent / "heapq.py").read_text())
    settings: dict[str, Any] = {
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": 16,
        "model": {"name": "decoder", "num_layers": 1, "hidden_size": 32, "num_heads": 2},
        "optimizer.learning_rate": 3e-3,
        "training.steps": 30,
        "training.micro_batch_size": 8,
        "training.threads": 1,
        "training.device": "cpu",
        "training.compile": "off",
        "training.quantize": quantize,
        "evaluation": {"every": 10, "max_tokens": 512, "gap_tokens": 0, "yardsticks": False},
        "stopping": {"name": "none"},
    }
    remembers = Remembers(stop_at)
    trainer = LanguageModelTrainer(
        source, settings={**settings, **changes}, run=tmp_path / run, progress=False, monitors=[remembers]
    )
    trainer.remembers = remembers
    return trainer


@pytest.mark.parametrize("quantize", [{"name": "int8"}, {"name": "int4", "group_size": 8}], ids=["int8", "int4"])
def test_a_run_writes_the_quantized_model_and_the_loss_of_both(
    tmp_path: Path, quantize: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = _trainer(tmp_path, "run", quantize)
    result = trainer.fit()
    found = json.loads((tmp_path / "run/quantized/checkpoint.json").read_text())
    floating, small = found["float_metrics"]["validation/loss"], found["metrics"]["validation/loss"]
    assert small == pytest.approx(result.metrics["validation/loss"], rel=1e-6), "training judged what it would become"
    assert floating != small
    assert small == pytest.approx(floating, rel=0.05)
    assert small < 5.0
    size = (tmp_path / "run/quantized/tensors.safetensors").stat().st_size
    assert found["bytes"] < size < found["bytes"] + 20_000
    (told,) = [e for e in trainer.remembers.events if isinstance(e, ArtifactLogged) and e.name == "quantized"]
    assert f"validation loss {floating:.4f} in float, {small:.4f} quantized" in told.text
    opened = open_trained(tmp_path / "run", quantized=True)
    assert (opened.checkpoint.step, opened.checkpoint.path.name) == (30, "quantized")
    judged = opened.model
    with pytest.raises(UsageError, match="one quantized model"):
        open_trained(tmp_path / "run", "20", quantized=True)
    logits = judged(TOKENS).logits
    assert torch.equal(
        logits,
        quantized_copy(trainer.model.eval(), load_config(tmp_path / "run/config.yaml").training.quantize)(
            TOKENS
        ).logits,
    )
    with pytest.raises(SystemExit) as ended:
        _main("evaluate", str(tmp_path / "run"), "--quantized", "--json")
    assert ended.value.code in (None, 0)
    said = json.loads(capsys.readouterr().out)
    assert said["metrics"]["validation/loss"] == pytest.approx(small, rel=1e-6)


def test_the_quantized_model_is_of_the_weights_that_the_run_chose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = "validation/loss@ema"
    averaged = {"averaging": {"name": "ema", "decay": 0.9}, "checkpoint.metric": metric}
    _trainer(tmp_path, "run", {"name": "int8"}, **averaged).fit()
    assert json.loads((tmp_path / "run/quantized/checkpoint.json").read_text())["weights"] == "ema"
    assert open_trained(tmp_path / "run", quantized=True).weights == "ema"
    with pytest.raises(SystemExit):
        _main("evaluate", str(tmp_path / "run"), "--quantized", "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["weights"] == "ema"
    assert metric in said["metrics"]
    _trainer(tmp_path, "plain", {"name": "int8"}, averaging=averaged["averaging"]).fit()
    assert open_trained(tmp_path / "plain", quantized=True).weights == "plain"


@pytest.mark.parametrize(
    "changes",
    [
        {"averaging": {"name": "ema", "decay": 0.9}, "checkpoint.metric": "validation/loss@ema"},
        pytest.param({"stopping": {"name": "patience", "patience": 1, "restore_best": True}}, marks=pytest.mark.slow),
        pytest.param({"optimizer.name": "schedule_free_adamw"}, marks=pytest.mark.slow),
    ],
    ids=["average", "restored", "schedule_free"],
)
def test_a_crash_after_the_last_step_leaves_nothing_undone(
    tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "stopping" in changes:
        changes = {**changes, "optimizer.learning_rate": 30.0, "schedule": {"name": "constant"}}  # it grows worse
    int8 = {"name": "int8"}
    whole = _trainer(tmp_path, "whole", int8, **changes).fit()
    with monkeypatch.context() as patch:
        patch.setattr("trimtab.closing.write_quantized", _killed)
        with pytest.raises(KeyboardInterrupt):
            _trainer(tmp_path, "run", int8, **changes).fit()
    run = tmp_path / "run"
    assert RunDirectory(run).status() == whole.status
    judged = json.loads((tmp_path / "whole/quantized/checkpoint.json").read_text())["step"]
    assert (judged < whole.step) == ("stopping" in changes)
    assert not (run / "quantized").exists()
    shutil.copytree(run, tmp_path / "other")
    with pytest.raises(SystemExit) as ended:
        _main("resume", str(run))
    assert ended.value.code in (None, 0)
    assert "what is left to do: quantized, report" in capsys.readouterr().err
    expected, found = (json.loads((one / "quantized/checkpoint.json").read_text()) for one in (tmp_path / "whole", run))
    for name in ("step", "weights", "metrics", "float_metrics", "layers", "bytes"):
        assert found[name] == expected[name], name
    ours, theirs = (read_tensors(one / "quantized", "") for one in (run, tmp_path / "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (run / "report.html").exists()
    # Nothing is left, and a second time that is said.
    with pytest.raises(SystemExit):
        _main("resume", str(run))
    assert "is already" in capsys.readouterr().out
    # The same from Python, where another text would be another run.
    again = _trainer(tmp_path, "other", int8, **changes)
    result = again.fit()
    assert (result.status, result.step, result.metrics) == (whole.status, whole.step, whole.metrics)
    assert (tmp_path / "other/quantized/manifest.json").exists()
    shutil.rmtree(tmp_path / "other/quantized")
    other = _trainer(tmp_path, "other", int8, **changes)
    (tmp_path / "text.txt").write_text("def other(): pass\n" * 400)
    with pytest.raises(DriftError, match=r"data\.fingerprint"):
        other.fit()
    assert not (tmp_path / "other/quantized").exists()


def test_a_report_that_was_not_written_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, nothing = tmp_path / "run", {"name": "none"}
    with monkeypatch.context() as patch:
        patch.setattr("trimtab.closing.write_report", _killed)
        with pytest.raises(KeyboardInterrupt):
            _trainer(tmp_path, "run", nothing).fit()
    (run / "report.html").write_text("of an earlier attempt")
    os.utime(run / "report.html", (1, 1))
    assert _trainer(tmp_path, "run", nothing).fit().diagnosis is not None
    assert "<html" in (run / "report.html").read_text()
    with pytest.raises(UsageError, match="already finished"):
        _trainer(tmp_path, "run", nothing).fit()


def _killed(*given: Any) -> None:
    raise KeyboardInterrupt


def _main(*arguments: str) -> None:
    before, sys.argv = sys.argv, ["trimtab", *arguments]
    try:
        main()
    finally:
        sys.argv = before


def compiled_by(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let modules compile with another back-end of torch.compile: what it traces and guards is the same."""
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **given: compile_(self, **given, backend=backend))


def test_compiled_code_follows_the_flags_that_layers_round_by(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_by("eager", monkeypatch)
    models = [_decoder(), _decoder()]
    for model in models:
        prepare_quantization(model.train(), BOTH[0])
    for block in models[1].all_blocks:
        block.compile(dynamic=False)
    seen = []
    for in_training in (False, True, False, True):
        for model in models:
            set_rounding(model, in_training=in_training)
        logits = [model(TOKENS).logits for model in models]
        assert torch.allclose(*logits, atol=1e-6), in_training
        seen.append(logits[1])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])
    with without_quantization(models[1]):
        assert torch.allclose(models[1](TOKENS).logits, seen[0], atol=1e-6)
    rounded = models[1].eval()(TOKENS).logits
    assert torch.allclose(rounded, models[0].eval()(TOKENS).logits, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("scope,backend", [("on", "aot_eager"), ("whole", "aot_eager"), ("on", "inductor")])
def test_compiled_it_begins_to_round_where_it_does_uncompiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str, backend: str
) -> None:
    """Whether layers round is a flag in Python, which compiled code must follow: from step 4 on, and in evaluations."""
    compiled_by(backend, monkeypatch)
    changes = {"training.steps": 8, "evaluation.every": 4, "logging.every": 2}
    losses, metrics, kept = {}, {}, {}
    for name, how in (("eager", "off"), ("compiled", scope)):
        trainer = _trainer(tmp_path, name, {"name": "int8", "start": 4}, **changes, **{"training.compile": how})
        metrics[name] = trainer.fit().metrics["validation/loss"]
        told = [e.per_step["train/loss"] for e in trainer.remembers.events if isinstance(e, StepsEnded)]
        losses[name] = np.concatenate(told)
        kept[name] = json.loads((tmp_path / name / "quantized/checkpoint.json").read_text())
    plain = _trainer(tmp_path, "plain", {"name": "none"}, **changes)
    plain.fit()
    told = [e.per_step["train/loss"] for e in plain.remembers.events if isinstance(e, StepsEnded)]
    unrounded = np.concatenate(told)
    assert losses["compiled"] == pytest.approx(losses["eager"], rel=1e-5)
    assert losses["compiled"][:4] == pytest.approx(unrounded[:4], rel=1e-6)
    assert np.abs(losses["compiled"][4:] - unrounded[4:]).max() > 2e-5
    assert metrics["compiled"] == pytest.approx(metrics["eager"], rel=1e-4)
    for which in ("metrics", "float_metrics"):
        assert kept["compiled"][which] == pytest.approx(kept["eager"][which], rel=1e-3), which
    assert kept["compiled"]["layers"] == kept["eager"]["layers"]


def test_it_resumes_to_the_same_bits(tmp_path: Path) -> None:
    late = {"name": "int8", "start": 15}
    whole = _trainer(tmp_path, "whole", late)
    whole.fit()
    with pytest.raises(KeyboardInterrupt):
        _trainer(tmp_path, "run", late, stop_at=20).fit()
    assert not (tmp_path / "run/quantized").exists()
    with pytest.raises(UsageError, match="no quantized model yet"):
        open_trained(tmp_path / "run", quantized=True)
    again = _trainer(tmp_path, "run", late)
    again.fit()
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    one, other = (tmp_path / name / "quantized/tensors.safetensors" for name in ("whole", "run"))
    assert one.read_bytes() == other.read_bytes()


def test_with_bf16_products_it_learns_too(tmp_path: Path) -> None:
    result = _trainer(tmp_path, "run", {"name": "int8"}, **{"training.precision": {"name": "bf16"}}).fit()
    found = json.loads((tmp_path / "run/quantized/checkpoint.json").read_text())
    assert found["metrics"]["validation/loss"] == pytest.approx(result.metrics["validation/loss"], rel=2e-2)


@pytest.mark.parametrize(
    "overrides,message",
    [
        (["training.quantize={name: int4, group_size: 48}"], r"model\.hidden_size 128 is no whole number of groups"),
        (
            ["training.quantize.name=int8", "training.precision={name: bf16, parameters: bf16}"],
            r"rounds fp32 weights",
        ),
        (["training.quantize={name: int8, start: 1.0}"], "leaves no step in which to round"),
        (["training.quantize.name=int8", "model={name: custom, target: 'a:b'}"], r"trimtab's own transformers"),
    ],
)
def test_what_cannot_be_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("gpt-1m", overrides, environment={})


def test_a_run_that_was_not_trained_for_it_says_so(tmp_path: Path) -> None:
    _trainer(tmp_path, "run", {"name": "none"}, **{"training.steps": 2}).fit()
    with pytest.raises(UsageError, match="was not trained for a quantized model"):
        open_trained(tmp_path / "run", quantized=True)


def test_without_torchao_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ConfigError, match="needs torchao") as caught:
        prepare_quantization(_decoder(), Int8Quantization())
    assert "trimtab[lowbit]" in str(caught.value.hint)


def test_checking_a_configuration_tells_it_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchao" else there(name))
    with pytest.raises(SystemExit) as ended:
        _main("check", "gpt-1m", "training.quantize.name=int8")
    assert ended.value.code == 2
    assert "training.quantize.name=int8: needs torchao" in capsys.readouterr().err
