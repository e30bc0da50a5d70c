"""Who shares weight decay and rate: exemptions, factors from layer to layer, factors by pattern."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trimtab.config import DecoderConfig, EncoderDecoderConfig, load_config
from trimtab.config.registry import EXTRAS
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.errors import ConfigError
from trimtab.model import build_model
from trimtab.optimizer import (
    AdamW,
    Factors,
    FlatStorage,
    ForeignOptimizer,
    applied_rates,
    build_groups,
    build_optimizer,
    depths,
    left_over,
    parameter_groups,
)
from trimtab.optimizer.parameter_groups import hidden_matrices
from trimtab.signals import Gradients


def decoder(tied: bool = True) -> nn.Module:
    config = DecoderConfig.model_validate(
        {"num_layers": 3, "hidden_size": 8, "num_heads": 2, "tied_embeddings": tied, "bias": True}
    )
    return build_model(config, vocabulary_size=11, sequence_length=4, seed=0)


def test_without_factors_there_are_two_groups() -> None:
    decay, exempt = parameter_groups(decoder(), 0.1)
    assert (decay.name, decay.weight_decay, decay.rate) == ("decay", 0.1, 1.0)
    assert (exempt.name, exempt.weight_decay, exempt.rate) == ("no_decay", 0.0, 1.0)
    assert all(parameter.ndim == 2 for parameter in decay.parameters.values())
    assert all(parameter.ndim == 1 for parameter in exempt.parameters.values())


def test_depths_of_a_decoder() -> None:
    found = depths(decoder(tied=False))
    assert found["embedding.weight"] == 0
    assert {found[name] for name in found if name.startswith("blocks.1.")} == {2}
    assert found["final_norm.weight"] == found["head.weight"] == 4


def test_depths_take_the_longest_list_and_the_outermost() -> None:
    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(2, 2)
            self.layers = nn.ModuleList(nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]) for _ in range(2))
            self.out = nn.Linear(2, 2)

    found = depths(Stacked())
    assert (found["stem.bias"], found["layers.0.1.weight"], found["layers.1.0.weight"], found["out.bias"]) == (
        0,
        1,
        2,
        3,
    )


def encoder_decoder() -> nn.Module:
    shape = {"num_layers": 2, "hidden_size": 8, "num_heads": 2, "positions": {"name": "learned"}}
    config = EncoderDecoderConfig.model_validate(shape)
    return build_model(config, vocabulary_size=11, sequence_length=4, seed=0)


def test_an_encoder_and_a_decoder_have_layers_of_their_own() -> None:
    found = depths(encoder_decoder())
    for part in ("encoder", "decoder"):
        for layer in range(2):
            inside = {found[name] for name in found if name.startswith(f"{part}.blocks.{layer}.")}
            assert inside == {layer + 1}
        assert found[f"{part}.position_embedding.weight"] == 0
        assert found[f"{part}.final_norm.weight"] == 3
    assert found["encoder.embedding.weight"] == 0
    matrices = hidden_matrices(encoder_decoder())
    assert {name.partition(".")[0] for name in matrices} == {"encoder", "decoder"}
    assert "decoder.blocks.0.feed_forward.up.weight" in matrices
    rates = Factors(0.5).of(encoder_decoder())
    assert rates["decoder.blocks.0.feed_forward.up.weight"] == rates["encoder.blocks.0.feed_forward.up.weight"] == 0.25


def test_rates_fall_from_layer_to_layer() -> None:
    model = decoder(tied=False)
    groups = parameter_groups(model, 0.1, rates=Factors(0.5), decays=Factors(2.0))
    rate = {name: group.rate for group in groups for name in group.parameters}
    decay = {name: group.weight_decay for group in groups for name in group.parameters}
    assert rate["head.weight"] == 1.0
    for layer, expected in ((0, 0.125), (1, 0.25), (2, 0.5)):
        inside = [name for name in rate if name.startswith(f"blocks.{layer}.")]
        assert {rate[name] for name in inside} == {expected}
        assert sorted({decay[name] for name in inside}) == pytest.approx([0.0, 0.1 * 2.0 ** (3 - layer)])
    assert rate["embedding.weight"] == 0.0625
    assert decay["embedding.weight"] == pytest.approx(1.6)
    assert {name for group in groups for name in group.parameters} == {name for name, _ in model.named_parameters()}


def test_the_last_pattern_that_fits_acts_upon_the_layers() -> None:
    factors = Factors(0.5, {"blocks.*": 0.1, "blocks.2.*": 0.2, "*.bias": 3.0}).of(decoder())
    assert factors["blocks.0.feed_forward.up.weight"] == pytest.approx(0.0125)
    assert factors["blocks.2.feed_forward.up.weight"] == pytest.approx(0.1)
    assert factors["blocks.2.feed_forward.up.bias"] == pytest.approx(1.5)
    assert factors["final_norm.weight"] == 1.0


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    config = load_config(None, ["optimizer.rates.factors={'layers.*': 0.1}"], environment={}).optimizer
    with pytest.raises(ConfigError, match=r"optimizer\.rates\.factors: no trainable parameter has such a name"):
        build_groups(config, decoder())


def test_a_decay_pattern_that_fits_only_what_is_exempt_is_refused() -> None:
    for pattern, more in (("*norm*", []), ("*.bias", []), ("embedding*", ["optimizer.decay.embeddings=false"])):
        options = [f"optimizer.decay.factors={{'{pattern}': 5}}", *more]
        config = load_config(None, options, environment={}).optimizer
        with pytest.raises(ConfigError, match=r"optimizer\.decay\.factors: what fits has no weight decay"):
            build_groups(config, decoder())
    config = load_config(None, ["optimizer.decay.factors={'*norm*': 5}", "optimizer.decay.norms=true"], environment={})
    assert 0.5 in {round(group.weight_decay, 9) for group in build_groups(config.optimizer, decoder())}


def test_layers_of_a_model_without_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no nn\.ModuleList of layers"):
        Factors(0.9).of(nn.Linear(2, 2))


def test_frozen_parameters_are_in_no_group() -> None:
    model = decoder()
    model.get_parameter("embedding.weight").requires_grad_(False)
    groups = parameter_groups(model, 0.1, rates=Factors(0.9, {"blocks.*": 0.5}))
    assert "embedding.weight" not in {name for group in groups for name in group.parameters}


def test_matrices_for_muon_are_those_inside_layers() -> None:
    matrices = hidden_matrices(decoder(tied=False))
    assert matrices
    assert all(name.startswith("blocks.") and name.endswith("weight") for name in matrices)
    assert hidden_matrices(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))) == {"0.weight"}


def test_muon_divides_the_parameters() -> None:
    model = decoder(tied=False)
    config = load_config(None, ["optimizer.name=muon", "optimizer.rest=0.25"], environment={}).optimizer
    groups = build_optimizer(config, model).groups
    assert [group.name for group in groups] == ["decay, muon", "decay, adamw", "no_decay, adamw"]
    assert set(groups[0].parameters) == hidden_matrices(model)
    assert [group.rate for group in groups] == [1.0, 0.25, 0.25]


def test_galore_divides_the_parameters_and_names_a_rank_that_fits_none() -> None:
    model = decoder(tied=False)
    config = load_config(None, ["optimizer.name=galore", "optimizer.rest=0.25"], environment={}).optimizer
    groups = build_optimizer(config, model).groups
    assert [group.name for group in groups] == ["decay, galore", "decay, adamw", "no_decay, adamw"]
    assert set(groups[0].parameters) == hidden_matrices(model)
    assert [group.rate for group in groups] == [1.0, 0.25, 0.25]
    config = load_config(None, ["optimizer.name=galore", "optimizer.rank=8"], environment={}).optimizer
    with pytest.raises(ConfigError, match=r"optimizer\.rank: no matrix .* Received: 8"):
        build_optimizer(config, model)


def test_a_schedule_of_its_own_makes_a_group_of_its_own() -> None:
    schedules = "{'blocks.*': {name: constant}, 'blocks.2.*': {name: linear}}"
    config = load_config(None, [f"optimizer.rates.schedules={schedules}"], environment={}).optimizer
    groups = build_groups(config, decoder())
    assert {group.schedule for group in groups} == {"", "blocks.*", "blocks.2.*"}
    assert "decay, schedule blocks.2.*" in {group.name for group in groups}
    for group in groups:
        for name in group.parameters:
            expected = "blocks.2.*" if name.startswith("blocks.2.") else "blocks.*" * name.startswith("blocks.")
            assert group.schedule == expected, name
        assert group.rate_setting == (f"learning_rate/{group.schedule}" if group.schedule else "learning_rate")
    rates = {"learning_rate": 1.0, "learning_rate/blocks.*": 2.0, "learning_rate/blocks.2.*": 3.0}
    applied = applied_rates(groups, rates)
    assert set(applied.values()) == {1.0, 2.0, 3.0}
    assert applied["group/no_decay, schedule blocks.*/learning_rate"] == 2.0
    assert applied_rates(parameter_groups(decoder(), 0.1), rates) == {}


@pytest.mark.parametrize(
    "setting",
    ["schedules={'blocks.0.*': {name: constant}, 'blocks.*': {name: linear}}", "factors={'blocks.0.*': 2.0, '*': 0.5}"],
)
def test_a_pattern_that_a_later_one_takes_everything_from_is_refused(setting: str) -> None:
    config = load_config(None, [f"optimizer.rates.{setting}"], environment={}).optimizer
    with pytest.raises(ConfigError, match=r"a later pattern fits all that this one fits.* Received: 'blocks\.0\.\*'"):
        build_groups(config, decoder())


def test_groups_that_are_told_alike_have_names_of_their_own() -> None:
    groups = parameter_groups(decoder(), 0.1, rates=Factors(1.0, {"blocks.0.*": 0.50001, "blocks.1.*": 0.50002}))
    assert len({group.name for group in groups}) == len(groups)


@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "galore", "custom"])
def test_a_group_moves_by_the_rate_of_its_schedule(name: str) -> None:
    """At a rate of 0 for the pattern its parameters stay, and the others move as without it."""
    target = ["optimizer.target=torch.optim:AdamW"] if name == "custom" else []
    moved = []
    for rate in (0.01, 0.0):
        model = decoder()
        config = load_config(
            None,
            [f"optimizer.name={name}", *target, "optimizer.rates.schedules={'blocks.1.*': {name: constant}}"],
            environment={},
        ).optimizer
        optimizer = build_optimizer(config, model)
        generator = torch.Generator().manual_seed(0)
        for key in sorted(optimizer.storage.gradients):
            gradient = optimizer.storage.gradients[key]
            gradient.copy_(torch.randn(gradient.shape, generator=generator))
        before = {key: weight.clone() for key, weight in optimizer.storage.weights.items()}
        one, none = torch.ones(()), torch.zeros(())
        settings = {"learning_rate": torch.tensor(0.01), "learning_rate/blocks.1.*": torch.tensor(rate)}
        optimizer.update(Gradients(optimizer.storage.gradients, one, one, one, none), settings | {"weight_decay": none})
        moved.append({key: weight - before[key] for key, weight in optimizer.storage.weights.items()})
    for key, usual in moved[0].items():
        assert float(usual.abs().max()) > 0.0
        expected = torch.zeros_like(usual) if key.startswith("blocks.1.") else usual
        assert torch.equal(moved[1][key], expected), key


@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "custom"])
def test_a_factor_on_the_rate_is_a_factor_on_what_a_step_moves(name: str) -> None:
    """Lion, Adam and Muon move by the rate alone, so one step of a group at half the rate is half as long."""
    moved = []
    for factor in (1.0, 0.5):
        model = decoder()
        target = ["optimizer.target=torch.optim:AdamW"] if name == "custom" else []
        config = load_config(
            None,
            [f"optimizer.name={name}", *target, f"optimizer.rates.factors={{'blocks.1.*': {factor}}}"],
            environment={},
        ).optimizer
        optimizer = build_optimizer(config, model)
        generator = torch.Generator().manual_seed(0)
        for key in sorted(optimizer.storage.gradients):
            gradient = optimizer.storage.gradients[key]
            gradient.copy_(torch.randn(gradient.shape, generator=generator))
        before = {key: weight.clone() for key, weight in optimizer.storage.weights.items()}
        one, none = torch.ones(()), torch.zeros(())
        optimizer.update(
            Gradients(optimizer.storage.gradients, one, one, one, none),
            {"learning_rate": torch.tensor(0.01), "weight_decay": torch.tensor(0.0)},
        )
        moved.append({key: weight - before[key] for key, weight in optimizer.storage.weights.items()})
    for key, whole in moved[0].items():
        expected = 0.5 * whole if key.startswith("blocks.1.") else whole
        assert torch.allclose(moved[1][key], expected, rtol=1e-3, atol=1e-6), key


def test_adamw_takes_the_same_steps_in_several_groups() -> None:
    """Cutting the parameters into groups that agree changes nothing."""
    results = []
    for rates in (None, Factors(1.0, {"blocks.0.*": 1.0000001})):
        model = decoder()
        optimizer = AdamW(parameter_groups(model, 0.1, rates=rates))
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            for key in sorted(optimizer.storage.gradients):
                gradient = optimizer.storage.gradients[key]
                gradient.copy_(torch.randn(gradient.shape, generator=generator))
            one, none = torch.ones(()), torch.zeros(())
            settings = {"learning_rate": torch.tensor(0.01), "weight_decay": one}
            optimizer.update(Gradients(optimizer.storage.gradients, one, one, one, none), settings)
        results.append(dict(optimizer.storage.weights))
    for key, weight in results[0].items():
        assert torch.allclose(weight, results[1][key], rtol=1e-5, atol=1e-7), key


def test_an_optimizer_from_outside_keeps_its_own_default_where_no_decay_is_given() -> None:
    """torch's AdamW has 0.01; optimizer.weight_decay 0 gives none to it."""
    target = ["optimizer.name=custom", "optimizer.target=torch.optim:AdamW"]
    optimizer = build_optimizer(load_config(None, target, environment={}).optimizer, decoder())
    assert isinstance(optimizer, ForeignOptimizer)
    one = torch.ones(())
    settings = {"learning_rate": torch.tensor(0.01), "weight_decay": one}
    optimizer.update(Gradients(optimizer.storage.gradients, one, one, one, torch.zeros(())), settings)
    assert {group["weight_decay"] for group in optimizer.optimizer.param_groups} == {0.01}


def test_a_parameter_that_gave_no_gradient_has_none() -> None:
    """As on CUDA, where backward's tensors are taken over instead of added up."""
    layers = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)])
    storage = FlatStorage(parameter_groups(layers, 0.0), torch.bfloat16)
    storage._hands_over = True
    for used in ((0, 1), (0,)):
        storage.zero_gradients()
        storage.expect()
        for index in used:
            layers[index](torch.ones(1, 2, dtype=torch.bfloat16)).sum().backward()
        storage.collect()
        found = {name: float(gradient.float().sum()) for name, gradient in storage.gradients.items()}
        assert found == {f"{index}.weight": 4.0 * (index in used) for index in range(2)}


DECAYING = sorted({*OPTIMIZERS} - {"custom"})


@pytest.mark.parametrize("name", DECAYING)
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_weight_decay_reaches_every_group_by_its_rule(name: str, factor: float) -> None:
    """Without a gradient one update leaves 1 - rate * decay * factor of what decays, and all of the rest.

    Adam with L2 decays through the gradient: Adam's first step is the rate in the direction of the weight's sign,
    whatever the factor. LAMB's is the rate times the norm of the weights along them, likewise.
    """
    for extra in OPTIMIZERS[name].needs:
        pytest.importorskip(EXTRAS[extra])
    model = decoder()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).abs() + 0.5)
    options = [
        f"optimizer.name={name}",
        "optimizer.weight_decay=0.4",
        "optimizer.decay.factors={'blocks.1.*.weight': 0.5}",
    ]
    optimizer = build_optimizer(load_config(None, options, environment={}).optimizer, model)
    before = {key: weight.clone() for key, weight in optimizer.storage.weights.items()}
    optimizer.storage.zero_gradients()
    one = torch.ones(())
    settings = {"learning_rate": torch.tensor(0.01), "weight_decay": torch.tensor(factor)}
    optimizer.update(Gradients(optimizer.storage.gradients, one, one, one, torch.zeros(())), settings)
    seen = set()
    for group in optimizer.groups:
        seen.add(group.weight_decay)
        for key in group.parameters:
            old, new = before[key], optimizer.storage.weights[key]
            taken = 0.01 * group.rate * group.weight_decay * factor
            match name:
                case "adam":
                    expected = old - 0.01 * old.sign() * (taken > 0)
                case "lamb":
                    expected = old * (1.0 - 0.01 * (taken > 0))
                case _:
                    expected = old * (1.0 - taken)
            torch.testing.assert_close(new, expected, rtol=1e-5, atol=1e-7, msg=f"{group.name}: {key}")
    assert sorted(seen) == pytest.approx([0.0, 0.2, 0.4])


def test_what_is_left_of_gradients_is_read_and_not_cleared() -> None:
    storage = FlatStorage(parameter_groups(nn.Linear(2, 2, bias=False), 0.0))
    for gradient in storage.gradients.values():
        gradient.fill_(1.5)
    for _ in range(2):
        assert float(left_over(storage)) == 3.0  # type: ignore[arg-type]
    storage.zero_gradients()
    assert float(left_over(storage)) == 0.0  # type: ignore[arg-type]
    storage._hands_over = True
    assert left_over(storage) is None
