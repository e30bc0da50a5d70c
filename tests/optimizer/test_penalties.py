from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trimtab.config import load_config
from trimtab.errors import ConfigError
from trimtab.events import Event, StepsEnded
from trimtab.optimizer import AdamW, parameter_groups
from trimtab.optimizer.algorithms.sgd import sgd
from trimtab.optimizer.by_rule import RuleOptimizer
from trimtab.optimizer.parameter_groups import kinds
from trimtab.optimizer.penalties import L1Shrinkage, L2Penalty, PenaltySizes, penalized
from trimtab.signals import Gradients, StepSignals
from trimtab.trainer import Trainer


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3))


def _gradients(by_name: Mapping[str, Tensor], weights: Mapping[str, Tensor], scale: float = 1.0) -> Gradients:
    norms = torch.stack([g.float().norm() for g in by_name.values()]) * scale
    one = torch.tensor(scale)
    return Gradients(dict(by_name), norms, norms.norm(), one, torch.zeros(()), weights)


@pytest.mark.parametrize("scale", [1.0, 1.0 / 128.0])
def test_the_gradient_of_l2_is_that_of_the_penalized_loss(scale: float) -> None:
    """With fp16's loss scale taken out, too."""
    model, names = _model(), ["1.weight", "3.weight"]
    tokens = torch.tensor([[1, 2, 3]])
    loss = model(tokens).square().mean()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    plain = dict(zip(weights, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    penalty = sum(0.3 / 2 * dict(model.named_parameters())[name].square().sum() for name in names)
    whole = model(tokens).square().mean() + penalty
    expected = torch.autograd.grad(whole, list(model.parameters()))
    gradients = _gradients({name: g / scale for name, g in plain.items()}, weights, scale)
    L2Penalty(0.3, names).apply(gradients, {})
    for given_, true in zip(gradients.by_name.values(), expected, strict=True):
        torch.testing.assert_close(given_ * scale, true, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradients.total_norm, torch.cat([g.flatten() for g in expected]).norm())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=9), st.floats(0, 3), st.floats(0, 1))
def test_shrinkage_is_the_proximal_operator(values: list[float], strength: float, rate: float) -> None:
    """No other vector has a smaller ||v - w||²/2 + a lambda |v|: it is the minimum in each coordinate."""
    weight = torch.tensor(values, dtype=torch.float64)
    threshold = rate * strength
    shrunk = weight - weight.clamp(-threshold, threshold)
    expected = weight.sign() * (weight.abs() - threshold).clamp_min(0.0)
    torch.testing.assert_close(shrunk, expected)
    cost = (shrunk - weight).square() / 2 + threshold * shrunk.abs()
    for other in np.linspace(-2.5, 2.5, 41):
        assert bool((cost <= (other - weight).square() / 2 + threshold * abs(other) + 1e-12).all())


def _settings(rate: float) -> dict[str, Tensor]:
    return {"learning_rate": torch.tensor(rate), "weight_decay": torch.tensor(1.0)}


def test_weights_without_a_use_become_exactly_zero() -> None:
    """Least squares of two inputs of eight, by proximal gradient descent: as scikit-learn's Lasso solves it."""
    sklearn = pytest.importorskip("sklearn.linear_model")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 8))
    y = x[:, :1] * 3.0 - x[:, 1:2] * 2.0 + 0.1 * generator.normal(size=(200, 1))
    lasso = sklearn.Lasso(alpha=0.2, fit_intercept=False, tol=1e-10).fit(x, y[:, 0])
    model = nn.Linear(8, 1, bias=False)
    inner = RuleOptimizer([(group, sgd(0.0)) for group in parameter_groups(model, 0.0)])
    optimizer = L1Shrinkage(inner, 0.2, ["weight"])
    inputs, targets = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    for _ in range(400):
        optimizer.storage.zero_gradients()
        (0.5 * (model(inputs) - targets).square().mean()).backward()
        optimizer.storage.collect()
        optimizer.update(_gradients(optimizer.storage.gradients, optimizer.storage.weights), _settings(0.3))
    weight = optimizer.storage.weights["weight"][0].numpy()
    np.testing.assert_allclose(weight, lasso.coef_, atol=1e-4)
    assert (weight == 0).sum() == (lasso.coef_ == 0).sum() >= 4


def test_a_skipped_update_changes_nothing_and_narrow_weights_follow() -> None:
    model = _model()
    optimizer = L1Shrinkage(AdamW(parameter_groups(model, 0.0), compute_dtype=torch.bfloat16), 0.5, ["1.weight"])
    before = {name: w.clone() for name, w in optimizer.storage.weights.items()}
    gradients = _gradients(optimizer.storage.gradients, optimizer.storage.weights)
    gradients.skip = torch.ones(())
    optimizer.update(gradients, _settings(0.1))
    assert all(torch.equal(before[name], w) for name, w in optimizer.storage.weights.items())
    gradients.skip = torch.zeros(())
    optimizer.update(gradients, _settings(0.1))
    expected = before["1.weight"] - before["1.weight"].clamp(-0.05, 0.05)
    torch.testing.assert_close(optimizer.storage.weights["1.weight"], expected)
    assert torch.equal(before["3.weight"], optimizer.storage.weights["3.weight"])
    assert torch.equal(dict(model.named_parameters())["1.weight"], expected.to(torch.bfloat16))


def test_sizes_are_those_of_the_weights() -> None:
    weights = {"a": torch.tensor([0.0, -2.0, 1.0]), "b": torch.tensor([[0.0, 3.0]]), "c": torch.ones(5)}
    probe = PenaltySizes((0.1, ["a", "b"]), (0.5, ["b", "c"]))
    values = probe.read(StepSignals(_gradients(weights, weights), weights, {}))
    assert probe.columns == ("penalty/l1", "penalty/zero_fraction", "penalty/l2")
    assert values.tolist() == pytest.approx([0.6, 0.4, 0.25 * 14.0])


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("matrices", ["1.weight", "3.weight"]),
        ("all", ["0.weight", "1.weight", "1.bias", "2.weight", "2.bias", "3.weight", "3.bias"]),
        (["*.bias"], ["1.bias", "2.bias", "3.bias"]),
    ],
)
def test_what_is_penalized(chosen: Any, expected: list[str]) -> None:
    assert penalized(_model(), chosen, "penalties.l1.parameters") == expected
    assert set(expected) <= set(kinds(_model()))


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"penalties\.l1\.parameters: no trainable parameter"):
        penalized(_model(), ["blocks.*"], "penalties.l1.parameters")


def test_a_run_with_both_has_zeros_and_says_how_large_they_are(tmp_path: Path) -> None:
    """Interrupted in the middle, it ends in the same weights."""
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"word{number % 17} and {number % 5}" for number in range(3000)))
    given = [
        f"data.source={{name: text, path: {text}}}",
        "data.tokenizer={name: bytes}",
        "data.sequence_length=32",
        "model={name: decoder, num_layers: 1, hidden_size: 16, num_heads: 2}",
        "optimizer={name: sgd, learning_rate: 0.5, weight_decay: 0}",
        "penalties={l1: {strength: 3e-2, parameters: ['*.up.weight']}, l2: {strength: 1e-3}}",
        "lint.allow=[l1-in-language-model]",
        "training={steps: 20, micro_batch_size: 2, accumulation: 2, threads: 1}",
        "evaluation={every: 10, gap_tokens: 0, yardsticks: false, samples: {max_tokens: 0}}",
        "stopping={name: none}",
    ]

    class Sees:
        def __init__(self, leaves: int = 0) -> None:
            self.leaves, self.values = leaves, dict[str, float]()

        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded):
                self.values = dict(event.values)
                if self.leaves and event.last_step >= self.leaves:
                    raise KeyboardInterrupt

    sees = Sees()
    whole = Trainer(load_config(None, given), run=tmp_path / "whole", monitors=[sees])
    whole.fit()
    assert whole.model is not None
    up = dict(whole.model.named_parameters())["blocks.0.feed_forward.up.weight"]
    zeros = float((up == 0).float().mean())
    assert 0.05 < zeros < 1.0
    assert sees.values["penalty/zero_fraction"] == pytest.approx(zeros)
    assert sees.values["penalty/l1"] == pytest.approx(3e-2 * float(up.detach().abs().sum()), rel=1e-4)
    assert sees.values["penalty/l2"] > 0.0
    with pytest.raises(KeyboardInterrupt):
        Trainer(load_config(None, given), run=tmp_path / "cut", monitors=[Sees(10)]).fit()
    cut = Trainer(load_config(None, given), run=tmp_path / "cut")
    cut.fit()
    assert cut.model is not None
    for ours, theirs in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
