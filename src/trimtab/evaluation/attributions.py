"""Which tokens of a text an answer rests on: integrated gradients.

Shape suffixes: T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from trimtab.config.registry import require_module
from trimtab.data import Tokenizer
from trimtab.errors import UsageError
from trimtab.model import HuggingFaceModel, as_output, evaluating, translates
from trimtab.signals import ModelOutput

_AT_ONCE: Final = 16
"""Points of the path that are computed together."""


@final
@dataclass(frozen=True, slots=True)
class Attributions:
    """What each token adds to an answer, in the unit of its logit."""

    tokens: tuple[str, ...]
    """As they are read, with those that stand around the text."""
    scores: tuple[float, ...]
    """One for each; their sum is `value` - `baseline`, but for `gap`."""
    target: int
    """The class, or token, that is explained."""
    value: float
    """Its logit for the text; of a regression the number, in standard units."""
    baseline: float
    """The same where every token of the text is the baseline token."""
    gap: float
    """value - baseline - sum of scores: what so few steps miss."""


def attribute_tokens(
    model: nn.Module,
    tokenizer: Tokenizer,
    text: str,
    *,
    sequence_length: int,
    target: int | None = None,
    steps: int = 64,
    baseline_token: int | None = None,
) -> Attributions:
    """Integrated gradients of the logit of `target` with respect to the embeddings of the tokens of `text`.

    The path goes from the text in which `baseline_token` (padding if not given) stands at every place of the text, what
    stands around it left, to the text itself; the integral has `steps` points (Gauss–Legendre). `target` is the class,
    or of a language model the next token, and the most probable one if not given. Models that speak of a whole text and
    those that predict a next token, ours and those of transformers; extra: interpret (captum). Eval mode; modes are
    restored, and gradients of parameters are not touched.
    Source: Sundararajan et al. 2017, arXiv 1703.01365.

    Raises:
        ConfigError: captum is not installed.
        UsageError: no text; a model that writes a second text; a target that there is not.
    """
    require_module("captum", "interpret", "attributions")
    from captum.attr import LayerIntegratedGradients

    if translates(model):
        raise UsageError("attributions are there for models that speak of a text or go on with it, not for seq2seq")
    frame, device = tokenizer.frame, next(model.parameters()).device
    inner = tokenizer.encode(text)[: sequence_length - frame.size]
    if not inner:
        raise UsageError("there is no token to attribute to: the text is empty")
    read: list[int] = [*frame.before, *inner, *frame.after]
    blank = tokenizer.special.padding if baseline_token is None else baseline_token
    ours_1T, blank_1T = (
        torch.tensor([row], dtype=torch.int64, device=device)
        for row in (read, [*frame.before, *[blank] * len(inner), *frame.after])
    )

    def logits_of_rows(tokens_BT: Tensor) -> Tensor:
        documents_BT = torch.zeros_like(tokens_BT, dtype=torch.int32)
        positions_BT = torch.arange(tokens_BT.shape[1], dtype=torch.int32, device=device).expand_as(tokens_BT)
        output = as_output(model(tokens_BT, positions_BT, documents_BT))
        logits = output.logits if isinstance(output, ModelOutput) else output
        return (logits[:, -1] if logits.ndim == 3 else logits).double()

    with evaluating(model):
        logits_V, blank_V = logits_of_rows(ours_1T)[0], logits_of_rows(blank_1T)[0]
        chosen = int(logits_V.argmax()) if target is None else target
        if not 0 <= chosen < len(logits_V):
            raise UsageError(f"target: must be from 0 to {len(logits_V) - 1}. Received: {target}")
        wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in wanted:
            parameter.requires_grad_(False)  # so that their gradients are neither computed nor changed
        try:
            with torch.enable_grad():
                method: Any = LayerIntegratedGradients(lambda rows: logits_of_rows(rows)[:, chosen], _embedding(model))
                found_1TD = method.attribute(
                    ours_1T,
                    baselines=blank_1T,
                    n_steps=steps,
                    method="gausslegendre",
                    internal_batch_size=_AT_ONCE,
                )
        finally:
            for parameter in wanted:
                parameter.requires_grad_(True)
    scores_T = found_1TD[0].double().sum(-1)
    value, baseline = float(logits_V[chosen]), float(blank_V[chosen])
    return Attributions(
        tuple(_shown(tokenizer, read)),
        tuple(scores_T.tolist()),
        chosen,
        value,
        baseline,
        value - baseline - float(scores_T.sum()),
    )


def _embedding(model: nn.Module) -> nn.Module:
    """What turns tokens into vectors, once in a pass."""
    if isinstance(model, HuggingFaceModel):
        library: Any = model.module
        found: nn.Module = library.get_input_embeddings()
        return found
    embedding = getattr(model, "embedding", None)
    if isinstance(embedding, nn.Embedding):
        return embedding
    several = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    if len(several) != 1:
        raise UsageError(f"the module must have one embedding of tokens. Received: {len(several)}")
    return several[0]


def _shown(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    return [tokenizer.decode([token]) for token in tokens]
