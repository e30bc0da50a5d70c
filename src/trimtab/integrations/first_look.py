"""The first batch where the loss is taken outside of the model, as in Lightning: what it is of shows after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from trimtab.integrations.first_answers import are_logits, classes_of, costs, tensors_in
from trimtab.integrations.first_batch import watch_first_batch
from trimtab.model.answers import sum_to_one

_MOST: Final = 1 << 26
"""Numbers of an answer that is kept until the step is over, which may need its memory: of 256 MB in fp32."""


@final
class FirstLook:
    """Looks at the first batch and at what `models` answer, and hands facts to `tell`; then it is over."""

    def __init__(self, models: Sequence[nn.Module], tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._tell = tell
        self._facts: dict[str, Any] = {}
        self._batch: Any = None
        self._answers: dict[int, Tensor] = {}
        self._is_over = False
        self._ends = [watch_first_batch(models, self._found, lambda: self._batch)]
        self._ends += [model.register_forward_hook(self._answered).remove for model in models]

    def batch_came(self, batch: Any) -> None:
        """All of a batch, targets as well."""
        if not self._is_over:
            self._batch = batch

    def batch_ended(self, loss: Any, times: int = 1) -> None:
        """Its loss, divided by `times`: where that is the cross-entropy of the answers these are logits."""
        if self._is_over:
            return
        try:
            if isinstance(loss, Tensor) and loss.numel() == 1:
                self._compare(float(loss.detach()) * times)
        except Exception as error:  # all else is still observed
            self._found({"failed": f"{type(error).__name__}: {error}"[:200]})
        self.end()

    def _compare(self, loss: float) -> None:
        tensors = tensors_in(self._batch)
        for answers in self._answers.values():
            targets = [one for one in tensors if costs(answers, one, loss)]
            if targets:
                if all(are_logits(answers, one, loss) for one in targets):
                    self._found({"sum_to_one": sum_to_one(answers.float())})
                self._tell(classes_of(answers, tensors))
                return

    def end(self) -> None:
        """Let go of the model and the batch."""
        self._is_over, self._batch = True, None
        self._answers.clear()
        for end in self._ends:
            end()

    def _found(self, facts: Mapping[str, Any]) -> None:
        self._facts |= facts
        self._tell({"first_batch": self._facts})

    def _answered(self, module: nn.Module, _: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return  # nothing of it belongs into a graph
        is_told = module.training and torch.is_grad_enabled() and isinstance(output, Tensor)
        if is_told and output.is_floating_point() and output.numel() <= _MOST:
            self._answers.setdefault(id(module), output.detach())
