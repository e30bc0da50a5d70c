"""Keys and values that are kept: the features are those of the whole sequence, however it is read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trimtab.config import DecoderConfig, EncoderDecoderConfig
from trimtab.errors import ConfigError
from trimtab.model import Decoder, EncoderDecoder, build_model
from trimtab.model.incremental import IncrementalReader

SHAPES: list[dict[str, Any]] = [
    {},
    {"positions": {"name": "learned"}, "bias": True},
    {"positions": {"name": "sinusoidal"}, "norm": {"name": "rms_norm", "placement": "post"}},
    {"num_kv_heads": 1, "qk_norm": True, "activation": "swiglu"},
    {"window": 3},
]


def built(kind: Any, **more: Any) -> Any:
    shape = {"num_layers": 2, "hidden_size": 24, "num_heads": 4, "initialization": {"standard_deviation": 0.3}}
    config = kind.model_validate({**shape, **more})
    return build_model(config, vocabulary_size=31, sequence_length=12, seed=1).double().eval()


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 31, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("more", SHAPES)
@pytest.mark.parametrize("parts", [[12], [5, 1, 1, 5], [1] * 12])
@torch.no_grad()
def test_a_decoder_gives_what_it_gives_for_the_whole(more: dict[str, Any], parts: list[int]) -> None:
    model: Decoder = built(DecoderConfig, **more)
    text = tokens(3, 12)
    reader = IncrementalReader(model)
    found = torch.cat([reader.read(part) for part in text.split(parts, 1)], 1)
    torch.testing.assert_close(found, model(text).features, rtol=1e-5, atol=1e-6)  # rotation is computed in fp32
    assert reader.length == 12
    with pytest.raises(ConfigError, match=r"13 tokens is longer than the model's 12"):
        reader.read(text[:, :1])


@pytest.mark.parametrize("more", SHAPES[:4])
@torch.no_grad()
def test_a_decoder_that_reads_another_text_and_goes_on_with_some_rows(more: dict[str, Any]) -> None:
    model: EncoderDecoder = built(EncoderDecoderConfig, **more)
    first, second, further = tokens(1, 7), tokens(3, 4, 2), tokens(4, 3, 3)
    memory, _ = model.encode(first, None)
    reader = IncrementalReader(model.decoder, memory)
    begun = reader.read(second)
    torch.testing.assert_close(
        begun, model.decode(second, memory.expand(3, -1, -1), None).features, rtol=1e-5, atol=1e-6
    )
    rows = torch.tensor([2, 0, 2, 1])
    reader.choose(rows)
    whole = model.decode(torch.cat((second[rows], further), 1), memory.expand(4, -1, -1), None).features
    torch.testing.assert_close(reader.read(further), whole[:, 4:], rtol=1e-5, atol=1e-6)
