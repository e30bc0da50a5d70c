"""Models of Hugging Face transformers, called the way trimtab calls a model.

Shape suffixes: B sequences · T positions · S positions of a second text · D hidden size · V vocabulary.
"""

from __future__ import annotations

from typing import Any, Final, Literal, final

import torch
from torch import Tensor, nn

from trimtab.errors import CheckpointError
from trimtab.model.embedding_head import EmbeddingHead, mean_of_texts
from trimtab.model.masks import causal_mask, document_mask
from trimtab.model.mode import evaluating
from trimtab.signals import ModelOutput, Vectors

_LARGE: Final = 1000.0
"""Factor on the head's weight while its logits are compared, so that a bound on them (Gemma 2) shows."""

Mask = Literal["none", "square", "plain"]
"""How padding is told: not at all, where no real position sees it; [B, 1, T, T]; [B, T]."""


@final
class HuggingFaceModel(nn.Module):
    """A model of transformers with a head for `task`: any of ours, with their inputs.

    Its parameters keep their names, behind the prefix `module.`; `module` is the object itself, unchanged, to be saved
    or used as before. Its logits have all columns of its own vocabulary, which may be more than the tokenizer has.

    What it gives is features and a head where that is the same as its own logits, which is found by trying on two
    short texts when it is built, in eval mode: then head and loss can be one operation. `scale` is what features are
    multiplied with before the head (T5), None where the model gives logits; `why_whole` says why.
    """

    def __init__(self, module: nn.Module, task: str, *, padding: int = 0, vectors: Vectors | None = None) -> None:
        """`padding` is the token that the model itself takes for padding. With `vectors` they are made of the mean over
        a text's positions, by a head of ours, whose parameters begin with `vectors.`."""
        super().__init__()
        self.module, self.task, self.padding = module, task, padding
        self.given = ""
        """SHA-256 of the weights in a folder that a checkpoint of this model leaves out."""
        self.left_out: frozenset[str] = frozenset()
        """Names of parameters that are frozen for good, and in that folder."""
        self.new: tuple[str, ...] = ()
        """Parameters that the folder did not have, and which begin at random."""
        self.adapted = ""
        """Which matrices have low-rank updates, where that was not asked for by name."""
        self.scale: float | None = None
        self.why_whole = ""
        self._mask: Mask = "plain"
        self.apart = False
        """Whether documents packed in a row do not see each other."""
        self.vectors: EmbeddingHead | None = None
        if vectors is not None:
            self.vectors = EmbeddingHead(int(module.config.get_text_config().hidden_size), vectors)  # type: ignore[union-attr, operator]
            self.why_whole = "its head is ours"
        with evaluating(module):
            tokens_BT, documents_BT = self._trial()
            documents_BT[1, 4:] = -1
            trial = self._given(tokens_BT, documents_BT, "plain")
            found = self._logits(trial) if self.vectors is None else self._of_texts(trial, documents_BT).logits
            self.shape_given = tuple(found.shape)
            """Of the logits for two texts of six tokens."""
            self._mask = self._find_mask()
            if self.vectors is None:
                self.scale, self.why_whole = self._find_scale()

    @property
    def config(self) -> Any:
        """That of transformers."""
        return self.module.config

    @property
    def kind(self) -> str:
        """The name of the class."""
        return type(self.module).__name__

    @property
    def from_folder(self) -> bool:
        """Whether its weights, or most of them, were read from a folder, and not drawn."""
        return bool(getattr(self.config, "_name_or_path", ""))

    @property
    def most_read(self) -> int | None:
        """Positions of the longest text that it can read; None where there is no end."""
        most = getattr(self.config, "max_position_embeddings", None)
        if not isinstance(most, int) or most <= 0:
            return None
        return most - self._first_position

    @property
    def _first_position(self) -> int:
        """The number of a text's first position: RoBERTa and its kin count from the padding token on."""
        begins = (
            one.padding_idx + 1
            for name, one in self.module.named_modules()
            if isinstance(one, nn.Embedding) and "position" in name and one.padding_idx is not None
        )
        return max(begins, default=0)

    @property
    def most_written(self) -> int | None:
        """Positions of the longest text that it can write."""
        return self.most_read

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        second_BS: Tensor | None = None,
    ) -> ModelOutput | Tensor:
        """Features and head, or logits: [B, T, V], [B, V] of whole texts, [B, S, V] of a second text; or vectors.

        A row is one text: documents packed in it see each other, but after `set_apart`. Padding is where
        `document_ids_BT` is -1, and not handed on where no real position sees it, as in decoders.
        """
        if second_BS is not None:
            memory_BTD, _ = self.encode(tokens_BT, document_ids_BT)
            return self.decode(second_BS, memory_BTD, document_ids_BT)
        if self.apart and positions_BT is not None and document_ids_BT is not None:
            inputs = self._inputs_apart(tokens_BT, positions_BT, document_ids_BT)
        else:
            inputs = self._inputs(tokens_BT, document_ids_BT, self._mask)
        if self.vectors is not None:
            return self._of_texts(inputs, document_ids_BT)
        if self.scale is None:
            logits: Tensor = self.module(**inputs).logits
            return logits
        return self._through_head(self._base(**inputs)[0], self.scale)

    def encode(self, tokens_BT: Tensor, document_ids_BT: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """What the decoder reads, [B, T, D], and no signals."""
        memory_BTD: Tensor = self.module.get_encoder()(**self._inputs(tokens_BT, document_ids_BT, "plain"))[0]  # type: ignore[operator]
        return memory_BTD, {}

    def decode(self, second_BS: Tensor, memory_BTD: Tensor, document_ids_BT: Tensor | None) -> ModelOutput:
        """What comes after each position of `second_BS`, given what `encode` gave of the first text.

        Padding of the second text needs no mask: it stands at the end, and no position sees what follows it.
        """
        mask_BT = None if document_ids_BT is None else _seen(document_ids_BT)
        if self.scale is not None:
            features_BSD: Tensor = self.module.get_decoder()(  # type: ignore[operator]
                input_ids=second_BS, encoder_hidden_states=memory_BTD, encoder_attention_mask=mask_BT
            )[0]
            return self._through_head(features_BSD, self.scale)
        logits_BSV = self.module(
            encoder_outputs=(memory_BTD,), attention_mask=mask_BT, decoder_input_ids=second_BS
        ).logits
        return ModelOutput(logits_BSV, _itself)

    def get_extra_state(self) -> dict[str, str]:
        """Which weights a checkpoint needs besides its own."""
        return {"given": self.given}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Raises: CheckpointError when these are not the weights in the folder."""
        if state["given"] != self.given:
            raise CheckpointError(
                "the checkpoint holds what was trained alone, and goes with other weights than those in model.path",
                hint="put the folder back as it was when the run began",
            )

    def extra_repr(self) -> str:
        """For printing."""
        return f"task={self.task}, mask={self._mask}, scale={self.scale}"

    def _inputs(self, tokens_BT: Tensor, document_ids_BT: Tensor | None, mask: Mask) -> dict[str, Tensor]:
        if document_ids_BT is None:
            return {"input_ids": tokens_BT}
        # Some models find padding by its token: the last real one of a text, or where positions begin.
        inputs = {"input_ids": torch.where(document_ids_BT >= 0, tokens_BT, self.padding)}
        seen_BT = _seen(document_ids_BT)
        if mask == "plain":
            inputs["attention_mask"] = seen_BT
        elif mask == "square":
            inputs["attention_mask"] = (seen_BT > 0)[:, None, None, :].expand(-1, 1, seen_BT.shape[1], -1)
        return inputs

    def set_apart(self, longest_sequence: int) -> str | None:
        """Let documents packed in a row not see each other, by a mask of pairs and positions that begin anew in each;
        gives why not, if not.

        It is tried on two documents in a row, which must answer as each by itself does, to the bit where only the other
        changes. Rows of whole texts have nothing to keep apart.
        """
        if self.task not in ("causal_lm", "masked_lm"):
            return f"rows of task {self.task} hold no packed documents"
        text: Any = self.config.get_text_config()
        for name in ("sliding_window", "local_attention", "attention_window"):
            window = getattr(text, name, None)
            if isinstance(window, int) and window < longest_sequence:
                return f"its {name} of {window} positions would be lost beside a mask of pairs"
        tokens_BT, _ = self._trial()
        halves_BT = torch.cat((tokens_BT[:1, :3], tokens_BT[:1, 3:]))
        documents_BT = torch.tensor([[4, 4, 4, 7, 7, 7]], device=tokens_BT.device)
        positions_BT = torch.arange(3, device=tokens_BT.device).repeat(2)[None]
        self.apart = False
        with evaluating(self.module):
            try:
                wanted = self._logits({"input_ids": halves_BT}).flatten(0, 1)
                found, other = (
                    self._logits(self._inputs_apart(row, positions_BT, documents_BT))[0]
                    for row in (tokens_BT[:1], torch.cat((tokens_BT[:1, 3:], tokens_BT[:1, 3:]), 1))
                )
            except Exception as error:  # a model that takes no such mask, or no positions, says so in its own way
                return f"it takes no mask of pairs with positions ({type(error).__name__})"
        if not _same(found, wanted) or not torch.equal(found[3:], other[3:]):
            return "with a mask of pairs it does not answer as for each document by itself"
        self.apart = True
        return None

    def _inputs_apart(self, tokens_BT: Tensor, positions_BT: Tensor, document_ids_BT: Tensor) -> dict[str, Tensor]:
        mask = document_mask(document_ids_BT)
        if self.task == "causal_lm":
            mask = mask & causal_mask(tokens_BT.shape[1], tokens_BT.device)
        return {
            "input_ids": torch.where(document_ids_BT >= 0, tokens_BT, self.padding),
            "attention_mask": mask,
            "position_ids": positions_BT.long() + self._first_position,
        }

    @property
    def _base(self) -> nn.Module:
        """The model without its head."""
        base: nn.Module = self.module.base_model  # type: ignore[assignment]
        return base

    @property
    def _head(self) -> nn.Linear:
        head: nn.Linear = self.module.get_output_embeddings()  # type: ignore[operator]
        return head

    def _through_head(self, features: Tensor, scale: float) -> ModelOutput:
        return ModelOutput(features if scale == 1.0 else features * scale, self._head)

    def _of_texts(self, inputs: dict[str, Tensor], document_ids_BT: Tensor | None) -> ModelOutput:
        assert self.vectors is not None
        features_BD = mean_of_texts(self._base(**inputs)[0], document_ids_BT)
        return ModelOutput(features_BD, self.vectors, {}, self.vectors.scale)

    def _find_mask(self) -> Mask:
        """The first way of telling padding with which no real position sees any, and which changes nothing else.

        A plain mask makes transformers look at its values, for which the host waits for a GPU in every step. What is
        seen is told by bits, as in a model at its beginning a position says little of the others.
        """
        if self.task == "seq2seq":
            return "plain"
        tokens_BT, documents_BT = self._trial()
        documents_BT[1, 4:] = -1
        real_BT = documents_BT >= 0
        masks: tuple[Mask, Mask] = ("none", "square")
        for mask in masks:
            inputs = self._inputs(tokens_BT, documents_BT, mask)
            others = inputs | {"input_ids": torch.where(real_BT, tokens_BT, tokens_BT.flip(0))}
            plain = self._inputs(tokens_BT, documents_BT, "plain")
            try:
                found, other, wanted = (self._base(**given)[0][real_BT] for given in (inputs, others, plain))
            except Exception:  # a model that takes no such mask, or not these inputs alone, says so in its own way
                continue
            if torch.equal(found, other) and _same(found, wanted):
                return mask
        return "plain"

    def _find_scale(self) -> tuple[float | None, str]:
        """What features are multiplied with to get the model's own logits through its head; or why it is not so."""
        head = self.module.get_output_embeddings() if hasattr(self.module, "get_output_embeddings") else None  # type: ignore[operator]
        if type(head) is not nn.Linear:
            return None, "it has no plain head that says tokens"
        if head.bias is not None:
            return None, "its head has a bias"
        tokens_BT, documents_BT = self._trial()
        kept = head.weight.detach().clone()
        try:
            head.weight.mul_(_LARGE)
            wanted = self._logits(self._given(tokens_BT, documents_BT, self._mask))
            for scale in (1.0, float(head.in_features) ** -0.5):
                self.scale = scale
                found = self(tokens_BT, None, documents_BT, tokens_BT if self.task == "seq2seq" else None).logits
                if _same(found, wanted):
                    return scale, ""
        except Exception as error:  # a model that is built otherwise says so in its own way
            return None, f"its features cannot be had apart ({type(error).__name__})"
        finally:
            self.scale = None
            head.weight.copy_(kept)
        return None, "its logits are not its features times its head"

    def _trial(self) -> tuple[Tensor, Tensor]:
        """Two texts of six tokens, and their documents; the fourth ends a text, as some models want one that does."""
        weight = next(self.module.parameters())
        size, end = int(self.config.get_text_config().vocab_size), self.config.eos_token_id
        tokens_BT = (torch.arange(12, device=weight.device) * 7 + 5) % size
        if isinstance(end, int) and end < size:
            tokens_BT = torch.where(tokens_BT == end, (tokens_BT + 1) % size, tokens_BT)
            tokens_BT[3::6] = end
        return tokens_BT.view(2, 6), torch.zeros(2, 6, dtype=torch.int64, device=weight.device)

    def _given(self, tokens_BT: Tensor, document_ids_BT: Tensor, mask: Mask) -> dict[str, Tensor]:
        """What the whole model is called with on trial: both texts are the same."""
        inputs = self._inputs(tokens_BT, document_ids_BT, mask)
        return inputs | ({"decoder_input_ids": tokens_BT} if self.task == "seq2seq" else {})

    def _logits(self, inputs: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.module(**inputs).logits
        return logits


def _seen(document_ids_BT: Tensor) -> Tensor:
    """1 at real positions, and in a row of padding alone, where nothing would be left to attend to; int64."""
    real_BT = document_ids_BT >= 0
    return (real_BT | ~real_BT.any(1, keepdim=True)).long()


def _same(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= 1e-5 * wanted.abs().max())


def _itself(logits: Tensor) -> Tensor:
    return logits
