"""What a model computes right after an adjustment: as if it had been built with the new rate, without a rebuild."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trimtab.config import DecoderConfig
from trimtab.model import build_model, set_dropout_factor
from trimtab.model.dropout import Dropout
from trimtab.objective import BinaryCrossEntropy, CrossEntropy
from trimtab.signals import IGNORED, LossTerms


def test_dropout_keeps_its_expectation_right_after_an_adjustment() -> None:
    """The mean over many draws is the input, before and after, and the share of zeros is the new rate at once."""
    dropout = Dropout(0.1)
    x = torch.full((400_000,), 3.0)
    for factor, rate in ((1.0, 0.1), (2.5, 0.25), (0.0, 0.0), (3.0, 0.3)):
        set_dropout_factor(dropout, factor)
        torch.manual_seed(0)
        y = dropout(x)
        assert y.mean().item() == pytest.approx(3.0, rel=5e-3)
        assert (y == 0).float().mean().item() == pytest.approx(rate, abs=3e-3)


def test_an_adjusted_model_is_one_built_with_those_rates() -> None:
    tokens = torch.randint(0, 31, (4, 8), generator=torch.Generator().manual_seed(0))

    def output(rate: float, factor: float) -> torch.Tensor:
        dropout = {"embedding": rate, "attention": rate, "residual": rate, "feed_forward": rate}
        config = DecoderConfig.model_validate({"num_layers": 2, "hidden_size": 16, "num_heads": 2, "dropout": dropout})
        model = build_model(config, vocabulary_size=31, sequence_length=8, seed=1).train()
        set_dropout_factor(model, factor)
        torch.manual_seed(3)
        zeros = torch.zeros(4, 8, dtype=torch.int32)
        positions = torch.arange(8, dtype=torch.int32).expand(4, 8)
        given: Any = model(tokens_BT=tokens, positions_BT=positions, document_ids_BT=zeros)
        return given.logits

    torch.testing.assert_close(output(0.2, 1.5), output(0.3, 1.0))
    assert not torch.allclose(output(0.2, 1.5), output(0.2, 1.0))


def test_adjusting_neither_breaks_nor_rebuilds_a_compiled_part() -> None:
    """One graph, compiled once, whatever the factors."""
    graphs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout, self.score = Dropout(0.2), CrossEntropy(0.1, z_loss=1e-3)

        def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            terms = self.score(self.dropout(logits), targets).terms
            return torch.stack([term.sum * term.weight for term in terms]).sum()

    part = Part().train()
    compiled: Any = torch.compile(part, backend=backend, fullgraph=True)
    logits, targets = torch.randn(32, 7, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 7
    for factor in (1.0, 2.0, 0.5, 0.0):
        set_dropout_factor(part, factor)
        part.score.set_smoothing_factor(factor)
        torch.manual_seed(1)
        given = compiled(logits, targets)
        torch.manual_seed(1)
        torch.testing.assert_close(given, part(logits, targets))
    assert len(graphs) == 1


def _total(terms: LossTerms) -> torch.Tensor:
    return torch.stack([term.sum * term.weight for term in terms.terms]).sum()


@settings(deadline=None, max_examples=30)
@given(
    smoothing=st.floats(0.01, 0.6),
    factor=st.floats(0.0, 5.0),
    spread=st.sampled_from(["all", "others"]),
    weighted=st.booleans(),
    fused=st.booleans(),
)
def test_adjusted_smoothing_is_that_of_a_loss_built_with_it(
    smoothing: float, factor: float, spread: Any, weighted: bool, fused: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    features, weight = torch.randn(20, 6, generator=generator), torch.randn(9, 6, generator=generator)
    targets = torch.randint(0, 9, (20,), generator=generator)
    targets[3] = IGNORED
    classes = [1.0 + 0.1 * index for index in range(9)] if weighted and not fused else None

    def judged(start: float, times: float) -> tuple[torch.Tensor, torch.Tensor]:
        loss = CrossEntropy(start, spread, z_loss=0.01, class_weights=classes)
        loss.set_smoothing_factor(times)
        x = features.clone().requires_grad_()
        total = _total(loss.of_features(x, weight, targets) if fused else loss(x @ weight.t(), targets))
        (gradient,) = torch.autograd.grad(total, x)
        return total.detach(), gradient

    wanted = min(0.95, smoothing * factor)
    for given_value, expected in zip(judged(smoothing, factor), judged(max(wanted, 1e-12), 1.0), strict=True):
        torch.testing.assert_close(given_value, expected)


def test_smoothing_of_labels_decided_one_by_one_is_adjusted_too() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    targets = (logits > 0.3).float()
    loss = BinaryCrossEntropy(0.1)
    loss.set_smoothing_factor(2.0)
    torch.testing.assert_close(_total(loss(logits, targets)), _total(BinaryCrossEntropy(0.2)(logits, targets)))
    loss.set_smoothing_factor(0.0)
    torch.testing.assert_close(_total(loss(logits, targets)), _total(BinaryCrossEntropy()(logits, targets)))


def test_bounds() -> None:
    loss = CrossEntropy(0.5)
    loss.set_smoothing_factor(5.0)
    assert loss.smoothing.item() == 0.95
    high = CrossEntropy(0.97)
    high.set_smoothing_factor(1.0)
    assert high.smoothing.item() == 0.97, "what is configured stays"
    with pytest.raises(ValueError, match="negative"):
        loss.set_smoothing_factor(-1.0)
