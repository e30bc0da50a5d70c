"""Blocks for FlexAttention against the boolean mask; models with it in forward passes. Gradients: tests/cuda.

Compiled it is tried with a back-end that writes no code: torch's own fails at these layouts on a CPU.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from trimtab.config import DecoderConfig, EncoderConfig, EncoderDecoderConfig, load_config
from trimtab.errors import ConfigError
from trimtab.model import build_model, refuses_flex, set_flex
from trimtab.model.masks import seen, seen_blocks
from trimtab.signals import Outputs

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
CPU = torch.device("cpu")


def documents(seed: int, length: int, kind: str) -> Tensor | None:
    generator = torch.Generator().manual_seed(seed)
    if kind == "none":
        return None
    if kind == "any":
        return torch.randint(0, 3, (3, length), generator=generator, dtype=torch.int32)
    ids = (torch.rand(3, length, generator=generator) < 0.01).cumsum(1).int()
    ids[1, length // 3 :], ids[2] = -1, -1  # a row with padding, and one of nothing else
    return ids


def listed(counts: Tensor, indices: Tensor) -> Tensor:
    """Boolean [B, 1, Q, N] of lists of blocks."""
    among = torch.arange(indices.shape[-1]) < counts[..., None]
    return torch.zeros_like(indices, dtype=torch.bool).scatter(-1, indices.long(), among)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 99), st.integers(1, 520), st.sampled_from(["none", "rising", "any"]), st.booleans(),
    st.one_of(st.none(), st.integers(1, 400)),
)  # fmt: skip
def test_blocks_are_those_of_the_mask(seed: int, length: int, kind: str, causal: bool, window: int | None) -> None:
    ids = documents(seed, length, kind)
    blocks = seen_blocks(length, ids, causal=causal, window=window, device=CPU)
    mask = seen(length, ids, causal=causal, window=window, device=CPU)
    pairs = torch.ones(length, length, dtype=torch.bool) if mask is None else mask
    pairs = pairs.tril() if mask is None and causal else pairs
    pairs = pairs.expand(blocks.shape[0], 1, length, length)
    place = torch.arange(length)
    told = blocks.mask_mod(torch.arange(len(pairs))[:, None, None], 0, place[:, None], place[None, :])  # type: ignore[arg-type]
    assert torch.equal(told.expand(pairs[:, 0].shape), pairs[:, 0])

    count = -(-length // 128)
    tiles = F.pad(pairs, (0, 128 * count - length) * 2).view(-1, 1, count, 128, count, 128).transpose(3, 4)
    full = listed(blocks.full_kv_num_blocks, blocks.full_kv_indices)
    part = listed(blocks.kv_num_blocks, blocks.kv_indices)
    assert not (full & part).any()
    if kind == "any":  # a block that is not seen may be asked, and one that is seen in full, too
        assert not (full & ~tiles.all((-1, -2))).any()
        assert not (tiles.any((-1, -2)) & ~(full | part)).any()
    else:
        assert torch.equal(full, tiles.all((-1, -2)))
        assert torch.equal(part, tiles.any((-1, -2)) & ~full)
    assert torch.equal(listed(blocks.q_num_blocks, blocks.q_indices), part.transpose(-1, -2))


SHAPE: dict[str, Any] = {"num_layers": 2, "hidden_size": 32, "num_heads": 2}
MODELS: dict[str, Any] = {
    "decoder": DecoderConfig(**SHAPE, document_mask=True, window=100, num_kv_heads=1),
    "encoder": EncoderConfig(**SHAPE),
    "encoder_decoder": EncoderDecoderConfig(**SHAPE, window=100),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_compute_the_same_with_it_in_training_alone(name: str) -> None:
    outputs = Outputs(32, of_tokens=True, task="seq2seq" if name == "encoder_decoder" else "causal_lm")
    model = build_model(MODELS[name], vocabulary_size=32, sequence_length=160, outputs=outputs, seed=0).train()
    tokens, ids = torch.randint(0, 32, (3, 160)), documents(1, 160, "rising")
    given = {"tokens_BT": tokens, "document_ids_BT": ids}
    given |= {"second_BS": tokens} if name == "encoder_decoder" else {}
    with torch.no_grad():
        expected = model(**given).features
        set_flex(model, True)
        found = model(**given).features
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(model.eval()(**given).features, expected)
    with pytest.raises(NotImplementedError, match="backward on CPU"):
        model.train()(**given)  # it was gone through


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_other_documents_compile_nothing_anew(whole: bool) -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    config = DecoderConfig(**(SHAPE | {"num_layers": 1}), document_mask=True)
    model = build_model(config, vocabulary_size=32, sequence_length=160, seed=0).train()
    plain, counter = copy.deepcopy(model), CompileCounterWithBackend("aot_eager")
    set_flex(model, True)
    for module in [model] if whole else model.all_blocks:
        module.compile(dynamic=False, backend=counter)
    with torch.no_grad():
        for seed in range(3):
            given = {"tokens_BT": torch.randint(0, 32, (3, 160)), "document_ids_BT": documents(seed, 160, "rising")}
            torch.testing.assert_close(model(**given).features, plain(**given).features, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1


def test_where_it_does_not_apply_it_says_so() -> None:
    cuda = torch.device("cuda")

    def why(device: torch.device = cuda, length: int = 256, **others: Any) -> str | None:
        config = DecoderConfig.model_validate({**SHAPE, "document_mask": True, **others})
        return refuses_flex(build_model(config, vocabulary_size=32, sequence_length=length, seed=0), device, length)

    assert "CUDA alone" in str(why(CPU))
    assert "no dropout" in str(why(dropout={"attention": 0.1}))
    assert "nothing is hidden" in str(why(document_mask=False))
    assert "narrower than 16" in str(why(num_heads=4)) or "triton" in str(why(num_heads=4))
    assert "shorter than one block" in str(why(length=100)) or "triton" in str(why(length=100))
    assert "transformers" in str(refuses_flex(torch.nn.Linear(1, 1), cuda, 256))


@pytest.mark.parametrize(
    ("others", "key"),
    [
        (["model.document_mask=true", "model.dropout.attention=0.1"], "model.dropout.attention"),
        ([], "model.document_mask"),
        (
            ["data.source={name: jsonl, path: a}", "task.name=classification", "model={name: mlp}"],
            "trimtab's own transformers",
        ),
    ],
)
def test_asked_for_where_it_cannot_be_it_is_refused(others: list[str], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load_config(None, ["training.attention=flex", "data.source={name: embedded}", *others], environment={})
    load_config(None, ["training.attention=flex", "model.window=64"], environment={})
