"""The names that serve a loop of one's own, against torch and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import trimtab
from trimtab.optimizer import parameter_groups
from trimtab.training import summed_cross_entropy


class Layered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, 6)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)) for _ in range(2))
        self.head = nn.Linear(6, 11)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = x + layer(x)
        logits: torch.Tensor = self.head(x)
        return logits


def test_groups_in_torchs_form() -> None:
    model = Layered()
    decay, exempt = trimtab.get_parameter_groups(model, 0.1)
    assert (decay["weight_decay"], exempt["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim == 2 for p in decay["params"])
    assert all(p.ndim == 1 for p in exempt["params"])
    assert "lr" not in decay
    optimizer = torch.optim.AdamW(trimtab.get_parameter_groups(model, 0.1, learning_rate=0.01, layer_decay=0.5))
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate[id(model.head.weight)] == 0.01
    assert rate[id(model.layers[1][0].weight)] == 0.005
    assert rate[id(model.embedding.weight)] == 0.00125
    assert len(rate) == len(list(model.parameters()))
    with pytest.raises(ValueError, match="layer_decay is a factor on learning_rate"):
        trimtab.get_parameter_groups(model, layer_decay=0.5)
    with pytest.raises(ValueError, match=r"layer_decay needs a model with an nn\.ModuleList"):
        trimtab.get_parameter_groups(model.head, learning_rate=0.1, layer_decay=0.5)


def test_cosine_with_warmup_of_groups_with_rates_of_their_own() -> None:
    weights = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    optimizer = torch.optim.SGD([{"params": [w], "lr": lr} for w, lr in zip(weights, (0.1, 0.2, 0.005), strict=True)])
    scheduler = trimtab.CosineAnnealingWarmupScheduler(optimizer, warmup_steps=4, total_steps=20, min_lr=0.01)
    rates = []
    for _ in range(20):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert [row[0] for row in rates[:4]] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    for step in range(4, 20):
        part = 0.5 * (1 + math.cos(math.pi * (step - 3) / 16))
        expected = [0.01 + 0.09 * part, 0.01 + 0.19 * part, 0.005]
        assert rates[step] == pytest.approx(expected)
    assert rates[-1] == pytest.approx([0.01, 0.01, 0.005])


def test_the_scheduler_goes_on_where_it_was() -> None:
    def make() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
        return optimizer, trimtab.CosineAnnealingWarmupScheduler(optimizer, 2, 10)

    (a, first), (b, second) = make(), make()
    for _ in range(5):
        a.step()
        first.step()
    b.load_state_dict(a.state_dict())
    second.load_state_dict(first.state_dict())
    for optimizer, scheduler in ((a, first), (b, second)):
        optimizer.step()
        scheduler.step()
    assert a.param_groups[0]["lr"] == b.param_groups[0]["lr"]
    assert second.last_epoch == 6


@pytest.mark.parametrize("lengths", [(10, 10), (-1, 10), (3, 0)])
def test_lengths_that_do_not_fit_are_refused(lengths: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="warmup_steps must be at least 0"):
        trimtab.CosineAnnealingWarmupScheduler(torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1), *lengths)


def test_centralization_takes_each_rows_mean() -> None:
    model = nn.Linear(3, 2)
    trimtab.gradient_centralization(model)  # without gradients nothing happens
    model.weight.grad = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    model.bias.grad = torch.tensor([1.0, 3.0])
    trimtab.gradient_centralization(model)
    assert model.weight.grad.tolist() == [[-2.0, -1.0, 3.0], [-1.0, -1.0, 2.0]]
    assert model.bias.grad.tolist() == [1.0, 3.0]


def test_adaptive_clipping_is_relative_to_each_row() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.1]]))
    weight.grad = torch.tensor([[0.6, 0.8], [0.0, 2.0]])
    trimtab.adaptive_gradient_clipping([weight], 0.1)
    assert weight.grad.flatten().tolist() == pytest.approx([0.3, 0.4, 0.0, 0.01])
    trimtab.adaptive_gradient_clipping([weight], 10.0)
    assert weight.grad.flatten().tolist() == pytest.approx([0.3, 0.4, 0.0, 0.01])
    with pytest.raises(ValueError, match="threshold must be positive"):
        trimtab.adaptive_gradient_clipping([weight], 0.0)


def data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Seven batches of different sizes, one without a counted target."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for rows in (2, 5, 1, 3, 4, 2, 3):
        tokens, targets = (torch.randint(0, 11, (rows, 4), generator=generator) for _ in range(2))
        targets[torch.rand(rows, 4, generator=generator) < 0.4] = -100
        batches.append((tokens, targets))
    batches[2][1].fill_(-100)
    return batches


def test_accumulated_updates_are_those_of_the_joined_batches() -> None:
    model, plain = Layered(), Layered()
    optimizer, other = (torch.optim.AdamW(m.parameters(), lr=0.01) for m in (model, plain))
    losses = trimtab.train_with_gradient_accumulation(model, data(), optimizer, 3)
    expected = []
    for start in (0, 3, 6):
        tokens, targets = (torch.cat(parts) for parts in zip(*data()[start : start + 3], strict=True))
        loss = F.cross_entropy(plain(tokens).flatten(0, 1), targets.flatten())
        other.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        other.step()
        expected.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-5), "the rest at the end is an update, too"
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_batches_without_a_counted_target_update_nothing() -> None:
    model = Layered()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    empty = [(tokens, torch.full_like(targets, -100)) for tokens, targets in data()[:2]]
    assert trimtab.train_with_gradient_accumulation(model, empty, optimizer, 2) == []
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with pytest.raises(ValueError, match="accumulation_steps must be at least 1"):
        trimtab.train_with_gradient_accumulation(model, empty, optimizer, 0)
    assert float(summed_cross_entropy(torch.zeros(1, 2, 4), torch.tensor([[1, -100]]))) == pytest.approx(math.log(4))


def test_groups_are_those_of_the_trainer() -> None:
    model = Layered()
    ours = [group.name for group in parameter_groups(model, 0.1)]
    assert [group["name"] for group in trimtab.get_parameter_groups(model, 0.1)] == ours
