"""Text written by a model, a token at a time.

Shape suffixes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from trimtab.errors import NumericsError, UsageError
from trimtab.model import Decoder, as_output, evaluating, uncompiled
from trimtab.model.incremental import IncrementalReader

_GREEDY_BELOW: Final = 1e-6
"""Temperatures below this are 0: dividing by them would overflow."""


def generate(
    model: nn.Module,
    tokens: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int,
    end_of_text: int | None = None,
    context_length: int,
    device: torch.device,
) -> list[int]:
    """The tokens that the model writes after `tokens`: at most `max_tokens`, those before `end_of_text`.

    The model sees the last `context_length` tokens. No tokens to go on from means a new document: it begins
    after `end_of_text`. A temperature of 0 takes the most probable token; `top_k` 0 and `top_p` 1.0 choose
    among all. The same seed gives the same text; torch's own generators stay untouched. Eval mode, no
    gradients; modes are restored. Of our decoder keys and values are kept, so that each token is a pass over itself
    alone, until the text is longer than `context_length`, whose beginning then moves; of other models it is a whole
    pass of growing length. Each token waits for the device.

    Raises:
        UsageError: no tokens and no `end_of_text`; a temperature, `top_k` or `top_p` out of range.
        NumericsError: the model's logits are not finite.
    """
    require_sampling(temperature, top_k, top_p)
    context = list(tokens)
    if not context:
        if end_of_text is None:
            raise UsageError("there is nothing to go on from: no tokens, and no end_of_text to begin after")
        context = [end_of_text]
    generator = torch.Generator().manual_seed(seed)
    written: list[int] = []
    # Eager: every length would be a new shape to a compiled model or block.
    reader = IncrementalReader(model) if isinstance(model, Decoder) else None
    with evaluating(model), uncompiled():
        while len(written) < max_tokens:
            if isinstance(model, Decoder) and reader is not None and len(context) <= context_length:
                new_1T = torch.tensor([context[reader.length :]], dtype=torch.int64, device=device)
                logits_V = model.head(reader.read(new_1T)[:, -1])[0]
            else:
                window = torch.tensor([context[-context_length:]], dtype=torch.int64, device=device)
                output = as_output(model(window))
                logits_V = output[0, -1] if isinstance(output, Tensor) else output.head(output.features[:, -1])[0]
            token = choose_token(logits_V, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
            if token == end_of_text:
                break
            context.append(token)
            written.append(token)
    return written


def require_sampling(temperature: float, top_k: int, top_p: float) -> None:
    """Nothing, where these are in range. Raises: UsageError."""
    if temperature < 0.0 or top_k < 0 or not 0.0 <= top_p <= 1.0:
        raise UsageError(
            "temperature and top_k must not be negative, and top_p lies between 0.0 and 1.0. "
            f"Received: temperature {temperature}, top_k {top_k}, top_p {top_p}"
        )


def choose_token(logits_V: Tensor, *, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> int:
    """A token drawn from softmax(logits / temperature) among the `top_k` most probable, and of these among
    the fewest whose probabilities sum to at least `top_p`. Drawn on the CPU, so that devices agree on a seed.

    Source: Fan et al. 2018, arXiv 1805.04833 (top k); Holtzman et al. 2020, arXiv 1904.09751 (top p).

    Raises:
        NumericsError: the logits are not finite.
    """
    logits_V = logits_V.float().cpu()
    if not logits_V.max().isfinite():
        raise NumericsError("cannot choose a token: the model's logits are not finite")
    if temperature < _GREEDY_BELOW:
        return int(logits_V.argmax())
    num_kept = min(top_k or len(logits_V), len(logits_V))
    kept, ids = logits_V.topk(num_kept)
    probabilities = (kept.double() / temperature).softmax(dim=0)
    before = probabilities.cumsum(dim=0) - probabilities
    probabilities[1:][before[1:] >= top_p] = 0.0
    return int(ids[torch.multinomial(probabilities, 1, generator=generator)])
