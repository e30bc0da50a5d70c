"""Modules from elsewhere, called the way trimtab calls a model.

Shape suffixes: B sequences · T positions · S positions of a second text · D hidden size · V vocabulary, or classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from trimtab.errors import ConfigError
from trimtab.signals import ModelOutput, Outputs

_GIVEN: Final[dict[str, Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor | None]]] = {
    "mask_BT": lambda tokens, documents, positions, second: _text(documents),
    "attention_mask": lambda tokens, documents, positions, second: _text(documents).long(),
    "document_ids_BT": lambda tokens, documents, positions, second: documents,
    "positions_BT": lambda tokens, documents, positions, second: (
        torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens) if positions is None else positions
    ),
    "second_BS": lambda tokens, documents, positions, second: second,
    "decoder_input_ids": lambda tokens, documents, positions, second: second,
}
"""What a module is given besides the tokens, where its `forward` has a parameter of that name."""
_SECOND: Final = ("second_BS", "decoder_input_ids")


@final
class ForeignModel(nn.Module):
    """Any module, for any task but contrastive. This is the contract:

    **It gets** the tokens, int64 [B, T], as its first argument, and by keyword what its `forward` has a parameter for:

    - `mask_BT`, bool [B, T]: True where there is text, False on padding; or `attention_mask`, the same as int64 1 and
      0. A row of padding alone is all True, so that a mean over it is a number; what is said of it counts for nothing
    - `document_ids_BT`, int32 [B, T]: which of the documents packed in a row a position is of; -1 on padding
    - `positions_BT`, int32 [B, T]: places in the document
    - `second_BS`, or `decoder_input_ids`, int64 [B, S]: with seq2seq what the decoder has read; it must be one of them,
      and no answer may depend on a later one

    Any other parameter needs a default. Texts of many lengths are padded at their ends, so that a module for rows of
    data has to look at a mask.

    **It returns** a tensor of floating-point numbers, a tuple that begins with one, a mapping with `logits`, or a
    trimtab `ModelOutput` (features and a head):

    - causal_lm, masked_lm: [B, T, V], a score for each token of the vocabulary at each position
    - classification: [B, V], a score for each class or label; of two that exclude each other [B] or [B, 1], too: the
      score of the second by name, as binary cross-entropy takes it (the logits are then 0 and that score)
    - token_classification: [B, T, V], at each position a score for each class
    - regression: [B] or [B, 1], the number in standard units
    - seq2seq: [B, S, V], a score for each token of the vocabulary after each position of the second text

    Of tokens there may be more columns than the vocabulary has: these are cut off.

    A module with the attribute `capturable` set to True says that its step may run as a CUDA graph: it keeps nothing in
    Python between calls, draws from torch alone, and does not look at values on the host. Before step 1 the graph is
    compared with the step as written, and refused where they differ.

    Its parameters and the entries of its state keep their names, behind the prefix `module.`; `module` is the object
    itself, unchanged, to be saved or used as before.
    """

    most_read: int | None = None
    most_written: int | None = None
    """Positions of the longest text that it can read and write: nothing is known of an end."""

    def __init__(self, module: nn.Module, vocabulary_size: int | None = None, outputs: Outputs | None = None) -> None:
        """`outputs` is what a task calls for: if not given, a score for each token of the vocabulary.

        Raises: ConfigError where `forward` asks for what is not given, or lacks what the task needs.
        """
        super().__init__()
        self.module = module
        self.outputs = outputs or Outputs(vocabulary_size or 0, of_tokens=True)
        self._asks = asked_of(module, self.outputs.task)

    @property
    def task(self) -> str:
        """The task that it is trained for."""
        return self.outputs.task

    @property
    def kind(self) -> str:
        """The name of the class."""
        return type(self.module).__qualname__

    @property
    def capturable(self) -> bool:
        """Whether the module says that it may run inside a CUDA graph."""
        return getattr(self.module, "capturable", False) is True

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        second_BS: Tensor | None = None,
    ) -> ModelOutput | Tensor:
        """The module's logits in the shape that the task asks for, or its `ModelOutput`. Without documents all is text.

        Raises:
            ConfigError: the module gives something else.
        """
        documents_BT = torch.zeros_like(tokens_BT, dtype=torch.int32) if document_ids_BT is None else document_ids_BT
        given = {name: _GIVEN[name](tokens_BT, documents_BT, positions_BT, second_BS) for name in self._asks}
        output = as_output(self.module(tokens_BT, **given))
        expected = self._expected(tokens_BT, second_BS)
        if isinstance(output, ModelOutput):
            features = output.features
            width = getattr(output.head, "out_features", expected[-1])
            fits = width >= expected[-1] if self.outputs.of_tokens else width == expected[-1]
            if tuple(features.shape[:-1]) != expected[:-1] or not fits:
                raise self._refused(f"features {tuple(features.shape)} and a head of {width}", tokens_BT, expected)
            return output
        logits = self._fitting(output, tokens_BT, expected)
        if not logits.is_floating_point():
            raise self._refused(f"numbers of the type {str(logits.dtype).removeprefix('torch.')}", tokens_BT, expected)
        return logits

    def encode(self, tokens_BT: Tensor, document_ids_BT: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """What `decode` reads: a module is asked as a whole each time, so that these are the tokens, [B, T, 1]."""
        return tokens_BT[..., None], {}

    def decode(self, second_BS: Tensor, memory_BTD: Tensor, document_ids_BT: Tensor | None) -> ModelOutput:
        """What comes after each position of `second_BS`, given what `encode` gave of the first text."""
        output = self(memory_BTD[..., 0], None, document_ids_BT, second_BS)
        return output if isinstance(output, ModelOutput) else ModelOutput(output, _itself)

    def _expected(self, tokens_BT: Tensor, second_BS: Tensor | None) -> tuple[int, ...]:
        """The shape of the logits."""
        if self.outputs.pooled:
            return (tokens_BT.shape[0], self.outputs.size)
        return (*(tokens_BT if second_BS is None else second_BS).shape, self.outputs.size)

    def _fitting(self, logits: Tensor, tokens_BT: Tensor, expected: tuple[int, ...]) -> Tensor:
        shape, size = tuple(logits.shape), self.outputs.size
        if self.outputs.pooled and shape in (expected[:1], (expected[0], 1)) and (self.outputs.is_binary or size == 1):
            logits_B1 = logits.reshape(-1, 1)
            return logits_B1 if size == 1 else torch.cat((torch.zeros_like(logits_B1), logits_B1), -1)
        if shape[:-1] != expected[:-1] or (not self.outputs.of_tokens and shape != expected):
            raise self._refused(f"a tensor of shape {shape}", tokens_BT, expected)
        if not self.outputs.of_tokens:
            return logits
        if size and shape[-1] < size:
            raise ConfigError(
                f"model: {self.kind} scores {shape[-1]} tokens, but the tokenizer has {size}",
                hint=f"build the model with a vocabulary of {size}",
            )
        return logits[..., :size] if size else logits

    def _refused(self, received: str, tokens_BT: Tensor, expected: tuple[int, ...]) -> ConfigError:
        shape = f"({', '.join(map(str, (*expected[:-1], expected[-1] or 'vocabulary')))})"
        return ConfigError(
            f"model: {self.kind} must give {self._meaning} of shape {shape} for tokens of shape "
            f"{tuple(tokens_BT.shape)} (task {self.task}). Received: {received}",
            hint="what a module gets and gives: docs/how-to/your-own-module.md",
        )

    @property
    def _meaning(self) -> str:
        if self.outputs.of_tokens:
            return "logits"
        if self.outputs.classes:
            shown = ", ".join(self.outputs.classes[:4]) + (" …" if len(self.outputs.classes) > 4 else "")
            return f"logits, a score for each class ({shown}),"
        return "numbers"


def asked_of(module: nn.Module, task: str) -> tuple[str, ...]:
    """What `forward` of `module` has parameters for, besides the tokens.

    Raises: ConfigError where it asks for what is not given, or lacks what `task` needs.
    """
    name = type(module).__qualname__
    try:
        parameters = list(inspect.signature(_as_written(module).forward).parameters.values())
    except (TypeError, ValueError):  # compiled elsewhere: it takes what it takes
        return ()
    plain = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    further = plain if parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL else plain[1:]
    asks = tuple(one.name for one in further if one.name in _GIVEN)
    for one in further:
        if one.name not in asks and one.default is one.empty:
            raise ConfigError(
                f"model: forward of {name} asks for {one.name!r}, which it is not given. After the tokens, which come "
                f"first, it can have: {', '.join(_GIVEN)}",
                hint="rename the parameter, or give it a default",
            )
    unread = tuple(one for one in asks if one in _SECOND)
    if task == "seq2seq" and not unread:
        raise ConfigError(
            f"model: task seq2seq trains a decoder that reads the second text, and forward of {name} has no parameter "
            f"for it: {' or '.join(_SECOND)}. Received: {', '.join(one.name for one in plain) or 'none'}",
            hint="forward(tokens_BT, second_BS) gives a score for each token after each position of second_BS",
        )
    required = [one.name for one in further if one.name in _SECOND and one.default is one.empty]
    if task != "seq2seq" and required:
        raise ConfigError(
            f"model: forward of {name} asks for {required[0]!r}, a second text, and task {task} has none",
            hint="task.name=seq2seq has one",
        )
    return asks if task == "seq2seq" else tuple(one for one in asks if one not in _SECOND)


def _as_written(module: nn.Module) -> nn.Module:
    """Without what torch.compile and DataParallel put around it, which take anything and hand it on."""
    while True:
        inner = module.module if isinstance(module, nn.DataParallel) else module._modules.get("_orig_mod")
        if inner is None:
            return module
        module = inner


def _text(documents_BT: Tensor) -> Tensor:
    """True where there is text, and in a row that has none."""
    real_BT = documents_BT >= 0
    return real_BT | ~real_BT.any(1, keepdim=True)


def _itself(logits: Tensor) -> Tensor:
    return logits


def as_output(output: Any) -> ModelOutput | Tensor:
    """What a module returned, as trimtab reads it: logits, the entry `logits` of a mapping (Hugging Face), or
    the first element of a tuple or list.

    Raises:
        ConfigError: none of these.
    """
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    elif isinstance(output, tuple | list) and output:
        output = output[0]
    if isinstance(output, ModelOutput | Tensor):
        return output
    raise ConfigError(
        "model: expected logits, a trimtab ModelOutput, a mapping with 'logits', or a tuple that begins with "
        f"logits. Received: {type(output).__qualname__}"
    )
