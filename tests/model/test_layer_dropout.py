"""Dropout over depth, and whole layers that are left out: rates, expectation, evaluation, one program for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab.config import DecoderConfig, load_config
from trimtab.errors import ConfigError
from trimtab.model import Block, Decoder, Dropout, LayerDropout, build_model, count_dropout_sites, set_dropout_factor
from trimtab.trainer import Trainer


def decoder(num_layers: int = 4, **dropout: Any) -> Decoder:
    config = DecoderConfig.model_validate(
        {"num_layers": num_layers, "hidden_size": 16, "num_heads": 2, "dropout": dropout}
    )
    model = build_model(config, vocabulary_size=13, sequence_length=8, seed=1)
    assert isinstance(model, Decoder)
    return model


def tokens(rows: int = 3) -> torch.Tensor:
    return torch.randint(0, 13, (rows, 8), generator=torch.Generator().manual_seed(0))


def test_rates_rise_to_what_was_asked_for() -> None:
    sites = {"attention": 0.1, "residual": 0.2, "feed_forward": 0.4}
    for ramp, parts in (("linear", [0.25, 0.5, 0.75, 1.0]), ("none", [1.0] * 4)):
        model = decoder(**sites, embedding=0.3, layer=0.8, ramp=ramp, layer_ramp=ramp)
        assert model.embedding_dropout.rate == 0.3
        blocks = list(model.all_blocks)
        for name, rate in (("residual_dropout", 0.2), ("feed_forward_dropout", 0.4), ("layer_dropout", 0.8)):
            assert [getattr(block, name).rate for block in blocks] == pytest.approx([rate * part for part in parts])
        assert [block.attention.dropout.rate for block in blocks] == pytest.approx([0.1 * part for part in parts])


def test_stochastic_depth_rises_by_default_and_dropout_does_not() -> None:
    blocks = list(decoder(layer=0.4, residual=0.2).all_blocks)
    assert [block.layer_dropout.rate for block in blocks] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert [block.residual_dropout.rate for block in blocks] == [0.2] * 4


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_a_branch_is_kept_or_not_as_a_whole_and_its_mean_stays(per: Any) -> None:
    torch.manual_seed(0)
    site = LayerDropout(0.3, per=per)
    branch = torch.randn(8, 5, 3)
    kept = torch.zeros(8)
    for _ in range(4000):
        y = site(branch, site.draw(branch))
        left = (y != 0).flatten(1)
        assert torch.equal(left.all(1), left.any(1))  # a row is whole, or nothing
        assert per == "sample" or len(set(left[:, 0].tolist())) == 1
        torch.testing.assert_close(y[left[:, 0]], branch[left[:, 0]] / 0.7)
        kept += left[:, 0]
    assert (kept / 4000).tolist() == pytest.approx([0.7] * 8, abs=0.03)


def test_gradient_follows_the_draw_and_what_is_left_out_may_be_infinite() -> None:
    torch.manual_seed(0)
    site, branch = LayerDropout(0.5), torch.ones(64, 2, 2, requires_grad=True)
    y = site(branch, site.draw(branch))
    y.sum().backward()
    assert branch.grad is not None
    assert torch.equal(branch.grad, y.detach())
    infinite = torch.full((64, 1, 1), float("inf"))
    assert not site(infinite, site.draw(infinite)).isnan().any()


@pytest.mark.parametrize("unit", ["branch", "block"])
@pytest.mark.parametrize("placement", ["pre", "post"])
def test_nothing_is_left_out_in_eval_mode_and_the_whole_stream_stays_where_all_is(unit: str, placement: str) -> None:
    block = _block(unit, placement, 0.9).eval()
    plain = _block(unit, placement, 0.0)
    plain.load_state_dict(block.state_dict())
    x = torch.randn(4, 6, 16)
    state = torch.get_rng_state()
    torch.testing.assert_close(block(x, None, None)[0], plain(x, None, None)[0], rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    block.train()
    block.layer_dropout.draw = lambda x_BTD: torch.zeros(1, 1, 1, dtype=torch.bool)  # type: ignore[method-assign]
    left = block(x, None, None)[0]
    stays = x if placement == "pre" else block.feed_forward_norm(block.attention_norm(x))
    torch.testing.assert_close(left, stays, rtol=0, atol=0)


def test_the_branches_of_a_block_go_together_where_asked() -> None:
    """With one draw for the block a row of a pre-norm block is left alone with its rate, and else has both."""
    together, apart = 0, 0
    x = torch.randn(512, 2, 16)
    torch.manual_seed(0)
    for unit in ("block", "branch"):
        share = (_block(unit, "pre", 0.5)(x, None, None)[0] == x).all(2).all(1).float().mean().item()
        together, apart = (share, apart) if unit == "block" else (together, share)
    assert together == pytest.approx(0.5, abs=0.07)
    assert apart == pytest.approx(0.25, abs=0.07)


def _block(unit: Any, placement: Any, rate: float) -> Block:
    torch.manual_seed(3)
    return Block(
        hidden_size=16,
        num_heads=2,
        num_kv_heads=2,
        feed_forward_size=32,
        activation="gelu",
        norm="layer_norm",
        norm_placement=placement,
        norm_epsilon=1e-5,
        qk_norm=False,
        bias=False,
        attention_dropout=0.0,
        residual_dropout=0.0,
        feed_forward_dropout=0.0,
        layer_dropout=rate,
        layer_dropout_unit=unit,
    )


@pytest.mark.parametrize("site", ["embedding", "attention", "residual", "feed_forward", "layer"])
def test_each_site_keeps_its_expectation_in_training_and_is_nothing_in_evaluation(site: str) -> None:
    """What comes after a site is seen through a linear map: its mean over draws is what evaluation gives."""
    model = decoder(num_layers=1, **{site: 0.4}).double()
    plain = decoder(num_layers=1).double().eval()
    plain.load_state_dict(model.state_dict())
    model.eval()
    torch.testing.assert_close(model(tokens()).features, plain(tokens()).features, rtol=0, atol=0)
    model.train()
    sites = [module for module in model.modules() if isinstance(module, Dropout | LayerDropout) and module.drops]
    assert len(sites) == count_dropout_sites(model) == 1
    seen: list[torch.Tensor] = []
    given: list[torch.Tensor] = []

    def hook(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        given.append(arguments[0])
        seen.append(output)

    sites[0].register_forward_hook(hook)
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(3000):
            model(tokens(2))
    calls = len(seen) // 3000  # a layer has two branches, the second of which reads the first
    x, y = torch.stack(given[::calls]), torch.stack(seen[::calls])
    assert (x == x[0]).all()
    error = (y.mean(0) - x[0]).abs() / x[0].abs().clamp_min(1e-12)
    assert float(error.where(x[0] != 0, 0.0).max()) < 6 * (0.4 / 0.6 / 3000) ** 0.5


def test_a_factor_reaches_layers_and_no_rate_rises_beyond_what_is_allowed() -> None:
    model = decoder(layer=0.4)
    assert set_dropout_factor(model, 2.0) == 4
    site = next(iter(model.all_blocks)).layer_dropout
    torch.manual_seed(0)
    assert site.draw(torch.zeros(20_000, 1, 1)).float().mean().item() == pytest.approx(0.8, abs=0.02)  # type: ignore[union-attr]
    set_dropout_factor(model, 100.0)
    assert site.draw(torch.zeros(20_000, 1, 1)).float().mean().item() == pytest.approx(0.05, abs=0.01)  # type: ignore[union-attr]


def test_blocks_of_different_rates_are_one_program() -> None:
    model = decoder(num_layers=12, residual=0.2, feed_forward=0.2, layer=0.3, ramp="linear")
    programs = 0

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal programs
        programs += 1
        return graph.forward

    torch._dynamo.reset()
    for block in model.all_blocks:
        block.compile(dynamic=False, backend=backend, fullgraph=True)
    model(tokens())
    assert programs <= 2  # the first block reads what needs no gradient of its own


def test_a_run_with_all_of_it_resumes_to_the_same_bits(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("what is left out of a layer is left out of its gradient\n" * 60)
    dropout = {"residual": 0.1, "ramp": "linear", "layer": 0.3, "layer_unit": "block"}
    settings = {
        "model": {"name": "decoder", "num_layers": 2, "hidden_size": 16, "num_heads": 2, "dropout": dropout},
        "data": {
            "sequence_length": 16,
            "source": {"name": "text", "path": str(text)},
            "tokenizer": {"name": "bytes"},
        },
        "training": {"steps": 8, "micro_batch_size": 4, "accumulation": 2, "compile": "off", "device": "cpu"},
        "evaluation": {"every": 4},
        "checkpoint": {"every": 4},
    }
    config = load_config(settings, environment={})
    whole = Trainer(config, run=tmp_path / "whole")
    whole.fit()
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, run=tmp_path / "parts", monitors=[_Leaves()]).fit()
    parts = Trainer(config, run=tmp_path / "parts")
    parts.fit()
    ours, theirs = whole.trained()[0].state_dict(), parts.trained()[0].state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


class _Leaves:
    def observe(self, event: Any) -> None:
        if type(event).__name__ == "CheckpointSaved" and event.step == 4:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("dropout", "message"),
    [
        ({"ramp": "linear"}, "nothing to rise"),
        ({"ramp": "linear", "embedding": 0.1}, "nothing to rise"),
        ({"layer_unit": "block"}, "model.dropout.layer is 0"),
        ({"layer": 1.0}, "less than 1"),
    ],
)
def test_what_has_no_effect_is_refused(dropout: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config({"model": {"name": "decoder", "dropout": dropout}}, environment={})
