"""What the heads of a layer attend to in a text: as numbers with the text's tokens, and as a picture.

Shape suffixes: B texts · T positions of queries · S positions of keys · H heads shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.data import Tokenizer
from trimtab.errors import UsageError
from trimtab.model import Network, Outside, Transformer, evaluating, is_hugging_face, translates
from trimtab.model.attention_maps import AttentionCall, HeadMeasures, attention_read, measure_heads
from trimtab.model.transformer import Decoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TOKENS: Final = 1024
"""Of a text: the weights of a layer grow with its square, and a longer one cannot be looked at."""


@final
@dataclass(frozen=True, slots=True)
class AttentionView:
    """One layer's attention in one text."""

    layer: int
    """Which of `layers`, from 0."""
    layers: tuple[str, ...]
    """The modules of the model that attend, in the order in which they run."""
    heads: tuple[int, ...]
    """Those shown, from 0."""
    tokens: tuple[str, ...]
    """Of the queries: what a row stands for."""
    keys: tuple[str, ...]
    """Of the keys: what a column stands for; the same text, but where a decoder looks at what was read."""
    weights: NDArray[np.float32]
    """[H, T, S]: how much of each key a query reads; 1 in sum over the keys that it sees."""
    seen: NDArray[np.bool_]
    """[H, T, S]: which keys a query sees."""
    entropy: tuple[float, ...]
    """Of each head, in nats, as `HeadMeasures` has it; so the rest."""
    relative_entropy: tuple[float, ...]
    first: tuple[float, ...]
    largest_logit: tuple[float, ...]

    @property
    def name(self) -> str:
        """The module whose attention it is."""
        return self.layers[self.layer]

    @property
    def place(self) -> str:
        """Which layer it is, in words: layers are counted from 0."""
        last = "the last; " if self.layer == len(self.layers) - 1 else ""
        return f"layer {self.layer} ({last}of {len(self.layers)}, counted from 0)"

    @property
    def figure(self) -> Figure:
        """A heat map for each head, made anew each time. Raises: UsageError without matplotlib."""
        from trimtab.evaluation.attention_picture import draw

        return draw(self)

    def save(self, path: str | Path) -> None:
        """Write the figure to `path`, as its suffix says. Raises: UsageError without matplotlib."""
        from trimtab.evaluation.attention_picture import save

        save(self, Path(path))

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        measures = {
            name: dict(zip(map(str, self.heads), getattr(self, name), strict=True))
            for name in ("entropy", "relative_entropy", "first", "largest_logit")
        }
        return {
            "layer": self.layer,
            "name": self.name,
            "layers": list(self.layers),
            "heads": list(self.heads),
            "tokens": list(self.tokens),
            "keys": list(self.keys),
            **measures,
            "weights": [[[round(float(one), 6) for one in row] for row in head] for head in self.weights],
        }

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        from trimtab.evaluation.attention_picture import as_png

        return as_png(self)


def visualize_attention(
    model: nn.Module,
    text: str,
    tokenizer: Any,
    layer: int | str = -1,
    head: int | None = None,
    *,
    answer: str = "",
) -> AttentionView:
    """What `layer` of `model` attends to in `text`: one `head`, or all.

    `model` is one of ours, of transformers, or any that turns tokens_BT into logits; `tokenizer` is ours, one of
    transformers, or of tokenizers. `layer` counts the modules that attend in the order in which they run, from 0, or
    from the last at -1, or names one. A model that reads a text and writes another also gets `answer`, what it has
    written: its decoder attends to that, and to `text`.

    Eval mode, no gradients; modes are restored. The model computes as it always does, and the weights are computed
    beside it in fp32.

    Raises:
        UsageError: no text, one of more than 1,024 tokens; no such layer or head; a model in which no attention is
            seen.
    """
    ids, tokens = _tokenized(model, text, tokenizer)
    second_ids, second_tokens = _tokenized(model, answer, tokenizer, second=True) if _reads_two(model) else ([], [])
    for given in (ids, second_ids):
        if len(given) > MOST_TOKENS:
            raise UsageError(
                f"attention: the text has {len(given):,} tokens, and {MOST_TOKENS:,} can be looked at",
                hint="give a part of it",
            )
    if not ids:
        raise UsageError("attention: there is no text to attend to", hint="give one of at least two tokens")
    found: list[tuple[str, Tensor, Tensor, HeadMeasures]] = []

    def keep(call: AttentionCall) -> None:
        found.append((call.name, call.weights(0).cpu(), call.logits(0)[1].cpu(), measure_heads(call)))

    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    tokens_BT = torch.tensor([ids], dtype=torch.int64, device=device)
    second_BS = torch.tensor([second_ids], dtype=torch.int64, device=device) if second_ids else None
    with evaluating(model), attention_read(model, keep):
        _pass(model, tokens_BT, second_BS)
    names = tuple(name for name, *_ in found)
    index = _chosen(layer, names, model)
    name, weights_HTS, seen_HTS, measures = found[index]
    heads = _heads(head, len(weights_HTS), name)
    decodes = "decoder" in name and bool(second_ids)
    rows = second_tokens if decodes else tokens
    columns = tokens if decodes and _crosses(name) else rows
    shown = list(heads)
    return AttentionView(
        index,
        names,
        heads,
        _fitting(rows, weights_HTS.shape[1]),
        _fitting(columns, weights_HTS.shape[2]),
        weights_HTS[shown].numpy(),
        seen_HTS[shown].numpy(),
        *(
            tuple(getattr(measures, what)[shown].tolist())
            for what in ("entropy", "relative_entropy", "first", "largest_logit")
        ),
    )


def _reads_two(model: nn.Module) -> bool:
    return translates(model) or (is_hugging_face(model) and bool(getattr(model.config, "is_encoder_decoder", False)))


def _pass(model: nn.Module, tokens_BT: Tensor, second_BS: Tensor | None) -> None:
    if isinstance(model, Transformer | Network | Outside):
        whole = {"document_ids_BT": torch.zeros_like(tokens_BT)}
        model(tokens_BT, **whole, **({} if second_BS is None else {"second_BS": second_BS}))
    elif is_hugging_face(model):
        model(input_ids=tokens_BT, **({} if second_BS is None else {"decoder_input_ids": second_BS}))
    else:
        model(tokens_BT)


def _crosses(name: str) -> bool:
    """Whether a decoder's module attends to what was read: ours, and as transformers calls them."""
    return any(part in name for part in ("memory_attention", "encoder_attn", "EncDecAttention", "crossattention"))


def _chosen(layer: int | str, names: Sequence[str], model: nn.Module) -> int:
    if not names:
        raise UsageError(
            f"attention: {type(model).__qualname__} was not seen to attend",
            hint="seen are torch's scaled_dot_product_attention, softmax of four dimensions, nn.MultiheadAttention",
        )
    if isinstance(layer, int) and -len(names) <= layer < len(names):
        return layer % len(names)
    if isinstance(layer, str) and layer in names:
        return names.index(layer)
    listed = ", ".join(f"{index} {name}" for index, name in enumerate(names))
    raise UsageError(f"attention: the model has no layer {layer!r}; it has: {listed}")


def _heads(head: int | None, num_heads: int, name: str) -> tuple[int, ...]:
    if head is None:
        return tuple(range(num_heads))
    if not 0 <= head < num_heads:
        raise UsageError(f"attention: {name} has heads 0 to {num_heads - 1}. Received: head {head}")
    return (head,)


def _fitting(tokens: Sequence[str], size: int) -> tuple[str, ...]:
    """As many labels as there are positions: a model may see some besides the text's."""
    return (*tokens, *map(str, range(len(tokens), size)))[:size]


def _tokenized(model: nn.Module, text: str, tokenizer: Any, *, second: bool = False) -> tuple[list[int], list[str]]:
    """Token numbers of a text, as the model gets it, and each as text."""
    if isinstance(tokenizer, Tokenizer):
        ids: list[int] = tokenizer.encode(text)
        if second:
            ids = [tokenizer.frame.second, *ids]
        elif not _reads_streams(model):
            ids = [*tokenizer.frame.before, *ids, *tokenizer.frame.after]
        return ids, [tokenizer.decode([one]) for one in ids]
    if second:
        begins = getattr(getattr(model, "config", None), "decoder_start_token_id", None)
        plain = _ids(tokenizer(text, add_special_tokens=False) if callable(tokenizer) else tokenizer.encode(text))
        ids = plain if begins is None else [int(begins), *plain]
    else:
        ids = _ids(tokenizer(text) if callable(tokenizer) else tokenizer.encode(text))
    return ids, [str(tokenizer.decode([one])) for one in ids]


def _reads_streams(model: nn.Module) -> bool:
    """Whether its texts are pieces of a stream, with nothing around them."""
    return isinstance(model, Decoder) or (isinstance(model, Outside) and model.task == "causal_lm")


def _ids(encoded: Any) -> list[int]:
    """Of what a tokenizer gives: a mapping with `input_ids`, an object with `ids`, or the numbers."""
    if isinstance(encoded, Mapping):
        encoded = encoded["input_ids"]
    numbers: Iterable[Any] = getattr(encoded, "ids", encoded)
    return [int(one) for one in numbers]
