"""Settings that are carried over from a narrow model: what changes with the width, and that training then does not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from trimtab.config import AdamWConfig, DecoderConfig, EncoderConfig, EncoderDecoderConfig, load_config
from trimtab.errors import ConfigError
from trimtab.model import Attention, CrossAttention, Decoder, build_model
from trimtab.optimizer import build_groups

BASE = {"hidden_size": 32, "num_heads": 2}


def built(hidden_size: int, kind: Any = DecoderConfig, *, base: dict[str, int] | None = BASE, **more: Any) -> Any:
    shape = {"num_layers": 2, "hidden_size": hidden_size, "num_heads": 2, "bias": True, "width_base": base}
    config = kind.model_validate({**shape, **more})
    return build_model(config, vocabulary_size=61, sequence_length=16, seed=1)


@pytest.mark.parametrize("kind", [DecoderConfig, EncoderConfig, EncoderDecoderConfig])
def test_at_its_own_width_nothing_changes(kind: Any) -> None:
    model, plain = built(32, kind), built(32, kind, base=None)
    assert all(torch.equal(one, plain.state_dict()[name]) for name, one in model.state_dict().items())
    text = torch.arange(12).view(1, 12)
    inputs = (text, None, text) if kind is EncoderDecoderConfig else (text,)
    assert torch.equal(model(*inputs).logits, plain(*inputs).logits)
    groups = [build_groups(AdamWConfig(), one) for one in (model, plain)]
    assert [(one.name, one.rate, list(one.parameters)) for one in groups[0]] == [
        (one.name, one.rate, list(one.parameters)) for one in groups[1]
    ]


@pytest.mark.parametrize("kind", [DecoderConfig, EncoderDecoderConfig])
def test_table_8(kind: Any) -> None:
    """Four times as wide: matrices inside layers begin with a quarter of the variance and learn at a quarter of the
    rate; embeddings, biases and norms as before; logits are divided by 4, scores of attention by the head's size."""
    model, plain = built(128, kind), built(128, kind, base=None)
    inside = {name for name, one in model.named_parameters() if "blocks." in name and one.ndim == 2}
    assert len(inside) == (8 if kind is DecoderConfig else 8 + 14)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            ratio = 2.0 if name in inside else 1.0
            torch.testing.assert_close(parameter * ratio, plain.get_parameter(name))
    rates = {name: group.rate for group in build_groups(AdamWConfig(), model) for name in group.parameters}
    assert {name for name, rate in rates.items() if rate == 0.25} == inside
    assert {rate for name, rate in rates.items() if name not in inside} == {1.0}
    plain.load_state_dict(model.state_dict())
    for module in plain.modules():
        if isinstance(module, Attention | CrossAttention):
            # sqrt(base's head size) / head size, of which torch divides by the root of the head's size.
            module.query_scale = math.sqrt(16) / 64 * math.sqrt(64)
    text = torch.arange(12).view(1, 12)
    inputs = (text, None, text) if kind is EncoderDecoderConfig else (text,)
    torch.testing.assert_close(model(*inputs).logits * 4.0, plain(*inputs).logits)


def test_scores_of_attention_are_products_over_the_size_of_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def watched(query: Tensor, *others: Any, **more: Any) -> Tensor:
        seen.append(query)
        return real(query, *others, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    for base in (BASE, None):
        built(128, base=base, positions={"name": "learned"}).double().blocks[0].attention(
            torch.ones(1, 3, 128, dtype=torch.float64), None, None
        )
    # Weights inside layers are halved, and the head is 64 wide instead of 16: 0.5 * sqrt(16 / 64).
    torch.testing.assert_close(seen[0], seen[1] * 0.25)


@pytest.mark.parametrize("optimizer", ["sgd", "muon", "adafactor"])
def test_other_optimizers_are_refused(optimizer: str) -> None:
    with pytest.raises(ConfigError, match=rf"optimizer\.name is {optimizer}.*Fitting: adamw"):
        load_config(None, ["model.width_base.hidden_size=64", f"optimizer.name={optimizer}"], environment={})
    with pytest.raises(ConfigError, match="60 over 8 heads"):
        load_config(None, ["model.width_base={hidden_size: 60, num_heads: 8}"], environment={})


def _moved(width: int, base: dict[str, int] | None) -> tuple[float, float]:
    """By how much four steps of AdamW change logits, and what the last block gives: root mean squares."""
    model = built(width, base=base, tied_embeddings=False, initialization={"standard_deviation": 0.02})
    assert isinstance(model, Decoder)
    text = torch.randint(0, 61, (16, 16), generator=torch.Generator().manual_seed(3))

    def outputs() -> tuple[Tensor, Tensor]:
        found: list[Tensor] = []
        handle = model.blocks[-1].register_forward_hook(lambda _, __, output: found.append(output[0].detach()))
        logits = model(text).logits.detach()
        handle.remove()
        return logits, found[0]

    before = outputs()
    groups = [
        {"params": list(group.parameters.values()), "lr": 3e-3 * group.rate}
        for group in build_groups(AdamWConfig(weight_decay=0.0), model)
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.95))
    for _ in range(4):
        logits = model(text).logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), text[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    logits, stream = (float((after - one).square().mean().sqrt()) for one, after in zip(before, outputs(), strict=True))
    return logits, stream


@pytest.mark.slow
def test_coordinates_move_as_far_at_every_width() -> None:
    """The coordinate check of Yang et al. 2022, appendix D.1: what a few steps change does not grow with the width."""
    widths, narrow = [64, 128, 256, 512], {"hidden_size": 64, "num_heads": 2}
    slopes: dict[str, list[float]] = {}
    logs = torch.tensor(widths).double().log()
    for name, base in (("carried", narrow), ("plain", None)):
        moved = torch.tensor([_moved(width, base) for width in widths], dtype=torch.float64).log()
        centred = logs - logs.mean()
        slopes[name] = ((centred @ (moved - moved.mean(0))) / (centred @ centred)).tolist()
    # Seen: -0.15 and -0.05, as logits at step 0 are smaller in wide models; 0.8 and 1.3 without.
    assert all(abs(slope) < 0.25 for slope in slopes["carried"]), slopes
    assert min(slopes["plain"]) > 0.5, slopes
