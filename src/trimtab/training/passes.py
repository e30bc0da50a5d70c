"""Forward and backward passes over micro-batches, as the step's procedure asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trimtab.errors import ConfigError
from trimtab.model import Outside
from trimtab.model.embeddings import EmbeddingTransforms, Mixed, changing, embedding_of
from trimtab.optimizer import Storage
from trimtab.signals import Batch, Change, ModelOutput, Pass, Task, key, set_randomness
from trimtab.training.precision import Precision

if TYPE_CHECKING:
    from trimtab.training.step import Step


@final
class Passes:
    """Model, task, precision and storage, as a procedure sees them: see `trimtab.signals.Passes`."""

    def __init__(
        self,
        *,
        model: nn.Module,
        task: Task,
        precision: Precision,
        storage: Callable[[], Storage],
        inverse: Mapping[str, Tensor],
        is_part: Callable[[], bool],
        device: torch.device,
        seed: int,
        transforms: EmbeddingTransforms | None = None,
        mark: Callable[[str], None] = lambda part: None,
    ) -> None:
        """`storage` gives the one in use; `is_part` says whether a step has further micro-batches; `transforms`: what
        is done to embeddings; `mark` is told which part of a step begins."""
        self._model, self._task, self._precision, self._storage = model, task, precision, storage
        self._is_part, self._device, self._seed, self._mark = is_part, device, seed, mark
        self._transforms = EmbeddingTransforms() if transforms is None else transforms
        self._is_foreign = isinstance(model, Outside)
        self._place = (0, 0)
        self._norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self._drawn = torch.Generator(device)
        self.inverse, self.generator = inverse, torch.Generator(device)

    def at(self, step: int, index: int) -> None:
        """What follows belongs to micro-batch `index` of `step`, from its beginning."""
        self._place = (step, index)
        self.generator.manual_seed(key(self._seed, step, index, "procedure"))
        self.again()

    def again(self) -> None:
        """What is drawn next is what was drawn from the beginning of the micro-batch on."""
        set_randomness(self._seed, *self._place, "model", self._device, foreign=self._is_foreign)
        if self._transforms.are_any:
            self._drawn.manual_seed(key(self._seed, *self._place, "augmentation"))

    def output(self, batch: Batch, change: Change | None = None) -> ModelOutput | Tensor:
        """The model's answer, with its embeddings changed."""
        return self._output(batch, change, None)

    def forward(self, batch: Batch, change: Change | None = None) -> Pass:
        """The model's answer and what the objective says of it; of mixed texts, what it says of both targets."""
        if self._transforms.mixup is None:
            return self.judge(self._output(batch, change, None), batch)
        drawn = key(self._seed, *self._place, "augmentation")
        mixed = self._transforms.mixup.draw(drawn, batch.tokens_BT.shape[0], self._device)
        output = self._output(batch, change, mixed)
        own, others = self.judge(output, batch), self.judge(output, mixed.others(batch))

        def both(one: Tensor, other: Tensor) -> Tensor:
            return mixed.share * one + (1.0 - mixed.share) * other

        return Pass(
            output,
            both(own.total, others.total),
            {name: both(mean, others.means[name]) for name, mean in own.means.items()},
            {name: both(score, others.scores[name]) for name, score in own.scores.items()},
        )

    def judge(self, output: ModelOutput | Tensor, batch: Batch, *, whole: bool = False) -> Pass:
        """What the objective says of `output`."""
        with self._precision.autocast():
            found = self._task.terms(output, batch)
        total, means = torch.zeros((), device=self._device), {}
        for term in found.terms:
            if not (term.additive or whole) and self._is_part():
                raise ConfigError(
                    f"training.accumulation: the loss term {term.name!r} is no sum over micro-batches, so it needs "
                    "the whole batch at once",
                    hint="set training.accumulation=1, or procedure.name=gradient_cache",
                )
            mean = term.sum * self.inverse[term.unit]
            total = total + mean * term.weight
            means[term.name] = mean.detach()
        return Pass(output, total, means, found.scores)

    def backward(self, of: Tensor, slope: Tensor | None = None) -> None:
        """Add the gradient of a loss, or of any tensor with `slope`, to that of the step."""
        self._mark("backward")
        scaler, storage = self._precision.scaler, self._storage()
        storage.expect()
        if slope is not None:
            torch.autograd.backward(of, slope)
        else:
            torch.autograd.backward(of if scaler is None else of * scaler.scale)
        storage.collect()

    def slopes(self, loss: Tensor, of: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of `loss` by each tensor of `of` alone, times the loss scale."""
        self._mark("backward")
        scaler = self._precision.scaler
        found = torch.autograd.grad(loss if scaler is None else loss * scaler.scale, list(of), materialize_grads=True)
        return list(found)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Within it passes leave no trace in the running statistics of BatchNorm."""
        kept = [(buffer, buffer.clone()) for module in self._norms for buffer in module.buffers()]
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in kept:
                    buffer.copy_(before)

    def _output(self, batch: Batch, change: Change | None, mixed: Mixed | None) -> ModelOutput | Tensor:
        self._mark("forward")
        inputs = self._task.inputs(batch if mixed is None else mixed.inputs(batch))
        with self._changing(inputs, batch, change, mixed), self._precision.autocast():
            output: ModelOutput | Tensor = self._model(**inputs)
        return output

    def _changing(
        self, inputs: Mapping[str, Tensor], batch: Batch, change: Change | None, mixed: Mixed | None
    ) -> AbstractContextManager[None]:
        if change is None and not self._transforms.are_any:
            return nullcontext()

        def changed(embeddings_BTD: Tensor, number: int) -> Tensor:
            if mixed is not None:
                embeddings_BTD = mixed(embeddings_BTD, batch.document_ids_BT >= 0)
            if self._transforms.are_any:
                documents = inputs.get("document_ids_BT")
                fits = documents is not None and number == 0 and documents.shape == embeddings_BTD.shape[:2]
                # Of a text that is written, nobody sees the padding at its end.
                real_BT = (
                    documents >= 0
                    if fits and documents is not None
                    else embeddings_BTD.new_ones(embeddings_BTD.shape[:2], dtype=torch.bool)
                )
                embeddings_BTD = self._transforms(embeddings_BTD, real_BT, self._drawn)
            return embeddings_BTD if change is None else change(embeddings_BTD, number)

        return changing(embedding_of(self._model, "embedding, or procedure.name,"), changed)


def passes_of_step(step: Step, transforms: EmbeddingTransforms | None) -> Passes:
    """Those over the model of `step`, whatever optimizer and timer it has by then."""
    return Passes(
        model=step.model,
        task=step.task,
        precision=step.precision,
        storage=lambda: step.optimizer.storage,
        inverse=step.inverse,
        is_part=lambda: step.is_part,
        device=step.device,
        seed=step.seed,
        transforms=transforms,
        mark=lambda part: step.timer.mark(part),
    )
