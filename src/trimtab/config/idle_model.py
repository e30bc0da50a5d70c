"""Options of a model that cannot take effect; a part of the table in `effect.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimtab.config.idle import Idle
from trimtab.config.model import DecoderConfig, HuggingFaceConfig, TransformerShape

if TYPE_CHECKING:
    from trimtab.config.run import Config


def _has_no_rate_in_blocks(config: Config) -> bool:
    model = config.model
    if not isinstance(model, TransformerShape) or model.dropout.ramp == "none":  # none says what is so anyway
        return False
    dropout = model.dropout
    return not (dropout.attention or dropout.residual or dropout.feed_forward)


IDLE_OF_MODELS: Final[tuple[Idle, ...]] = (
    Idle(
        ("model.dropout.ramp",),
        "model.dropout.residual",
        _has_no_rate_in_blocks,
        "there is nothing to rise with depth: model.dropout.attention, residual and feed_forward are 0",
        "set model.dropout.residual above 0, or use model.dropout.layer",
    ),
    Idle(
        ("model.document_mask",),
        "task.name",
        lambda config: (
            isinstance(config.model, HuggingFaceConfig)
            and config.model.document_mask
            and config.task.name not in ("causal_lm", "masked_lm")
        ),
        "each row of this task.name is one text",
        "leave it out",
    ),
    Idle(
        ("model.window",),
        "data.sequence_length",
        lambda config: (
            isinstance(config.model, TransformerShape)
            and config.model.window is not None
            and config.model.window >= config.longest_sequence
        ),
        "it reaches over whole sequences, of data.sequence_length or task.target_length tokens",
        "set model.window below data.sequence_length",
    ),
    *(
        Idle(
            ("training.attention",),
            switch,
            lambda config, cannot=cannot: config.training.attention == "flex" and cannot(config.model),  # type: ignore[misc]
            f"flex (FlexAttention) cannot be taken: {reason}",
            remedy,
        )
        for switch, cannot, reason, remedy in (
            (
                "model.dropout.attention",
                lambda model: isinstance(model, TransformerShape) and model.dropout.attention > 0.0,
                "it has no dropout, and model.dropout.attention is above 0",
                "set model.dropout.attention=0",
            ),
            (
                "model.name",
                lambda model: not isinstance(model, TransformerShape),
                "model.name must be one of trimtab's own transformers",
                "leave out training.attention",
            ),
            (
                "model.document_mask",
                lambda model: isinstance(model, DecoderConfig) and not model.document_mask and model.window is None,
                "nothing is hidden but what follows, with model.document_mask false and no model.window",
                "set model.document_mask=true",
            ),
        )
    ),
    Idle(
        ("model.dropout.layer_ramp", "model.dropout.layer_unit", "model.dropout.layer_per"),
        "model.dropout.layer",
        lambda config: isinstance(config.model, TransformerShape) and config.model.dropout.layer == 0.0,
        "no layer is left out, as model.dropout.layer is 0",
        "set model.dropout.layer above 0",
    ),
)
