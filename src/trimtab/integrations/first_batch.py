"""The first batch of another trainer's run, asked once more in eval mode: what no sound model does before step 1.

Shape suffixes: B sequences or samples · T positions · V vocabulary, or classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

from trimtab.integrations.first_answers import are_logits, is_continued, tensors_in
from trimtab.integrations.kept import attributes_kept, generators_kept
from trimtab.model.answers import difference, first_input, scale_of, sum_to_one
from trimtab.model.mode import buffers_kept, evaluating, uncompiled

SAMPLES: Final = 2
_LOOKS_BACK: Final = ("ForCausalLM", "LMHeadModel")


def watch_first_batch(
    models: Sequence[nn.Module], tell: Callable[[Mapping[str, Any]], None], batch: Callable[[], Any] = lambda: ()
) -> Callable[[], None]:
    """Hand the facts of the first training batch to `tell`, once, as the first of `models` that is called is given it;
    later steps are not touched. Gives what ends the watch. `batch`: all that came with it, where that is more.

    Two samples are asked four or five times before the batch itself: generators, buffers and attributes are as they
    were, so that the training is the same to the bit. A model that cannot be asked so still trains: `failed` says why
    there is nothing.
    """

    def look(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        if torch.compiler.is_compiling() or not module.training or not torch.is_grad_enabled():
            return  # nothing of it belongs into a graph
        end()
        try:
            facts = _found(module, given, named, batch())
        except Exception as error:
            facts = {"failed": f"{type(error).__name__}: {error}"[:200]}
        tell(facts)

    def end() -> None:
        for hook in hooks:
            hook.remove()

    hooks = [model.register_forward_pre_hook(look, with_kwargs=True) for model in models]
    return end


def parts_of(module: nn.Module) -> list[nn.Module]:
    """A Lightning module, whose forward may never be called, and its parts."""
    return [module, *(one for one in module.children() if next(one.parameters(), None) is not None)]


def _may_begin_with_steps(model: nn.Module) -> bool:
    """Whether a layer takes the positions of a sequence first, and the samples after them."""
    return any(getattr(one, "batch_first", True) is False for one in model.modules())


def trains_in(module: nn.Module) -> bool | None:
    """Whether dropout or the statistics of batches are active in it; None where a part is in training mode that may or
    may not act otherwise then."""
    active = [one for one in module.modules() if one.training]
    return any(map(_acts, active)) or (None if active else False)


def _acts(one: nn.Module) -> bool:
    """Whether a module of torch gives other answers in training mode."""
    if isinstance(one, nn.RNNBase):
        return one.dropout > 0.0 and one.num_layers > 1
    if isinstance(one, nn.MultiheadAttention):
        return bool(one.dropout > 0.0)
    return isinstance(one, _BatchNorm) or (isinstance(one, _DropoutNd) and one.p > 0.0)


def _found(model: nn.Module, given: tuple[Any, ...], named: dict[str, Any], batch: Any) -> dict[str, Any]:
    """The same facts as of a run of our own, as far as answers without a task tell them."""
    size = next((len(one) for one in (*given, *named.values()) if isinstance(one, Tensor) and one.ndim), 0)
    if size < SAMPLES or any(isinstance(one, Iterator) for one in tree_leaves((given, named))):
        return {}  # what is iterated over once is not ours to ask for
    device = next(model.parameters()).device
    ask = _Asked(model, given, {name: one for name, one in named.items() if name != "num_items_in_batch"}, size)
    devices = [device] if device.type == "cuda" else []
    kept = evaluating(model), buffers_kept(model), attributes_kept(model)
    with kept[0], kept[1], kept[2], torch.random.fork_rng(devices=devices), generators_kept(), uncompiled():
        with first_input(model) as seen:
            answers, loss, targets = ask(range(SAMPLES))
        if answers is None:
            return {}
        again, _, _ = ask(range(SAMPLES))
        alone = [ask([number])[0] for number in range(SAMPLES)]
        turned = ask(range(SAMPLES)[::-1])[0] if _may_begin_with_steps(model) else None
        said = type(model).__name__.endswith(_LOOKS_BACK)
        spoken = [one for one in (*given, *named.values()) if said or is_continued(one, tensors_in((named, batch)))]
        ahead = ask.exchanged(spoken) if spoken and answers.ndim == 3 else None
    repeats = None if again is None else difference(answers, again)
    mates = difference(answers, torch.cat([one for one in alone if one is not None])) if None not in alone else None
    if turned is not None and (difference(answers, turned.flip(0)) or 0.0) > 1e-2:
        mates = None  # of what comes first the order counts: these are no samples, but steps
    future = None
    if ahead is not None and not (repeats or 0.0) > 1e-2 and not (mates or 0.0) > 1e-1:
        cut = answers.shape[1] // 2
        future = difference(answers[:, :cut], ahead[:, :cut])
    return {
        "sequences": SAMPLES,
        "repeats_differ": repeats,
        "mates_differ": mates,
        "future_changes": future,
        "sum_to_one": sum_to_one(answers) if _takes_logits(answers, loss, targets) else None,
        **scale_of(seen),
    }


class _Asked:
    """A model, and the batch that it was given."""

    def __init__(self, model: nn.Module, given: tuple[Any, ...], named: dict[str, Any], size: int) -> None:
        self._model, self._given, self._named, self._size = model, given, named, size

    def __call__(
        self,
        numbers: Sequence[int],
        change: Callable[[Tensor], Tensor] | None = None,
        changed: Sequence[Any] = (),
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Answers in fp32, loss and targets of some samples, as far as there are any."""

        def part(one: Any) -> Any:
            taken = one[list(numbers)] if isinstance(one, Tensor) and one.ndim and len(one) == self._size else one
            chosen = change is not None and any(one is other for other in changed)
            if chosen and isinstance(taken, Tensor) and taken.ndim == 2 and not taken.is_floating_point():
                return change(taken)  # type: ignore[misc]
            return taken

        named = {
            name: part(one) if name != "attention_mask" or change is None else one for name, one in self._named.items()
        }
        output = self._model(*(part(one) for one in self._given), **named)
        logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
        loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
        answers = None
        if isinstance(logits, Tensor) and logits.is_floating_point() and len(logits) == len(numbers):
            answers = logits.float()
        return answers, loss if isinstance(loss, Tensor) else None, named.get("labels")

    def exchanged(self, spoken: Sequence[Any]) -> Tensor | None:
        """The answers where the second half of the tokens in `spoken` is another's."""

        def change(tokens_BT: Tensor) -> Tensor:
            cut = tokens_BT.shape[1] // 2
            changed_BT = tokens_BT.clone()
            changed_BT[:, cut:] = tokens_BT[:, cut:].flip(0, 1)
            return changed_BT

        return self(range(SAMPLES), change, spoken)[0]


def _takes_logits(answers: Tensor, loss: Tensor | None, targets: Tensor | None) -> bool:
    """Whether the model's loss is the cross-entropy of its answers as logits, of these or of the next tokens.

    Probabilities are at fault only where a softmax is taken of them.
    """
    return loss is not None and targets is not None and are_logits(answers, targets, float(loss))
