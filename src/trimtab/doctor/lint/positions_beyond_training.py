"""positions-beyond-training: positions that training never meets.

Looks for: `model.max_positions` above the longest sequence that is trained on; texts longer than what a model in
    `model.path` was trained for, by its config.json, unless its rotary positions are stretched (`rope_scaling`, or a
    `rope_type` of `rope_parameters` other than default), or it tells distances between tokens apart and no positions.
Why: a learned vector of a position that no step has met is random, and rotary or sinusoidal positions beyond the
    trained length are angles that attention has never seen: the loss rises steeply there.
Evidence: `model.max_positions`, `model.positions`, `data.sequence_length`, `task.target_length`; `model.config`, and of
    the folder `max_position_embeddings`, `n_positions` or `n_ctx`.
Remedy: as many positions as are trained; of a model in a folder shorter texts, or positions that are stretched.
False alarms: a run that is to be continued on longer texts.
Source: Press et al. 2022, arXiv 2108.12409, section 2.2; Chen et al. 2023, arXiv 2306.15595, figure 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trimtab.config import Config, HuggingFaceConfig, TransformerShape
from trimtab.doctor.lint.finding import LintFinding

_CODE, _SOURCE = "positions-beyond-training", "Press et al. 2022, arXiv 2108.12409, section 2.2"
_NAMES = ("max_position_embeddings", "n_positions", "n_ctx")


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of learned positions, and of a trained model's; tells of others."""
    model, length = config.model, config.longest_sequence
    if isinstance(model, TransformerShape) and model.max_positions is not None and model.max_positions > length:
        learned = model.positions.name == "learned"
        yield LintFinding(
            _CODE,
            "warning" if learned else "info",
            "model.max_positions",
            f"{model.max_positions} positions, of which training meets {length}",
            "the vectors of the others stay random" if learned else "beyond these the loss rises steeply",
            f"model.max_positions={length}",
            _SOURCE,
        )
    if isinstance(model, HuggingFaceConfig) and model.path is not None:
        trained = _trained_for(model.path, model.config)
        if trained is not None and length > trained:
            yield LintFinding(
                _CODE,
                "warning",
                "data.sequence_length",
                f"texts of {length} tokens, and the model in {model.path} was trained for {trained}",
                "its positions beyond these are untrained",
                f"data.sequence_length={trained}",
                _SOURCE,
            )


def _trained_for(path: str, changed: Mapping[str, Any]) -> int | None:
    """Positions by a folder's config.json; None where it does not say, and where the model is made for others, too."""
    try:
        told = json.loads((Path(path).expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # what is read next says it better
    if not isinstance(told, dict) or _reaches_further({**told, **changed}):
        return None
    return next((told[name] for name in _NAMES if isinstance(told.get(name), int) and told[name] > 0), None)


def _reaches_further(told: Mapping[str, Any]) -> bool:
    rotary = told.get("rope_parameters")
    # One for all layers, or one for each kind of layer.
    kinds = [rotary, *rotary.values()] if isinstance(rotary, dict) else []
    stretched = any(isinstance(one, dict) and one.get("rope_type", "default") != "default" for one in kinds)
    by_distance = bool(told.get("alibi") or told.get("relative_attention_num_buckets")) or (
        bool(told.get("relative_attention")) and told.get("position_biased_input") is False
    )
    return bool(told.get("rope_scaling")) or stretched or by_distance
