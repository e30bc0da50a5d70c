from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trimtab.errors import ConfigError
from trimtab.model import Decoder, ForeignModel, as_output, wrap_model
from trimtab.signals import ModelOutput, Outputs


class Bigram(nn.Module):
    """Logits by table, in the wrapping asked for."""

    def __init__(self, size: int = 7, form: str = "logits") -> None:
        super().__init__()
        self.table = nn.Embedding(size, size)
        self.form = form

    def forward(self, tokens: Tensor) -> Any:
        logits = self.table(tokens)
        return {
            "logits": logits,
            "tuple": (logits, "cache"),
            "mapping": OrderedDict(loss=None, logits=logits),
            "output": ModelOutput(logits, nn.Identity()),
            "pooled": logits.mean(1),
            "text": "logits",
        }[self.form]


TOKENS_BT = torch.tensor([[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("form", ["logits", "tuple", "mapping"])
def test_logits_in_every_usual_form(form: str) -> None:
    module = Bigram(form=form)
    logits = wrap_model(module, 7)(TOKENS_BT, positions_BT=None, document_ids_BT=TOKENS_BT)
    assert torch.equal(logits, module.table(TOKENS_BT))


def test_a_model_output_passes() -> None:
    output = ForeignModel(Bigram(form="output"))(TOKENS_BT)
    assert isinstance(output, ModelOutput)
    assert output.logits.shape == (2, 3, 7)


def test_padding_of_the_vocabulary_is_cut_off() -> None:
    assert ForeignModel(Bigram(9), vocabulary_size=7)(TOKENS_BT).shape == (2, 3, 7)


def test_names_of_parameters_have_one_prefix() -> None:
    assert [name for name, _ in ForeignModel(Bigram()).named_parameters()] == ["module.table.weight"]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Bigram(form="pooled"), r"shape \(2, 3, 7\).*Received: a tensor of shape \(2, 7\)"),
        (Bigram(form="text"), "Received: str"),
        (nn.Identity(), r"Received: a tensor of shape \(2, 3\)"),
    ],
)
def test_other_answers_are_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ForeignModel(module, 7)(TOKENS_BT)


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match="scores 7 tokens, but the tokenizer has 8"):
        ForeignModel(Bigram(), 8)(TOKENS_BT)


def test_wrapping_twice_changes_nothing() -> None:
    model = ForeignModel(Bigram())
    assert wrap_model(model) is model
    decoder = Decoder(vocabulary_size=5, max_positions=4, num_layers=1, hidden_size=4, num_heads=1, feed_forward_size=4)
    assert wrap_model(decoder) is decoder
    assert isinstance(as_output(decoder(torch.tensor([[1]]))), ModelOutput)


class Everything(nn.Module):
    """Gives back what it was given."""

    def forward(self, tokens: Tensor, mask_BT: Tensor, attention_mask: Tensor, positions_BT: Tensor) -> Any:
        self.given = mask_BT, attention_mask, positions_BT
        return torch.zeros(*tokens.shape, 7)


def test_it_is_given_what_its_forward_names_and_a_row_of_padding_alone_is_seen() -> None:
    module, documents_BT = Everything(), torch.tensor([[0, 0, -1], [-1, -1, -1]], dtype=torch.int32)
    model = ForeignModel(module, 7)
    model(TOKENS_BT, None, documents_BT)
    mask_BT, attention_mask, positions_BT = module.given
    assert mask_BT.tolist() == [[True, True, False], [True, True, True]]
    assert attention_mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert positions_BT.tolist() == [[0, 1, 2]] * 2
    model(TOKENS_BT, documents_BT.abs())
    assert module.given[0].all()
    assert torch.equal(module.given[2], documents_BT.abs())


@pytest.mark.parametrize("around", [lambda module: torch.compile(module, backend="eager"), nn.DataParallel])
def test_what_is_compiled_or_handed_on_is_given_the_same(around: Any) -> None:
    module, documents_BT = Everything(), torch.tensor([[0, 0, -1], [0, -1, -1]], dtype=torch.int32)
    ForeignModel(around(module), 7)(TOKENS_BT, None, documents_BT)
    assert torch.equal(module.given[0], documents_BT >= 0)
    with pytest.raises(ConfigError, match="reads the second text"):
        ForeignModel(around(module), 7, Outputs(7, of_tokens=True, task="seq2seq"))
