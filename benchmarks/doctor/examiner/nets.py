"""Small networks, as strangers write them, and configured models of transformers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from examiner.recipe import Recipe
from examiner.tasks import Data

ACTS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


class Block(nn.Module):
    def __init__(self, width: int, dropout: float, pre: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))
        self.ln1, self.ln2, self.drop, self.pre = nn.LayerNorm(width), nn.LayerNorm(width), nn.Dropout(dropout), pre

    def forward(self, h: Tensor, mask: Tensor | None) -> Tensor:
        if self.pre:
            z = self.ln1(h)
            h = h + self.drop(self.attn(z, z, z, attn_mask=mask, need_weights=False)[0])
            return h + self.drop(self.mlp(self.ln2(h)))
        h = self.ln1(h + self.drop(self.attn(h, h, h, attn_mask=mask, need_weights=False)[0]))
        return self.ln2(h + self.drop(self.mlp(h)))


class Sequence(nn.Module):
    """A transformer or recurrent network over tokens, or over a series of numbers."""

    def __init__(self, recipe: Recipe, data: Data) -> None:
        super().__init__()
        width, self.kind, self.causal = recipe.width, recipe.kind, recipe.kind in ("lm", "s2s")
        self.emb = nn.Embedding(data.vocabulary, width) if data.vocabulary else nn.Linear(1, width)
        self.blocks: nn.ModuleList | None = None
        if recipe.net == "transformer":
            self.pos = nn.Parameter(torch.randn(64, width) * 0.02)
            pre = recipe.norm == "pre"
            self.blocks = nn.ModuleList(Block(width, recipe.dropout, pre) for _ in range(recipe.depth))
            if data.vocabulary:
                nn.init.normal_(self.emb.weight, std=0.1 if pre else 0.5)
        else:
            kind = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[recipe.net]
            both = not self.causal and recipe.kind != "reg"
            extra: dict[str, Any] = {"nonlinearity": "relu"} if recipe.net == "rnn" else {}
            self.rnn = kind(width, width // (2 if both else 1), batch_first=True, bidirectional=both, **extra)
        self.drop = nn.Dropout(recipe.dropout)
        self.norm = nn.LayerNorm(width) if recipe.net == "transformer" and recipe.norm == "pre" else nn.Identity()
        self.head = nn.Linear(width, data.outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.emb(x if x.dtype == torch.int64 else x[..., None])
        if self.blocks is not None:
            n = x.shape[1]
            h = h + self.pos[:n]
            mask = torch.full((n, n), -math.inf).triu(1) if self.causal else None
            for block in self.blocks:
                h = block(h, mask)
        else:
            h = self.rnn(self.drop(h))[0]
        if self.kind in ("cls", "reg"):
            h = h.mean(1)
        return self.head(self.drop(self.norm(h)))


class Flat(nn.Module):
    """A perceptron; of a set, of each member before they are averaged."""

    def __init__(self, recipe: Recipe, data: Data) -> None:
        super().__init__()
        size, layers = data.x.shape[-1], []
        for _ in range(recipe.depth):
            layers.append(nn.Linear(size, recipe.width))
            if recipe.norm == "batch":
                layers.append(nn.BatchNorm1d(recipe.width))
            layers += [ACTS[recipe.act](), nn.Dropout(recipe.dropout)]
            size = recipe.width
        self.net, self.head = nn.Sequential(*layers), nn.Linear(size, data.outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.net(x)
        return self.head(h.mean(1) if h.dim() == 3 else h)


class Conv(nn.Module):
    def __init__(self, recipe: Recipe, data: Data) -> None:
        super().__init__()
        width = recipe.width // 4
        norm = lambda: nn.BatchNorm2d(width) if recipe.norm == "batch" else nn.Identity()  # noqa: E731
        self.net = nn.Sequential(
            *(nn.Conv2d(1, width, 3, padding=1), norm(), ACTS[recipe.act](), nn.MaxPool2d(2)),
            *(nn.Conv2d(width, width, 3, padding=1), norm(), ACTS[recipe.act](), nn.Dropout(recipe.dropout)),
        )
        self.head = nn.Linear(width * 25, data.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x).flatten(1))


class Configured(nn.Module):
    """A model of transformers, built from a configuration."""

    def __init__(self, recipe: Recipe, data: Data) -> None:
        super().__init__()
        import transformers as hf

        width, size, drop = recipe.width // 4 * 4, data.vocabulary, recipe.dropout
        small: dict[str, Any] = {"vocab_size": size, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
        if recipe.net == "gpt2":
            config: Any = hf.GPT2Config(
                **small, n_positions=64, n_embd=width, n_layer=recipe.depth, n_head=4,
                resid_pdrop=drop, embd_pdrop=drop, attn_pdrop=drop,
            )  # fmt: skip
        elif recipe.net == "llama":
            config = hf.LlamaConfig(
                **small, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=recipe.depth,
                num_attention_heads=4, max_position_embeddings=64, attention_dropout=drop,
            )  # fmt: skip
        elif recipe.net == "distilbert":
            config = hf.DistilBertConfig(
                vocab_size=size, max_position_embeddings=64, dim=width, hidden_dim=3 * width, n_layers=recipe.depth,
                n_heads=4, dropout=drop, attention_dropout=drop, seq_classif_dropout=drop, pad_token_id=0,
            )  # fmt: skip
        else:
            kind = hf.BertConfig if recipe.net == "bert" else hf.ElectraConfig
            config = kind(
                vocab_size=size, hidden_size=width, num_hidden_layers=recipe.depth, num_attention_heads=4,
                intermediate_size=3 * width, max_position_embeddings=64, hidden_dropout_prob=drop,
                attention_probs_dropout_prob=drop, pad_token_id=0,
                **({"embedding_size": width} if recipe.net == "electra" else {}),
            )  # fmt: skip
        config.num_labels = data.outputs
        config.initializer_range = 0.08 if recipe.kind in ("cls", "tag", "mlm") else 0.04
        auto = {
            "lm": hf.AutoModelForCausalLM,
            "s2s": hf.AutoModelForCausalLM,
            "mlm": hf.AutoModelForMaskedLM,
            "cls": hf.AutoModelForSequenceClassification,
            "tag": hf.AutoModelForTokenClassification,
        }[recipe.kind]
        self.inner = auto.from_config(config)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(input_ids=x).logits


def build(recipe: Recipe, data: Data) -> nn.Module:
    """The network, spoilt as planted."""
    torch.manual_seed(recipe.seed)
    if recipe.net in ("gpt2", "llama", "bert", "distilbert", "electra"):
        net: nn.Module = Configured(recipe, data)
    else:
        net = {"mlp": Flat, "set": Flat, "cnn": Conv}.get(recipe.net, Sequence)(recipe, data)
    plant = recipe.plant
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if plant.get("gain") and (weight.dim() > 1 or "ln" in name):
                weight.mul_(plant["gain"])
            if plant.get("recurrent") and "weight_hh" in name:
                weight.copy_(nn.init.orthogonal_(torch.empty_like(weight)) * plant["recurrent"])
            if plant.get("equal") and weight.dim() > 1:
                weight.fill_(plant["equal"] / weight.shape[-1])
            if plant.get("low") is not None and name.startswith("net.") and name.endswith("bias"):
                hit = torch.rand(weight.shape) < plant["share"]
                weight[hit] = plant["low"]
    if frozen := plant.get("frozen"):
        for weight in list(net.parameters())[: -2 if frozen >= 1 else None][
            : max(1, int(frozen * len(list(net.parameters()))))
        ]:
            weight.requires_grad_(False)
    return net
